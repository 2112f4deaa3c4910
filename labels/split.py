"""Part of the images held out, with each label in the same proportion: `--val_fraction`.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the rarest label is dealt out
first, each image to the side that lacks the label most. Written here because what is wanted beyond
it is the larger part: a hold-out of exactly the size asked for, and a label on two images or more
on both sides, as far as that many images can have all labels among them.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import csc_matrix

from util.log import log


def split_train_val(
    targets: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those held out, ascending; the same for a seed.

    targets: N×C bool. Of N images round(fraction × N) are held out. A label on one image stays in
    training; says on stderr how many others have no image held out.
    """
    num_images = len(targets)
    size = round(fraction * num_images)
    held = np.zeros(num_images, bool)
    if 0 < size < num_images:
        rng = np.random.default_rng(seed)
        counts = targets.sum(0)
        least = np.minimum(counts // 2, 1)  # on either side
        quota = np.clip(np.rint(fraction * counts), least, counts - least).astype(int)
        _deal(targets, held, quota, size, rng)
        _mend(targets, held, counts, rng)
        _to_size(targets, held, quota, size, rng)
        if absent := int(((counts > 1) & ~targets[held].any(0)).sum()):
            log(f"{absent:,} labels are on none of the {size:,} held out: raise --val_fraction")
    elif size:
        held[:] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _deal(targets, held, quota, size, rng) -> None:
    """Set `held` so that each label is on about its quota of held images."""
    num_images = len(targets)
    order = rng.permutation(num_images)
    columns = csc_matrix(targets[order])
    label_sets = [np.flatnonzero(row) for row in targets]
    lacking = np.stack([targets.sum(0) - quota, quota])  # of each label, in training and held
    room = np.array([num_images - size, size])
    remaining, free = targets.sum(0), np.ones(num_images, bool)
    while remaining.any():
        label = np.where(remaining > 0, remaining, num_images + 1).argmin()
        images = order[columns.indices[columns.indptr[label] : columns.indptr[label + 1]]]
        for i in images[free[images]].tolist():
            train, out = lacking[:, label].tolist()
            side = int(out > train or (out == train and room[1] > room[0]))
            labels = label_sets[i]
            lacking[side, labels] -= 1
            remaining[labels] -= 1
            room[side] -= 1
            held[i], free[i] = side, False
    unlabelled = order[free[order]]
    held[unlabelled[: max(0, int(room[1]))]] = True


def _mend(targets, held, counts, rng) -> None:
    """Give a side that has nothing of a label one of its images, if no other label pays for it."""
    for label in np.flatnonzero(counts >= 2):
        mine = np.flatnonzero(targets[:, label])
        sides = held[mine]
        if not (sides.all() or not sides.any()):
            continue
        on_side = targets[held == sides[0]].sum(0)
        spare = [i for i in rng.permutation(mine) if (on_side[targets[i]] > 1).all()]
        if spare:
            best = min(spare, key=lambda i: targets[i].sum())
            held[best] = not held[best]


def _to_size(targets, held, quota, size, rng) -> None:
    """Move images while too many or too few are held, those first that no label needs where it is.

    A label needs its last image most, then those up to its quota. Costs only rise while images go,
    so that a heap may have them outdated.
    """
    too_many = bool(held.sum() > size)
    label_sets = [np.flatnonzero(row) for row in targets]
    left = targets[held == too_many].sum(0)
    quota = quota if too_many else targets.sum(0) - quota

    def cost(i: int) -> tuple[int, int]:
        mine = left[label_sets[i]]
        return int((mine <= 1).sum()), int((mine <= quota[label_sets[i]]).sum())

    movable = rng.permutation(np.flatnonzero(held == too_many)).tolist()
    heap = [(cost(i), n, i) for n, i in enumerate(movable)]
    heapq.heapify(heap)
    for _ in range(abs(int(held.sum()) - size)):
        while heap[0][0] != (now := cost(heap[0][2])):
            heapq.heapreplace(heap, (now, *heap[0][1:]))
        _, _, i = heapq.heappop(heap)
        held[i] = not too_many
        left[label_sets[i]] -= 1
