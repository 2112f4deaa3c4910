"""report.html: an evaluation on one page that needs no other file, and no network.

Every figure on it is read from the dictionary that metrics.json, the log and the console show.
Beside it lies pr_curves.csv with the points of every label's PR curve.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import math
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from evaluation.analysis import co_occurrence
from evaluation.metrics import RULES, pr_curve
from report.charts import Chart, nice_ticks, sparkline
from report.gallery import data_uri
from report.influence import clustered_order, colour_limit
from report.training_log import CURVES, read_log
from util.files import write_atomically
from util.log import csv_text

TEMPLATES = Path(__file__).parent / "templates"
CURVE_POINTS = 48  # of a label's PR curve on the page; pr_curves.csv has all
NAMED_LABELS = 100  # with more, heat-maps have no room for names and PR curves no room for all
PAIRS_SHOWN = 10


def write_curves(curves: list[np.ndarray], labels: tuple[str, ...], path: Path) -> None:
    """As CSV, a row per point; there are at most as many as true labels."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("label", "score", "recall", "precision"))
            for label, curve in zip(labels, curves, strict=True):
                writer.writerows((csv_text(label), *(f"{v:.9g}" for v in point)) for point in curve)

    write_atomically(path, write)


def write_report(
    results: dict,
    targets: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    gallery: dict[str, list[dict]],
    training_log: Path,
    text: str,
    output_dir: Path,
) -> None:
    """Draw everything, write report.html and pr_curves.csv.

    targets, predicted N×C bool, scores N×C; gallery as gallery.draw_gallery makes it; `text` is
    what the console shows.
    """
    labels = tuple(row["label"] for row in results["per_label"])
    curves = [pr_curve(targets[:, c], scores[:, c]) for c in range(len(labels))]
    write_curves(curves, labels, output_dir / "pr_curves.csv")
    thin = [_thin(curve, CURVE_POINTS) for curve in curves]
    pooled = _thin(pr_curve(targets.ravel(), scores.ravel()), 4 * CURVE_POINTS)
    page = render(
        "report.html",
        r=results,
        rules={rule: RULES[rule] for rule in results["intervals"]["predicted_sets"]},
        sparklines=[sparkline(curve[:, 1], curve[:, 2]) for curve in thin],
        pr_chart=draw_pr_curves(results, thin, pooled),
        calibration=draw_calibration(results["calibration"]),
        sizes=draw_sizes(results["label_set_sizes"], results["decide"]),
        together=draw_together(targets, predicted, labels),
        gallery=gallery,
        training=draw_training(read_log(training_log), results["epoch"]),
        text=text,
    )
    write_atomically(output_dir / "report.html", lambda temporary: temporary.write_bytes(page))


def render(template: str, **values: object) -> bytes:
    """A page of templates/, every value escaped. Its policy lets in no script but its own."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ours = {"style": Markup(style), "script": Markup(script), "script_hash": digest}
    # a file's name may hold bytes that are no text
    return environment.get_template(template).render(**ours, **values).encode("utf-8", "replace")


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A figure as the console prints it; a dash for an undefined one."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def draw_pr_curves(results: dict, curves: list[np.ndarray], pooled: np.ndarray) -> Chart:
    """All labels faintly, all image-label pairs pooled, and where the decision rules stand."""
    chart = Chart((0, 1), (0, 1), "recall", "precision").ticks(nice_ticks(1), nice_ticks(1))
    for row, curve in zip(results["per_label"][:NAMED_LABELS], curves, strict=False):
        chart.line(row["label"], "faint", curve[:, 1], curve[:, 2])
    chart.line("", "a", pooled[:, 1], pooled[:, 2])
    for rule in results["intervals"]["predicted_sets"]:
        figures = results["predicted_sets"][rule]
        title = f"{rule}: precision {figures['OP']:.1f} %, recall {figures['OR']:.1f} %"
        chart.dot(rule, "b", figures["OR"] / 100, figures["OP"] / 100, title)
    return chart


def draw_calibration(bins: list[dict[str, float]]) -> Chart:
    """Share of true labels over mean score, both logarithmic: most probabilities are small."""
    floor = math.floor(math.log10(min(1e-1, max(1e-4, min(b["score"] for b in bins)))))
    chart = Chart((floor, 0), (floor, 0), "mean predicted probability", "share that is true")
    powers = [(k, f"{100 * 10.0**k:g} %") for k in range(floor, 1)]
    chart.ticks(powers, powers).line("", "guide", (floor, 0), (floor, 0))
    logs = [[math.log10(max(b[key], 10.0**floor)) for key in ("score", "true")] for b in bins]
    chart.line("", "a", *zip(*logs, strict=True))
    for b, (x, y) in zip(bins, logs, strict=True):
        title = f"{b['count']:,} at {100 * b['score']:.2f} %: {100 * b['true']:.2f} % true"
        chart.dot("", "a", x, y, title)
    return chart


def draw_sizes(sizes: dict[str, list[int]], rule: str) -> Chart:
    """Annotated and predicted numbers of labels side by side."""
    pairs = list(zip(sizes["annotated"], sizes[rule], strict=True))
    while len(pairs) > 1 and not any(pairs[-1]):
        pairs.pop()
    most = max(max(pair) for pair in pairs)
    chart = Chart((-0.6, len(pairs) - 0.4), (0, 1.05 * most), "labels on an image", "images")
    every = math.ceil(len(pairs) / 16)
    chart.ticks([(n, str(n)) for n in range(0, len(pairs), every)], nice_ticks(most))
    for n, (annotated, predicted) in enumerate(pairs):
        chart.bar("a", n - 0.4, 0.38, annotated, f"{n} labels annotated: {annotated:,} images")
        chart.bar("b", n + 0.02, 0.38, predicted, f"{n} labels predicted: {predicted:,} images")
    return chart


def draw_together(targets: np.ndarray, predicted: np.ndarray, labels: tuple[str, ...]) -> dict:
    """Co-occurrence of annotated and of predicted labels, in one order and on one scale.

    labels in the heat-maps' order; maps: name -> PNG of C×C pixels, transparent where two labels
    are independent; limit: the log odds ratio of the strongest colour; pairs: the labels that
    differ most in the two.
    """
    ratios = {"annotated": co_occurrence(targets), "predicted": co_occurrence(predicted)}
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
    """C×C in -1..1 as blue to red, the colour's opacity the strength."""
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, (214, 69, 51), (42, 111, 187))
    pixels[..., 3] = 255 * np.clip(np.abs(strength), 0, 1)
    return data_uri(Image.fromarray(pixels), "PNG")


def draw_training(lines: list[dict], chosen_epoch: int) -> list[tuple[str, Chart]]:
    """(unit, chart) of what training_log.CURVES names; none without a log."""
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


def _thin(curve: np.ndarray, most: int) -> np.ndarray:
    """At most that many of its points, first and last among them."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).round().astype(int))
    return curve[kept]
