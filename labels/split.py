"""Hold out part of the images, with about the same proportion of each label: `--val_fraction`.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the rarest label comes first, and
each of its images goes to the side that needs the label most. Library versions give neither of two
more things that are wanted here: a hold-out of exactly the given size, and both sides with every
label that is on at least two images, as far as the size allows.
"""

from __future__ import annotations

import heapq

import numpy as np
import scipy

from util.log import counted, log


def split_train_val(
    targets: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images and of the held-out images, ascending; fixed by the seed.

    targets: N×C bool. round(fraction × N) images are held out. A label on a single image stays in
    training, as long as there are enough images without such labels to hold out. Says on stderr how
    many other labels have no held-out image.
    """
    num_images = len(targets)
    size = round(fraction * num_images)
    held = np.zeros(num_images, bool)
    if 0 < size < num_images:
        rng = np.random.default_rng(seed)
        counts = targets.sum(0)
        least = np.minimum(counts // 2, 1)  # images on each side
        quota = np.clip(np.rint(fraction * counts), least, counts - least).astype(int)
        _distribute(targets, held, quota, size, rng)
        held[targets[:, counts == 1].any(1)] = False  # held out for another label
        _fix_one_sided(targets, held, counts, rng)
        _fix_size(targets, held, quota, size, rng)
        if absent := int(((counts > 1) & ~targets[held].any(0)).sum()):
            what = counted(absent, "label is", "labels are")
            log(f"{what} on no held-out image (of {size:,}): raise --val_fraction")
    elif size:
        held[:] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _distribute(targets, held, quota, size, rng) -> None:
    """Set `held` so that each label gets about its quota of held-out images."""
    num_images = len(targets)
    order = rng.permutation(num_images)
    columns = scipy.sparse.csc_matrix(targets[order])
    label_sets = [np.flatnonzero(row) for row in targets]
    lacking = np.stack([targets.sum(0) - quota, quota])  # 2×C: still needed in training, held out
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


def _fix_one_sided(targets, held, counts, rng) -> None:
    """Move an image of each one-sided label to the other side, if no other label loses its last."""
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


def _fix_size(targets, held, quota, size, rng) -> None:
    """Move images until `size` are held out, first those that the labels need least on their side.

    A label needs its only image most, then its last one on a side, then those up to its quota.
    Moving images only raises the costs, so an outdated cost in the heap is never too high, and is
    updated when it comes up.
    """
    too_many = bool(held.sum() > size)
    label_sets = [np.flatnonzero(row) for row in targets]
    alone = targets[:, targets.sum(0) == 1].any(1)
    left = targets[held == too_many].sum(0)
    quota = quota if too_many else targets.sum(0) - quota

    def cost(i: int) -> tuple[bool, int, int]:
        mine = left[label_sets[i]]
        return bool(alone[i]), int((mine <= 1).sum()), int((mine <= quota[label_sets[i]]).sum())

    movable = rng.permutation(np.flatnonzero(held == too_many)).tolist()
    heap = [(cost(i), n, i) for n, i in enumerate(movable)]
    heapq.heapify(heap)
    for _ in range(abs(int(held.sum()) - size)):
        while heap[0][0] != (now := cost(heap[0][2])):
            heapq.heapreplace(heap, (now, *heap[0][1:]))
        *_, i = heapq.heappop(heap)
        held[i] = not too_many
        left[label_sets[i]] -= 1
