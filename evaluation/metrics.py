"""Every metric of multi-label image classification, from numpy arrays alone.

    targets   N×C (0/1)  truth; rows are images, columns labels (rank 0 the most frequent)
    scores    N×C        label probabilities
    predicted N×C (0/1)  label sets
    weights   N×B        how often each image counts, whole numbers, in each of B resamples;
                         None: every image counts once
    known     N×C bool   the image-label pairs whose truth is known; None: all of them

Only known pairs count: a label's AP ranks the images where it is known, and a predicted set is
compared with the true one on the image's known labels. An image without any counts in no metric.

To add a metric, add a line to SCORE_METRICS (of scores) or SET_METRICS (of predicted label
sets): metrics.json, the tables, the bootstrap and the report loop over these two.

Metrics are in percent, as papers print them. An undefined one is nan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from evaluation.calibration import EPSILON, expected_calibration_error
from evaluation.ranking import (
    average_precision,
    map_at_k,
    only_known,
    top_k,
    voc07_average_precision,
)

PROTOCOLS = {"coco": 3, "nus81": 3, "nus1k": 10, "voc07": None}  # labels predicted per image
SHOWN = ("CF1", "OF1", "EM", "EBF1")  # the set metrics shown where there is no room for all
RULES = {
    "threshold": "probability above the one threshold fitted on the hold-out",
    "label_f1": "probability above the label's own threshold (best expected F1)",
    "map": "the most probable label set",
    "f1": "the label set with the best expected F1",
    "top3": "exactly the 3 best scores (papers of 2016)",
    "top3@0.5": "those of the 3 best scores above 0.5",
}
Values = float | np.ndarray  # one value, or B values if there are weights


class Metric(NamedTuple):
    """How a metric is computed, in percent or per unit, and what tables say of it."""

    compute: Callable
    meaning: str
    digits: int  # after the point


# compute(targets N×C, scores N×C, known=N×C or None) -> percent
SCORE_METRICS = {
    "mAP": Metric(
        lambda *pairs, known: 100 * mean_over_labels(average_precision(*pairs, known)),
        "mean over labels of AP, %",
        2,
    ),
    "mAP@10": Metric(map_at_k, "mean over images of AP of the 10 best labels, %", 2),
    "ECE": Metric(
        expected_calibration_error, "calibration error, percentage points; lower is better", 2
    ),
}

# computed by the model, from the labels' logits
SET_NLL = Metric(np.mean, "nats per image; lower is better", 3)

# compute(SetCounts) -> 0..1. Labels on no image are left out of CP, CR and macroF1, as they are
# of mAP. Some papers call macroF1 "CF1".
SET_METRICS = {
    "CP": Metric(lambda s: s.over_labels(s.precision), "mean over labels of precision", 1),
    "CR": Metric(lambda s: s.over_labels(s.recall), "mean over labels of recall", 1),
    "CF1": Metric(
        lambda s: harmonic_mean(s.over_labels(s.precision), s.over_labels(s.recall)),
        "harmonic mean of CP and CR",
        1,
    ),
    "macroF1": Metric(lambda s: s.over_labels(s.f1), "mean over labels of F1", 1),
    "OP": Metric(
        lambda s: s.hits.sum(0) / np.maximum(s.predicted.sum(0), 1),
        "precision over all image-label pairs",
        1,
    ),
    "OR": Metric(
        lambda s: s.hits.sum(0) / np.maximum(s.true.sum(0), 1),
        "recall over all image-label pairs",
        1,
    ),
    "OF1": Metric(
        lambda s: harmonic_mean(SET_METRICS["OP"].compute(s), SET_METRICS["OR"].compute(s)),
        "harmonic mean of OP and OR",
        1,
    ),
    "EM": Metric(
        lambda s: s.over_images(s.images.exact), "share of images whose set is exactly right", 1
    ),
    "EBF1": Metric(lambda s: s.over_images(s.images.f1), "mean over images of F1", 1),
}


def set_metrics(
    targets: np.ndarray,
    predicted: np.ndarray,
    known: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
) -> dict[str, Values]:
    """SET_METRICS of predicted label sets, in percent: floats, or B values each with weights."""
    return LabelSets(targets, predicted, known).metrics(weights)


class LabelSets:
    """Predicted beside true label sets: all of SET_METRICS that does not depend on weights.

    Both are restricted to the image's known labels. counted: N, whether the image has any; None if
    all labels of all images are known.
    """

    def __init__(
        self, targets: np.ndarray, predicted: np.ndarray, known: np.ndarray | None = None
    ) -> None:
        self.counted = None if known is None else known.any(1)
        self.true, self.predicted = (only_known(sets, known) for sets in (targets, predicted))
        self.hits = self.true & self.predicted
        self.num_hits, self.num_true, self.num_predicted = (
            sets.sum(1) for sets in (self.hits, self.true, self.predicted)
        )

    @cached_property
    def exact(self) -> np.ndarray:
        """N, 1 where the set is exactly right."""
        return ((self.num_hits == self.num_true) & (self.num_hits == self.num_predicted)) * 1.0

    @cached_property
    def f1(self) -> np.ndarray:
        """N, F1 of each image's set; two empty sets count 1."""
        sizes = self.num_true + self.num_predicted
        return np.where(sizes == 0, 1.0, 2 * self.num_hits / np.maximum(sizes, 1))

    @cached_property
    def _hits_and_predicted(self) -> list[np.ndarray]:
        return [sets.astype(np.float32) for sets in (self.hits, self.predicted)]

    def count(self, weights: np.ndarray | None = None, true: np.ndarray | None = None) -> SetCounts:
        """The counts that SET_METRICS are computed from; `true` C×B if they are known already."""
        if weights is None:
            counts = (sets.sum(0) for sets in (self.hits, self.predicted, self.true))
            return SetCounts(*counts, self)
        hits, predicted = (weighted_sum(sets, weights) for sets in self._hits_and_predicted)
        true = weighted_sum(self.true, weights) if true is None else true
        weights = weights.astype(np.float64)
        if self.counted is not None:
            weights *= self.counted[:, None]
        return SetCounts(hits, predicted, true, self, weights, weights.sum(0))

    def metrics(
        self, weights: np.ndarray | None = None, true: np.ndarray | None = None
    ) -> dict[str, Values]:
        """SET_METRICS in percent; arguments as of `count`."""
        counts = self.count(weights, true)
        found = {name: 100 * m.compute(counts) for name, m in SET_METRICS.items()}
        return found if weights is not None else {name: float(v) for name, v in found.items()}


