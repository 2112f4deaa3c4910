"""Every figure of multi-label image classification, from numpy arrays alone.

    targets N×C (0/1)   truth          scores N×C   label probabilities
    predicted N×C (0/1) label sets     rows are images, columns labels (rank 0 most frequent)

Percentages are 0..100 as the field prints them; a figure that is undefined is nan. Definitions
stand with each function: several names in this field have two meanings.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-12  # against division by zero only


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AP of each label, C values in 0..1; nan for a label without positives.

    AP = sum over distinct scores s of (recall(s) - recall(above s)) * precision(s): equal scores
    are one step, as in scikit-learn's `average_precision_score`; no interpolation.
    """
    ap = np.full(targets.shape[1], np.nan)
    for c in np.flatnonzero(targets.any(0)):
        order = np.argsort(-scores[:, c])
        ranked = scores[order, c]
        last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
        hits = np.cumsum(targets[order, c])[last_of_tie]
        seen = np.flatnonzero(last_of_tie) + 1
        ap[c] = np.sum(np.diff(hits, prepend=0) * (hits / seen)) / hits[-1]
    return ap


def precision_recall_f1(targets: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Per label, C values each in 0..1: precision (0 where nothing is predicted), recall, f1."""
    hits = (targets & predicted).sum(0)
    precision = hits / np.maximum(predicted.sum(0), 1)
    recall = hits / np.maximum(targets.sum(0), 1)
    f1 = 2 * hits / np.maximum(predicted.sum(0) + targets.sum(0), 1)
    return {"precision": precision, "recall": recall, "f1": f1}


def set_figures(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Figures of predicted label sets, in percent.

    CP, CR      mean over labels of precision, recall; CF1 = harmonic mean of CP and CR
    macroF1     mean over labels of F1: what some papers call CF1, a different figure
    OP, OR, OF1 pooled over all image-label pairs
    EM          images whose set is exactly right
    EBF1        F1 of each image's set, averaged; two empty sets count 1
    Labels without positives are left out of CP, CR and macroF1, as they are of mAP.
    """
    targets, predicted = targets.astype(bool), predicted.astype(bool)
    present = targets.any(0)
    per_label = precision_recall_f1(targets[:, present], predicted[:, present])
    cp, cr, macro_f1 = (mean(per_label[k]) for k in ("precision", "recall", "f1"))
    hits = (targets & predicted).sum(1)
    sizes = targets.sum(1) + predicted.sum(1)
    op = hits.sum() / max(predicted.sum(), 1)
    recall = hits.sum() / max(targets.sum(), 1)
    example_f1 = np.where(sizes == 0, 1.0, 2 * hits / np.maximum(sizes, 1))
    figures = {
        "CP": cp,
        "CR": cr,
        "CF1": harmonic_mean(cp, cr),
        "macroF1": macro_f1,
        "OP": op,
        "OR": recall,
        "OF1": harmonic_mean(op, recall),
        "EM": mean((targets == predicted).all(1)),
        "EBF1": mean(example_f1),
    }
    return {name: 100 * float(value) for name, value in figures.items()}


def top_k(scores: np.ndarray, k: int, above: float = -np.inf) -> np.ndarray:
    """N×C bool: the k highest-scored labels of each image, of those with score > `above`.

    Ties go to the more frequent label. k=3: `top3`, the 2016 papers' protocol; with above=0.5:
    `top3@0.5`, that of newer papers.
    """
    predicted = np.zeros(scores.shape, bool)
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.put_along_axis(predicted, first, True, axis=1)
    return predicted & (scores > above)


def map_at_k(targets: np.ndarray, scores: np.ndarray, k: int = 10) -> float:
    """mAP@k of the 2016 CNN-RNN paper in percent: a mean over images, not over labels.

    AP@k of an image = sum over its first k labels by score of precision-so-far at each true one,
    divided by min(k, number of true labels). Images without labels are left out.
    """
    some = targets.any(1)
    ranked = np.argsort(-scores[some], axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(targets[some].astype(bool), ranked, axis=1)
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    ap = (precision * hits).sum(1) / np.minimum(targets[some].sum(1), k)
    return 100 * mean(ap)


def expected_calibration_error(
    targets: np.ndarray, scores: np.ndarray, num_bins: int = 15
) -> float:
    """ECE of all label probabilities in percent, over bins of equal mass (equal counts)."""
    order = np.argsort(scores, axis=None, kind="stable")
    # equal scores share their hits, or their order would decide where bins part them
    _, value, count = np.unique(scores, return_inverse=True, return_counts=True)
    truth = (np.bincount(value.ravel(), targets.ravel()) / count)[value.ravel()]
    error = 0.0
    for members in np.array_split(order, num_bins):
        if len(members):
            gap = scores.ravel()[members].mean() - truth[members].mean()
            error += len(members) * abs(gap)
    return 100 * error / max(targets.size, 1)


def figures(
    targets: np.ndarray, scores: np.ndarray, predicted: dict[str, np.ndarray]
) -> dict[str, float | dict[str, dict[str, float]]]:
    """All figures but the set NLL (which needs the model): of the scores, then of each rule's sets.

    `predicted` maps a decision rule's name to its N×C sets; top3 and top3@0.5 are added.
    """
    targets = targets.astype(bool)
    ap = average_precision(targets, scores)
    rules = {**predicted, "top3": top_k(scores, 3), "top3@0.5": top_k(scores, 3, above=0.5)}
    return {
        "mAP": 100 * mean(ap[~np.isnan(ap)]),
        "mAP_labels": int(np.sum(~np.isnan(ap))),
        "mAP@10": map_at_k(targets, scores, 10),
        "ECE": expected_calibration_error(targets, scores),
        "predicted_sets": {rule: set_figures(targets, sets) for rule, sets in rules.items()},
    }


def fit_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    """The one threshold (predict where score >= it) with the highest OF1; 0.5 if nothing is true.

    To be called on held-out training images, never on the split that is reported.
    """
    truth = targets.ravel()[order := np.argsort(-scores, axis=None, kind="stable")]
    if not truth.any():
        return 0.5
    ranked = scores.ravel()[order]
    f1 = 2 * np.cumsum(truth) / (np.arange(1, len(truth) + 1) + truth.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = 0  # a threshold cannot cut between equal scores
    best = int(f1.argmax())
    following = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + following) / 2)  # half-way, so that it carries over


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 when both are 0."""
    return 2 * a * b / max(a + b, EPSILON)


def mean(values: np.ndarray) -> float:
    """nan for no values, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")
