"""Metrics of a ranking by score: average precision, precision-recall curves, the best k labels.

    targets N×C (0/1)   truth
    scores  N×C         label probabilities; rows are images, columns labels
    weights N×B         how often each image counts, whole numbers, in each of B resamples;
                        None: every image counts once
    known   N×C bool    the image-label pairs whose truth is known: only these are ranked and
                        counted; None: all of them

A value that is undefined, such as the AP of a label on no image, is nan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Counts = tuple[np.ndarray | int, np.ndarray, np.ndarray]
LAST = -1.0  # below every probability


def known_pairs(known: np.ndarray | None, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values of each array, N×C or of one label N, at the known pairs; all if known is None."""
    return arrays if known is None else tuple(array[known] for array in arrays)


def only_known(sets: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Label sets N×C as bool, without the labels that are not known of their image."""
    return sets.astype(bool) if known is None else sets.astype(bool) & known


def unknown_last(
    targets: np.ndarray, scores: np.ndarray, known: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Targets as bool, and scores: an unknown pair is not true, and below all known ones.

    Nothing in a ranking changes with what comes after the last true pair. So this gives the
    ranking of the known pairs.
    """
    return only_known(targets, known), scores if known is None else np.where(known, scores, LAST)


def check_scores(scores: np.ndarray) -> None:
    """Raise ValueError if a score is nan: sorted, it would be the best one."""
    if np.isnan(scores).any():
        raise ValueError("scores must be numbers, not nan")


def average_precision(
    targets: np.ndarray,
    scores: np.ndarray,
    known: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """AP of each label in 0..1: C values, or C×B with weights; nan for a label on no image.

    AP = sum over distinct scores s of (recall(s) - recall(above s)) * precision(s). Equal scores
    are one step, as in scikit-learn's `average_precision_score`. Nothing is interpolated. A label
    ranks the images where it is known. Raises ValueError for scores that are nan.
    """
    if weights is not None:
        return Rankings(targets, scores, known).average_precision(weights)
    targets, scores = unknown_last(targets, scores, known)
    labels = zip(targets.T, scores.T, strict=True)
    counts = (counts_at_positives(truth, column) for truth, column in labels)
    return np.array([_average_precision(1, hits, seen) for _, hits, seen in counts])


def _average_precision(
    gained: np.ndarray | int, hits: np.ndarray, seen: np.ndarray
) -> float | np.ndarray:
    """AP of one label from the P steps of its ranking, from the best score down; P or P×B counts.

    gained  positives at this step; with recall = hits / all positives, this is recall's increase
    hits    positives at this step and above
    seen    images at this step and above
    """
    if not len(hits):
        return np.full(hits.shape[1:], np.nan)
    precision = hits / np.maximum(seen, 1)
    positives = hits[-1]
    ap = (gained * precision).sum(0) / np.maximum(positives, 1)
    return np.where(positives > 0, ap, np.nan)


def counts_at_positives(
    truth: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The P scores of the positives, best first; how many positives and images reach each.

    Two sorts of plain values and a search: several times faster than sorting indices. Raises
    ValueError for scores that are nan.
    """
    check_scores(scores)
    ranked, positives = np.sort(scores, axis=None), np.sort(scores[truth])
    hits = len(positives) - np.searchsorted(positives, positives)
    seen = len(ranked) - np.searchsorted(ranked, positives)
    return positives[::-1], hits[::-1], seen[::-1]


class Rankings:
    """Every label's ranking, sorted once, for the AP of many resamples.

    The counts of `_average_precision` for all resamples come from two sparse matrices of zeros
    and ones. Each has a row per step of any label and a column per image. Raises ValueError for
    scores that are nan.
    """

    def __init__(
        self, targets: np.ndarray, scores: np.ndarray, known: np.ndarray | None = None
    ) -> None:
        targets, scores = unknown_last(targets, scores, known)
        check_scores(scores)
        steps = [_steps(targets[:, c], scores[:, c]) for c in range(targets.shape[1])]
        self.first = np.cumsum([0, *(positives.shape[0] for positives, _ in steps)])
        self.positives, self.images = (
            scipy.sparse.vstack(part, "csr") for part in zip(*steps, strict=True)
        )

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Weights N×B -> C×B."""
        w = weights.astype(np.float32, copy=False)  # whole numbers: exact up to 16 million
        gained, images = self.positives @ w, self.images @ w
        ap = []
        for start, end in zip(self.first[:-1], self.first[1:], strict=True):
            hits = np.cumsum(gained[start:end], axis=0, dtype=np.float64)
            seen = np.cumsum(images[start:end], axis=0, dtype=np.float64)
            ap.append(_average_precision(gained[start:end], hits, seen))
        return np.array(ap)


def _steps(truth: np.ndarray, scores: np.ndarray) -> tuple[csr_array, csr_array]:
    """One label's ranking as two P×N matrices of zeros and ones, best score first.

    A row is a distinct score that a positive has. The first matrix marks the positives of that
    score. The second marks all images from that score up to the row before: scores without a
    positive do not change recall, so they are joined with the next lower one that has one.
    """
    order = np.argsort(-scores)
    new_score = np.append(False, np.diff(scores[order]) != 0)
    step = np.cumsum(new_score)  # of each image, in the ranking's order
    positive = truth[order]
    with_positives = np.unique(step[positive])
    joined = np.searchsorted(with_positives, step)
    counted = joined < len(with_positives)  # what follows the last positive counts nowhere

    def matrix(images: np.ndarray) -> csr_array:
        starts = np.searchsorted(joined[images], np.arange(len(with_positives) + 1))
        ones = np.ones(starts[-1], np.float32)
        return scipy.sparse.csr_array(
            (ones, order[images], starts), shape=(len(with_positives), len(truth))
        )

    return matrix(positive), matrix(counted)


def pr_curve(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """P×3: score, recall, precision, best score first, at the distinct scores of positives.

    Recall does not change between them, so AP = sum of recall's steps times precision is exact.
    Raises ValueError for scores that are nan.
    """
    check_scores(scores)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])
    hits = np.cumsum(truth[order])[ends]
    ends, hits = (a[np.diff(hits, prepend=0) > 0] for a in (ends, hits))
    return np.stack([ranked[ends], hits / max(truth.sum(), 1), hits / (ends + 1)], 1)


def voc07_average_precision(
    targets: np.ndarray, scores: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """PASCAL VOC 2007's AP of each label, C values in 0..1; nan for a label on no image.

    The mean, over recalls 0, 0.1, ..., 1, of the highest precision at that recall or above
    (Everingham et al. 2010). Equal scores are one step, so the order of rows does not matter.
    """
    targets, scores = unknown_last(targets, scores, known)
    found = []
    for truth, column in zip(targets.T, scores.T, strict=True):
        _, hits, seen = counts_at_positives(truth, column)
        # whole numbers: with floats, 3 of 10 might fall short of 0.3 by a rounding error
        reached = 10 * hits >= np.arange(11)[:, None] * len(hits)
        best = np.where(reached, hits / seen, 0).max(1, initial=0)
        found.append(best.mean() if len(hits) else np.nan)
    return np.array(found)


def top_k(scores: np.ndarray, k: int, above: float = -np.inf) -> np.ndarray:
    """N×C bool: the k highest-scored labels of each image, of those with score > `above`.

    Ties go to the more frequent label (the lower column). k=3 gives `top3`, the protocol of the
    papers of 2016; with above=0.5 it is `top3@0.5`, the protocol of newer papers. Raises ValueError
    for scores that are nan.
    """
    check_scores(scores)
    k = min(k, scores.shape[1])
    kth_best = np.partition(scores, -k, axis=1)[:, [-k]]
    better, tied = scores > kth_best, scores == kth_best
    room = k - better.sum(1, keepdims=True)
    return (better | (tied & (tied.cumsum(1) <= room))) & (scores > above)


def map_at_k(
    targets: np.ndarray, scores: np.ndarray, k: int = 10, known: np.ndarray | None = None
) -> float:
    """mAP@k of Wang et al. (CNN-RNN, CVPR 2016) in percent: a mean over images, not over labels.

    AP@k of an image = sum over its first k labels by score of the precision so far at each true
    one, divided by min(k, number of true labels). Images without labels are left out. An image
    ranks its known labels.
    """
    targets, scores = unknown_last(targets, scores, known)
    some = targets.any(1)
    targets, scores = targets[some], scores[some]
    best = top_k(scores, k)  # only these are sorted, not all C
    shape = len(scores), min(k, scores.shape[1])
    order = np.argsort(-scores[best].reshape(shape), axis=1, kind="stable")
    hits = np.take_along_axis(targets[best].reshape(shape), order, axis=1)
    precision = np.cumsum(hits, 1) / np.arange(1, shape[1] + 1)
    ap = (precision * hits).sum(1) / np.minimum(targets.sum(1), k)
    return 100 * float(ap.mean()) if len(ap) else float("nan")
