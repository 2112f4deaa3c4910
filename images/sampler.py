"""Which images make up each batch, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from images.shards import shard_after_shard
from util.distributed import rank, world_size


class EpochBatchSampler(Sampler):
    """Batches of (epoch, index); set `epoch` before each pass. Shuffled by (seed, epoch) if seeded.

    A pass begins with batch number `first`: that is where an interrupted one continues.
    shards: for each index its shard's number; a few shards are shuffled together, then the next.
    repeats > 1 goes through the images that many times per epoch. Of several processes (see
    distributed.py) each gets its share: in training a part of every batch, else whole batches.
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
        """Images in each batch that is left, over all processes."""
        full, left = divmod(self.num_items, self.batch_size)
        return ([self.batch_size] * full + [left] * (left > 0))[self.first :]

    def __len__(self) -> int:
        """EpochBatchSampler that this process gets."""
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
        """N×2: (number of the pass, index) in the order of one pass through the images."""
        order = np.arange(self.length)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, repeat])
            order = shard_after_shard(rng.permutation(order), self.shards, rng)
        number = self.epoch * self.repeats + repeat
        return np.stack([np.full_like(order, number), order], axis=1)

    @staticmethod
    def _local(dealt: Sequence) -> Sequence:
        return dealt[rank() :: world_size()]
