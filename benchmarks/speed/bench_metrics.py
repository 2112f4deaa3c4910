"""All metrics of evaluate.py's tables against scikit-learn's average precision alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import average_precision_score
from timing import Ratio, side_by_side

from evaluation.metrics import all_metrics
from inference.predictions import DECISIONS

NUM_IMAGES, NUM_LABELS, LABELS_PER_IMAGE = 40_137, 80, 2.9  # COCO's val2014


def measure() -> Iterator[Ratio]:
    """Both get the same float32 scores. The set NLL is left out: it comes from the model."""
    targets, scores = draw()
    cuts = dict(zip(DECISIONS, (0.4, 0.2, 0.5, 0.3), strict=True))
    sets = {rule: scores >= cut for rule, cut in cuts.items()}
    yield side_by_side(
        "all metrics ÷ scikit-learn's AP",
        lambda: all_metrics(targets, scores, sets),
        lambda: average_precision_score(targets, scores, average=None),
        at_most=1,
        note=f"{NUM_IMAGES:,} × {NUM_LABELS} scores",
    )


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores like a trained model's: frequent and rare labels, most scores near zero.

    One score in ten is rounded to hundredths, for ties of every size.
    """
    rng = np.random.default_rng(0)
    share = 1 / np.arange(2, NUM_LABELS + 2)
    share *= LABELS_PER_IMAGE / share.sum()
    truth = rng.random((NUM_IMAGES, NUM_LABELS)) < share
    logits = np.log(share / (1 - share)) + 4 * truth - 1 + 1.5 * rng.normal(size=truth.shape)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    rounded = rng.random(truth.shape) < 0.1
    return truth, np.where(rounded, scores.round(2), scores)
