"""Every figure of multi-label image classification, from numpy arrays alone.

    targets N×C (0/1)   truth          scores N×C   label probabilities
    predicted N×C (0/1) label sets     rows are images, columns labels (rank 0 most frequent)

Percentages are 0..100 as the field prints them; a figure that is undefined is nan. Definitions
stand with each function: several names in this field have two meanings.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-12  # against division by zero only
PROTOCOLS = {"coco": 3, "nus81": 3, "nus1k": 10, "voc07": None}  # labels said of each image
SHOWN = ("CF1", "OF1", "EM", "EBF1")  # of each decision rule, where there is no room for all
RULES = {
    "threshold": "score above the threshold fitted on the hold-out",
    "label_f1": "score above the label's own threshold, of its highest expected F1",
    "map": "the most probable label set",
    "f1": "the set with the highest expected F1",
    "top3": "exactly the 3 best scores (papers of 2016)",
    "top3@0.5": "of the 3 best scores those above 0.5",
}
NUM_BINS = 15  # of the calibration diagram, as of metrics.expected_calibration_error


def per_label(
    labels: tuple[str, ...], targets: np.ndarray, scores: np.ndarray, predicted: np.ndarray
) -> list[dict]:
    """AP, precision, recall, F1 in percent and the number of true images of every label."""
    values = {"AP": average_precision(targets, scores), **precision_recall_f1(targets, predicted)}
    return [
        {
            "label": label,
            "support": int(targets[:, c].sum()),
            **{name: 100 * float(column[c]) for name, column in values.items()},
        }
        for c, label in enumerate(labels)
    ]


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AP of each label, C values in 0..1; nan for a label without positives.

    AP = sum over distinct scores s of (recall(s) - recall(above s)) * precision(s): equal scores
    are one step, as in scikit-learn's `average_precision_score`; no interpolation.
    """
    labels = zip(targets.T.astype(bool), scores.T, strict=True)
    at_positives = (_at_positives(truth, column) for truth, column in labels)
    return np.array([mean(hits / seen) for _, hits, seen in at_positives])


