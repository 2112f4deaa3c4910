"""Which images are in each batch, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from images.shards import group_by_shards
from util.distributed import rank, world_size


class EpochBatchSampler(Sampler):
    """Batches of (epoch, index). Set `epoch` before each pass.

    seed: shuffles by (seed, epoch), for training; without it images come in order.
    repeats: passes through the images per epoch, each counted as an epoch of its own.
    shards: N shard numbers, one for each index; a few shards at a time are shuffled together.
    first: number of the first batch of a pass, set where an interrupted pass continues.

    With several processes (util/distributed.py) each gets its share: in training a part of every
    batch, else whole batches.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None = None,
        repeats: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.repeats = length, batch_size, seed, repeats
        self.num_items, self.epoch, self.first = length * repeats, 0, 0
        self.shards = np.zeros(length, int) if shards is None else shards

    def batch_sizes(self) -> list[int]:
        """Images in each batch from `first` on, over all processes."""
        full, left = divmod(self.num_items, self.batch_size)
        return ([self.batch_size] * full + [left] * (left > 0))[self.first :]

    def __len__(self) -> int:
        """The number of batches of this process."""
        num_batches = len(self.batch_sizes())
        return num_batches if self.seed is not None else len(self._local(range(num_batches)))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.concatenate([self._epoch_order(repeat) for repeat in range(self.repeats)])
        items = [(int(e), int(i)) for e, i in order]
        starts = range(self.first * self.batch_size, self.num_items, self.batch_size)
        if self.seed is None:
            yield from (items[s : s + self.batch_size] for s in self._local(starts))
        else:
            yield from (self._local(items[s : s + self.batch_size]) for s in starts)

    def _epoch_order(self, repeat: int) -> np.ndarray:
        """N×2: (number of the pass, index), in the order of one pass through the images."""
        order = np.arange(self.length)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, repeat])
            order = group_by_shards(rng.permutation(order), self.shards, rng)
        number = self.epoch * self.repeats + repeat
        return np.stack([np.full_like(order, number), order], axis=1)

    @staticmethod
    def _local(items: Sequence) -> Sequence:
        """The share of this process."""
        return items[rank() :: world_size()]
