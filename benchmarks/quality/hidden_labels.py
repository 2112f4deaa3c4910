"""Hide a share of the labels of training images and hold-out, as in partial annotations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from images.part import Part
from training.data import TrainAndVal

POSITIVES = "positives"  # of a tenth of the images: all that is known
HIDDEN = ("30", "60", "90", POSITIVES)  # the others: percent of all image-label pairs


def hide_labels(images: TrainAndVal, hidden: str, seed: int, as_absent: bool) -> TrainAndVal:
    """The images with fewer known labels; hidden: one of HIDDEN.

    as_absent: hidden labels count as absent instead of unknown. The vocabulary's counts, and so
    where training starts, are those of what is known then.
    """
    rng = np.random.default_rng(seed)
    train, val = (_hide(part, hidden, rng, as_absent) for part in (images.train, images.val))
    known = np.ones_like(train.targets) if train.unknown is None else ~train.unknown
    vocabulary = replace(
        images.vocabulary,
        counts=tuple(train.targets.sum(0).tolist()),
        num_images=len(train.targets),
        known=() if known.all() else tuple(known.sum(0).tolist()),
    )
    return replace(images, train=train, val=val, vocabulary=vocabulary)


def _hide(part: Part, hidden: str, rng: np.random.Generator, as_absent: bool) -> Part:
    if hidden == POSITIVES:
        part = part.select(np.sort(rng.permutation(len(part.targets))[: len(part.targets) // 10]))
        unknown = ~part.targets
    else:
        unknown = rng.random(part.targets.shape) < int(hidden) / 100
        annotated = ~unknown.all(1)
        part, unknown = part.select(annotated.nonzero()[0]), unknown[annotated]
    targets = part.targets & ~unknown
    return replace(part, targets=targets, unknown=None if as_absent else unknown)
