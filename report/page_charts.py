"""The charts of report.html, made from the results dictionary of evaluate.py."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from evaluation.analysis import co_occurrence
from inference.predictions import Predictions
from report.charts import Chart, nice_ticks
from report.gallery import data_uri
from report.influence import clustered_order, colour_limit
from report.training_log import CURVES

NAMED_LABELS = 100  # with more labels, heat maps show no names and the PR chart not all curves
PAIRED_LABELS = 300  # with more labels, the heat maps show this many, the most frequent ones
PAIRS_SHOWN = 10  # label pairs in the table below the heat maps
MORE, LESS = (214, 69, 51), (42, 111, 187)  # RGB; page.css has the same two in its legend


def draw_pr_curves(results: dict, curves: list[np.ndarray], pooled: np.ndarray) -> Chart:
    """A faint PR curve per label, one of all image-label pairs, and a dot per decision rule.

    curves, pooled: P×3 arrays of `evaluation.ranking.pr_curve`.
    """
    chart = Chart((0, 1), (0, 1), "recall", "precision").ticks(nice_ticks(1), nice_ticks(1))
    for row, curve in zip(results["per_label"][:NAMED_LABELS], curves, strict=False):
        chart.line(row["label"], "faint", curve[:, 1], curve[:, 2])
    chart.line("", "a", pooled[:, 1], pooled[:, 2])
    for rule in results["intervals"]["predicted_sets"]:
        metrics = results["predicted_sets"][rule]
        title = f"{rule}: precision {metrics['OP']:.1f} %, recall {metrics['OR']:.1f} %"
        chart.dot(rule, "b", metrics["OR"] / 100, metrics["OP"] / 100, title)
    return chart


def draw_label_curves(curves: list[np.ndarray]) -> tuple[Chart, list[str]]:
    """An empty chart, and the points of each label's PR curve in it, for the page of the label.

    curves: P×3 arrays of `evaluation.ranking.pr_curve`.
    """
    chart = Chart(
        (0, 1), (0, 1), "recall: share found", "precision: share right", width=560, height=400
    )
    chart.ticks(nice_ticks(1, about=10), nice_ticks(1, about=10))
    points = [chart.points(curve[:, 1], curve[:, 2]) for curve in curves]
    return chart.line("", "a", (), ()).dot("", "b", 0, 0), points


def draw_calibration(bins: list[dict[str, float]]) -> Chart:
    """Share of true labels over mean probability; log axes, because most probabilities are small.

    bins: see `evaluation.calibration.calibration_bins`.
    """
    floor = math.floor(math.log10(min(1e-1, max(1e-4, min(b["score"] for b in bins)))))
    chart = Chart((floor, 0), (floor, 0), "mean predicted probability", "share of true labels")
    powers = [(k, f"{100 * 10.0**k:g} %") for k in range(floor, 1)]
    chart.ticks(powers, powers).line("", "guide", (floor, 0), (floor, 0))
    logs = [[math.log10(max(b[key], 10.0**floor)) for key in ("score", "true")] for b in bins]
    chart.line("", "a", *zip(*logs, strict=True))
    for b, (x, y) in zip(bins, logs, strict=True):
        title = (
            f"{b['count']:,} probabilities, mean {100 * b['score']:.2f} %: "
            f"{100 * b['true']:.2f} % are true"
        )
        chart.dot("", "a", x, y, title)
    return chart


def draw_sizes(sizes: dict[str, list[int]], rule: str) -> Chart:
    """Two bars for each number of labels: images annotated with it and predicted to have it.

    sizes: see `evaluation.metrics.label_set_sizes`.
    """
    pairs = list(zip(sizes["annotated"], sizes[rule], strict=True))
    while len(pairs) > 1 and not any(pairs[-1]):
        pairs.pop()
    most = max(max(pair) for pair in pairs)
    chart = Chart((-0.6, len(pairs) - 0.4), (0, 1.05 * most), "labels on an image", "images")
    every = math.ceil(len(pairs) / 16)
    chart.ticks([(n, str(n)) for n in range(0, len(pairs), every)], nice_ticks(most))
    for n, (annotated, predicted) in enumerate(pairs):
        labels = f"{n} label{'s' * (n != 1)}"
        chart.bar("a", n - 0.4, 0.38, annotated, f"{labels} annotated: {annotated:,} images")
        chart.bar("b", n + 0.02, 0.38, predicted, f"{labels} predicted: {predicted:,} images")
    return chart


def draw_training(lines: list[dict], chosen_epoch: int) -> list[tuple[str, Chart]]:
    """(unit, chart) for each group of training_log.CURVES with values; [] without a log.

    lines: the epochs of log.jsonl. A dashed line marks the checkpoint's epoch.
    """
    drawn = []
    for unit, names in CURVES.items():
        curves = {
            name: [(n["epoch"], n[key]) for n in lines if isinstance(n.get(key), (int, float))]
            for key, name in names.items()
        }
        values = [value for curve in curves.values() for _, value in curve]
        if not values:
            continue
        first, last = lines[0]["epoch"], max(lines[-1]["epoch"], lines[0]["epoch"] + 1)
        high = max(1.05 * max(values), 1e-3)
        chart = Chart((first, last), (0, high), "epoch", unit.split(",")[0])
        epochs = [(x, text) for x, text in nice_ticks(last, first, 8) if x == round(x)]
        chart.ticks(epochs, nice_ticks(high))
        if first <= chosen_epoch <= last:
            chart.line("", "guide", (chosen_epoch, chosen_epoch), (0, high))
        for css, (name, curve) in zip("abc", curves.items(), strict=False):
            if curve:
                chart.line(name, css, *zip(*curve, strict=True))
                chart.dot(name, css, *curve[-1], f"{name}: {curve[-1][1]:.2f}")
        drawn.append((unit, chart))
    return drawn


def draw_co_occurrence(
    p: Predictions, predicted: np.ndarray, labels: tuple[str, ...]
) -> dict[str, object]:
    """Two heat maps of label pairs, annotated and predicted, in the same order and on one scale.

    predicted: N×C bool. The pairs of labels are counted on the images where both are known. The
    result has
    labels   names in the order of the heat maps; none if there are too many
    size     number of labels C, at most PAIRED_LABELS
    limit    the log odds ratio shown in full colour
    maps     "annotated" and "predicted" -> data URI of a C×C PNG, transparent where the ratio is 0
    pairs    the pairs of labels that differ most between the two
    """
    frequent = np.sort(np.argsort(-p.targets.sum(0), kind="stable")[:PAIRED_LABELS])
    labels = [labels[c] for c in frequent]
    known = None if p.known is None else p.known[:, frequent]
    ratios = {"annotated": p.targets, "predicted": predicted}
    ratios = {name: co_occurrence(sets[:, frequent], known) for name, sets in ratios.items()}
    order = clustered_order(ratios["annotated"])
    pairs = np.triu_indices(len(labels), 1)
    limit = colour_limit(ratios["annotated"])
    gap = (ratios["predicted"] - ratios["annotated"])[pairs]
    largest = np.argsort(-np.abs(gap), kind="stable")[:PAIRS_SHOWN]
    return {
        "labels": [labels[i] for i in order] if len(labels) <= NAMED_LABELS else [],
        "size": len(labels),
        "limit": limit,
        "maps": {name: _heat_map(r[np.ix_(order, order)] / limit) for name, r in ratios.items()},
        "pairs": [
            {"labels": [labels[pairs[0][k]], labels[pairs[1][k]]]}
            | {name: float(r[pairs][k]) for name, r in ratios.items()}
            for k in largest
        ],
    }


def _heat_map(strength: np.ndarray) -> str:
    """C×C in -1..1 -> data URI of a PNG, from blue to red; opacity is the strength."""
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, MORE, LESS)
    pixels[..., 3] = 255 * np.clip(np.abs(strength), 0, 1)
    return data_uri(Image.fromarray(pixels), "PNG")
