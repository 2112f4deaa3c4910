"""The bootstrap with weights against copying the images of each resample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from timing import Ratio, side_by_side

from evaluation.bootstrap import WeightedMetrics
from evaluation.metrics import set_metrics
from evaluation.ranking import average_precision

NUM_IMAGES, NUM_LABELS, NUM_RESAMPLES = 5000, 80, 40


def measure() -> Iterator[Ratio]:
    """Metrics of the same resamples both ways. Our time includes the shared preparation."""
    rng = np.random.default_rng(0)
    shape = (NUM_IMAGES, NUM_LABELS)
    targets = rng.random(shape) < np.geomspace(0.4, 0.003, NUM_LABELS)
    scores = (0.3 * targets + 0.7 * rng.random(shape)).astype(np.float32)
    sets = {rule: scores > t for rule, t in (("threshold", 0.6), ("map", 0.7), ("f1", 0.5))}
    drawn = rng.integers(0, NUM_IMAGES, (NUM_RESAMPLES, NUM_IMAGES))

    def by_weights() -> None:
        weighted = WeightedMetrics(targets, scores, sets, np.ones(NUM_IMAGES))
        weighted(np.stack([np.bincount(row, minlength=NUM_IMAGES) for row in drawn], 1))

    def by_copies() -> None:
        for row in drawn:
            average_precision(targets[row], scores[row])
            for predicted in sets.values():
                set_metrics(targets[row], predicted[row])

    name = f"bootstrap of {NUM_IMAGES:,} images, {NUM_LABELS} labels, {NUM_RESAMPLES} resamples"
    yield side_by_side(name, by_weights, by_copies, rounds=3, at_least=5)