def weighted_sum(sets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """N×C zeros and ones, N×B whole numbers -> C×B counts.

    The product is in float32, where sums of whole numbers are exact up to 16 million.
    """
    sets, weights = (a.astype(np.float32, copy=False) for a in (sets, weights))
    return (sets.T @ weights).astype(np.float64)


@dataclass(frozen=True)
class SetCounts:
    """How often label sets are right, per label: C counts, or C×B with weights."""

    hits: np.ndarray  # images where the label is true and predicted
    predicted: np.ndarray
    true: np.ndarray
    images: LabelSets
    weights: np.ndarray | None = None
    num_images: np.ndarray | None = None  # B, the sum of the weights of images that count

    @property
    def precision(self) -> np.ndarray:
        """Per label in 0..1; 0 where it is never predicted."""
        return self.hits / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> np.ndarray:
        """Per label in 0..1."""
        return self.hits / np.maximum(self.true, 1)

    @property
    def f1(self) -> np.ndarray:
        """Per label in 0..1."""
        return 2 * self.hits / np.maximum(self.predicted + self.true, 1)

    def over_labels(self, values: np.ndarray) -> Values:
        """Mean over the labels that are on some image."""
        return mean_over_labels(np.where(self.true > 0, values, np.nan))

    def over_images(self, values: np.ndarray) -> Values:
        """Mean of N values."""
        if self.weights is None:
            counted = self.images.counted
            return mean(values if counted is None else values[counted])
        return values @ self.weights / self.num_images


def mean_over_labels(values: np.ndarray) -> Values:
    """Mean of C or C×B values over labels, without those that are nan; nan if all are."""
    defined = ~np.isnan(values)
    count = defined.sum(0)
    total = np.where(defined, values, 0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan)


def harmonic_mean(a: Values, b: Values) -> Values:
    """2ab / (a + b), 0 when both are 0."""
    return 2 * a * b / np.maximum(a + b, EPSILON)


def mean(values: np.ndarray) -> float:
    """nan for no values, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")


def all_metrics(
    targets: np.ndarray,
    scores: np.ndarray,
    predicted: dict[str, np.ndarray],
    known: np.ndarray | None = None,
) -> dict[str, float | dict[str, dict[str, float]]]:
    """All metrics but the set NLL, which needs the model: of the scores, then of each rule's sets.

    `predicted` maps a decision rule's name to its N×C sets; top3 and top3@0.5 are added.
    mAP_labels is the number of labels on any image, which mAP is a mean of. A rule predicts a set
    from all scores, also top3: which labels are known has no influence on a prediction.
    """
    targets = only_known(targets, known)
    rules = {**predicted, "top3": top_k(scores, 3), "top3@0.5": top_k(scores, 3, above=0.5)}
    return {
        **{n: float(m.compute(targets, scores, known=known)) for n, m in SCORE_METRICS.items()},
        "mAP_labels": int(targets.any(0).sum()),
        "predicted_sets": {rule: set_metrics(targets, sets, known) for rule, sets in rules.items()},
    }


def per_label(
    labels: tuple[str, ...],
    targets: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    known: np.ndarray | None = None,
) -> list[dict]:
    """AP, precision, recall, F1 in percent and the number of true images of every label.

    With `known` also on how many images the label is known.
    """
    counts = LabelSets(targets, predicted, known).count()
    values = {
        "AP": average_precision(targets, scores, known),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
    }
    return [
        {
            "label": label,
            "support": int(counts.true[c]),
            **({} if known is None else {"known": int(known[:, c].sum())}),
            **{name: 100 * float(column[c]) for name, column in values.items()},
        }
        for c, label in enumerate(labels)
    ]


def protocol_metrics(
    protocol: str, targets: np.ndarray, scores: np.ndarray, known: np.ndarray | None = None
) -> dict[str, str | int | float | dict[str, float]]:
    """What papers print for a data set, in percent, from N×C targets and scores.

    coco, nus81, nus1k   the k best labels of each image as its set (Wang et al. 2016), k = 3 or,
                         of the 1k tags, 10: exactly k, and those of them above 0.5; and mAP@10
    voc07                11-point AP of each label (see `voc07_average_precision`), mAP11 their mean
    Both have mAP, and N and C to compare with the paper's.
    """
    k = PROTOCOLS[protocol]
    found = {"protocol": protocol, "num_images": len(targets), "num_labels": targets.shape[1]}
    found["mAP"] = 100 * float(mean_over_labels(average_precision(targets, scores, known)))
    if k is None:
        ap11 = 100 * voc07_average_precision(targets, scores, known)
        return {**found, "mAP11": float(mean_over_labels(ap11)), "AP11": ap11.tolist()}
    sets = {f"top{k}": top_k(scores, k), f"top{k}@0.5": top_k(scores, k, above=0.5)}
    names = ("CP", "CR", "CF1", "OP", "OR", "OF1")
    for rule, predicted in sets.items():
        values = set_metrics(targets, predicted, known)
        found[rule] = {name: values[name] for name in names}
    return {**found, "mAP@10": map_at_k(targets, scores, 10, known)}


def label_set_sizes(
    targets: np.ndarray, predicted: dict[str, np.ndarray], known: np.ndarray | None = None
) -> dict[str, list[int]]:
    """How many images have 0, 1, 2, … labels: annotated, and predicted by each rule."""
    sizes = {"annotated": targets, **predicted}
    counts = {name: only_known(sets, known).sum(1) for name, sets in sizes.items()}
    most = max(int(count.max()) for count in counts.values())
    return {name: np.bincount(c, minlength=most + 1).tolist() for name, c in counts.items()}
