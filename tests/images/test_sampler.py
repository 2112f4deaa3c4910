"""The order of an epoch: given by seed and epoch, and a few shards at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader import LabelledImages
from images import sampler
from images.find import find_images
from images.sampler import EpochBatchSampler
from images.shards import WINDOW
from images.transforms import Preprocessing
from labels.coco import read_annotations


@given(st.lists(st.integers(0, 11), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 3))
def test_each_image_once_and_few_shards_at_a_time(shards, batch_size, num_processes):
    shards = np.unique(shards, return_inverse=True)[1]

    def order(epoch: int, number: int = 0, of: int = 1) -> list[list[tuple[int, int]]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "rank", lambda: number)
            patch.setattr(sampler, "world_size", lambda: of)
            batches = EpochBatchSampler(len(shards), batch_size, 5, 1, shards)
            batches.epoch = epoch
            return list(batches)

    whole = [item for batch in order(1) for item in batch]
    assert sorted(whole) == [(1, i) for i in range(len(shards))]
    shares = [order(1, number, num_processes) for number in range(num_processes)]
    assert sorted(item for share in shares for batch in share for item in batch) == sorted(whole)
    visited = [shards[i] for _, i in whole]
    for start in range(len(visited)):  # shards visited before and after belong to one window
        both = set(visited[:start]) & set(visited[start:])
        assert len(both) <= WINDOW


def test_the_order_depends_on_seed_and_epoch():
    shards = np.arange(400) // 20

    def order(epoch: int, seed: int = 0) -> list[int]:
        batches = EpochBatchSampler(400, 32, seed, 1, shards)
        batches.epoch = epoch
        return [i for batch in batches for _, i in batch]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != order(1, seed=1)
    first = [{shards[i] for i in order(epoch)[: 20 * WINDOW]} for epoch in range(5)]
    assert all(len(window) == WINDOW for window in first)
    assert len(set(map(frozenset, first))) > 1, "other shards are shuffled together"
    assert len({shards[i] for i in order(1)[:32]}) == WINDOW, "a batch is mixed"


def test_folders_are_shuffled_freely(tiny):
    """Without shards the order is a plain permutation by (seed, epoch)."""
    images = read_annotations(tiny.annotations)
    data = LabelledImages(find_images(tiny.images, images), np.zeros((12, 1)), Preprocessing(8), 4)
    batches = EpochBatchSampler(12, 5, 4, 1, data.shards)
    batches.epoch = 2
    plain = np.random.default_rng([4, 2, 0]).permutation(12).tolist()
    assert [i for batch in batches for _, i in batch] == plain