def _at_positives(
    truth: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The P scores of what is true, ascending; how many true ones, how many in all, reach each.

    Two sorts of plain values and a search: several times quicker than to sort indices.
    """
    ranked, positives = np.sort(scores, axis=None), np.sort(scores[truth])
    hits = len(positives) - np.searchsorted(positives, positives)
    seen = len(ranked) - np.searchsorted(ranked, positives)
    return positives, hits, seen


def precision_recall_f1(targets: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Per label, C values each in 0..1: precision (0 where nothing is predicted), recall, f1."""
    hits, said, true = (sets.sum(0) for sets in (targets & predicted, predicted, targets))
    precision = hits / np.maximum(said, 1)
    recall = hits / np.maximum(true, 1)
    f1 = 2 * hits / np.maximum(said + true, 1)
    return {"precision": precision, "recall": recall, "f1": f1}


def set_metrics(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
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
    per_label = precision_recall_f1(targets, predicted)
    cp, cr, macro_f1 = (mean(per_label[k][present]) for k in ("precision", "recall", "f1"))
    hits, said, true = (sets.sum(1) for sets in (targets & predicted, predicted, targets))
    op = hits.sum() / max(said.sum(), 1)
    recall = hits.sum() / max(true.sum(), 1)
    example_f1 = np.where(said + true == 0, 1.0, 2 * hits / np.maximum(said + true, 1))
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
    k = min(k, scores.shape[1])
    kth_best = np.partition(scores, -k, axis=1)[:, [-k]]
    better, tied = scores > kth_best, scores == kth_best
    room = k - better.sum(1, keepdims=True)
    return (better | (tied & (tied.cumsum(1) <= room))) & (scores > above)


def map_at_k(targets: np.ndarray, scores: np.ndarray, k: int = 10) -> float:
    """mAP@k of the 2016 CNN-RNN paper in percent: a mean over images, not over labels.

    AP@k of an image = sum over its first k labels by score of precision-so-far at each true one,
    divided by min(k, number of true labels). Images without labels are left out.
    """
    some = targets.any(1)
    targets, scores = targets[some].astype(bool), scores[some]
    best = top_k(scores, k)  # only these few are ordered, not all C
    shape = len(scores), min(k, scores.shape[1])
    order = np.argsort(-scores[best].reshape(shape), axis=1, kind="stable")
    hits = np.take_along_axis(targets[best].reshape(shape), order, axis=1)
    precision = np.cumsum(hits, 1) / np.arange(1, shape[1] + 1)
    ap = (precision * hits).sum(1) / np.minimum(targets.sum(1), k)
    return 100 * mean(ap)


def expected_calibration_error(
    targets: np.ndarray, scores: np.ndarray, num_bins: int = 15
) -> float:
    """ECE of all label probabilities in percent, over bins of equal mass (equal counts)."""
    ranked, positives = np.sort(scores, axis=None), np.sort(scores[targets.astype(bool)])
    bins = [members for members in np.array_split(ranked, num_bins) if len(members)]
    ends = np.cumsum([len(members) for members in bins])
    last = [members[-1] for members in bins]
    # equal scores share their hits, or their order would decide where bins part them
    first, after = (np.searchsorted(ranked, last, side) for side in ("left", "right"))
    hits, hits_after = (np.searchsorted(positives, last, side) for side in ("left", "right"))
    hits_at_ends = hits + (ends - first) * (hits_after - hits) / (after - first)
    expected = [members.sum(dtype=np.float64) for members in bins]
    error = np.abs(expected - np.diff(hits_at_ends, prepend=0)).sum()
    return 100 * float(error) / max(targets.size, 1)


def all_metrics(
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
        "predicted_sets": {rule: set_metrics(targets, sets) for rule, sets in rules.items()},
    }


def protocol_metrics(
    protocol: str, targets: np.ndarray, scores: np.ndarray
) -> dict[str, str | int | float | dict[str, float]]:
    """What papers print for a data set, in percent, from N×C targets and scores.

    coco, nus81, nus1k   the k best labels of each image as its set (Wang et al. 2016), k = 3, of
                         the 1k tags 10: exactly k, and those of them above 0.5; and mAP@10
    voc07                11-point AP of each label (see `voc07_average_precision`), mAP11 their mean
    Both have mAP, too; N and C are there to be compared with the paper's.
    """
    k = PROTOCOLS[protocol]
    ap = average_precision(targets, scores)
    found = {"protocol": protocol, "num_images": len(targets), "num_labels": targets.shape[1]}
    found["mAP"] = 100 * mean(ap[~np.isnan(ap)])
    if k is None:
        ap11 = 100 * voc07_average_precision(targets, scores)
        return {**found, "mAP11": mean(ap11[~np.isnan(ap11)]), "AP11": ap11.tolist()}
    sets = {f"top{k}": top_k(scores, k), f"top{k}@0.5": top_k(scores, k, above=0.5)}
    names = ("CP", "CR", "CF1", "OP", "OR", "OF1")
    for rule, predicted in sets.items():
        values = set_metrics(targets, predicted)
        found[rule] = {name: values[name] for name in names}
    return {**found, "mAP@10": map_at_k(targets, scores, 10)}


def voc07_average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """PASCAL VOC 2007's AP of each label, C values in 0..1; nan for a label without positives.

    The mean, over recalls 0, 0.1, ..., 1, of the highest precision at that recall or above
    (Everingham et al. 2010). Equal scores are one step, so that the order of rows changes nothing.
    """
    found = []
    for truth, column in zip(targets.T.astype(bool), scores.T, strict=True):
        _, hits, seen = _at_positives(truth, column)
        # in tenths and whole numbers: 0.3 of 10 must not be missed by a rounding error
        reached = 10 * hits >= np.arange(11)[:, None] * len(hits)
        best = np.where(reached, hits / seen, 0).max(1, initial=0)
        found.append(mean(best) if len(hits) else np.nan)
    return np.array(found)


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 when both are 0."""
    return 2 * a * b / max(a + b, EPSILON)


def mean(values: np.ndarray) -> float:
    """nan for no values, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")


def calibration_bins(
    targets: np.ndarray, scores: np.ndarray, num_bins: int = NUM_BINS
) -> list[dict[str, float]]:
    """The bins of metrics.expected_calibration_error: count, mean score and share of true labels.

    Equal counts from the lowest score up; equal scores share their hits.
    """
    order = np.argsort(scores, axis=None, kind="stable")
    _, value, count = np.unique(scores, return_inverse=True, return_counts=True)
    truth = (np.bincount(value.ravel(), targets.ravel()) / count)[value.ravel()]
    return [
        {
            "count": len(members),
            "score": float(scores.ravel()[members].mean()),
            "true": float(truth[members].mean()),
        }
        for members in np.array_split(order, num_bins)
        if len(members)
    ]


def label_set_sizes(targets: np.ndarray, predicted: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """How many images have 0, 1, 2, … labels: annotated, and predicted by each rule."""
    sizes = {"annotated": targets, **predicted}
    counts = {name: sets.sum(1) for name, sets in sizes.items()}
    most = max(int(count.max()) for count in counts.values())
    return {name: np.bincount(c, minlength=most + 1).tolist() for name, c in counts.items()}


def pr_curve(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """P×3: score, recall, precision, best score first, at the distinct scores that have hits.

    Between them recall does not change, so AP = sum of recall's steps times precision is exact.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(truth[order])[ends]
    ends, hits = (a[np.diff(hits, prepend=0) > 0] for a in (ends, hits))
    return np.stack([ranked[ends], hits / max(truth.sum(), 1), hits / (ends + 1)], 1)
