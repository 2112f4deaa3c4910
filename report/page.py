"""report.html: an evaluation as one page that needs no other file and no network.

It begins with sentences and photos for people who know no metric; tables for experts follow. A
page for each label is part of the same file, shown at #label=NAME. Its numbers come from the
dictionary that becomes metrics.json. pr_curves.csv, written beside it, has every point of every
label's PR curve.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import math
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from evaluation.metrics import SCORE_METRICS, SET_METRICS, SET_NLL
from evaluation.promise_results import rule_meaning
from evaluation.ranking import only_known, pr_curve
from images.shards import ShardMember
from inference.predictions import Predictions
from report.page_charts import (
    draw_calibration,
    draw_co_occurrence,
    draw_label_curves,
    draw_pr_curves,
    draw_sizes,
    draw_training,
)
from report.summary import summarise
from report.training_log import read_log
from util.files import csv_text, make_folder, write_atomically, write_whole
from util.log import counted, log

FIRST_PHOTOS = 4  # of the gallery, on the first screen
TEMPLATES = Path(__file__).parent / "templates"
CURVE_POINTS = 48  # of each label's PR curve on the page, to keep the page small
BEST_RULES = {"CF1": "label_f1", "OF1": "threshold", "EM": "map", "EBF1": "f1"}  # metric -> rule


def write_report(
    results: dict,
    p: Predictions,
    predicted: np.ndarray,
    gallery: list[dict],
    training_log: Path,
    text: str,
    output_dir: Path,
) -> None:
    """Write report.html and pr_curves.csv.

    predicted: N×C bool. gallery: see `report.gallery.draw_gallery`.
    training_log: the run's log.jsonl, which may be missing. text: what the console shows.
    """
    labels = tuple(row["label"] for row in results["per_label"])
    known = np.ones(p.targets.shape, bool) if p.known is None else p.known
    columns = zip(p.targets.T, p.marginals.T, known.T, strict=True)
    curves = [pr_curve(truth[k], scores[k]) for truth, scores, k in columns]
    write_curves(curves, labels, output_dir / "pr_curves.csv")
    thinned = [_thin(curve, CURVE_POINTS) for curve in curves]
    label_chart, label_curves = draw_label_curves(thinned)
    photos = [{**photo, "link": _link(photo["path"], output_dir)} for photo in gallery]
    pooled = _thin(pr_curve(p.targets[known], p.marginals[known]), 4 * CURVE_POINTS)
    judged = only_known(predicted, p.known)
    page = render(
        "report.html",
        r=results,
        summary=summarise(results, p.targets, judged, known),
        first_photos=photos[:FIRST_PHOTOS],
        photos=photos[FIRST_PHOTOS:],
        cards=_cards(results),
        set_metrics={name: metric.meaning for name, metric in SET_METRICS.items()},
        rules={rule: rule_meaning(rule) for rule in results["intervals"]["predicted_sets"]},
        label_chart=label_chart,
        label_curves=label_curves,
        pr_chart=draw_pr_curves(results, thinned, pooled),
        calibration=draw_calibration(results["calibration"]),
        sizes=draw_sizes(results["label_set_sizes"], results["decide"]),
        co_occurrence=draw_co_occurrence(p, predicted, labels),
        training=draw_training(read_log(training_log), results["epoch"]),
        text=text,
    )
    write_whole(output_dir / "report.html", page)


def _link(path: Path | ShardMember, output_dir: Path) -> str | None:
    """The address of a photo's file, relative to the page; None if it is not a file of its own."""
    if isinstance(path, ShardMember):
        return None
    try:
        relative = os.path.relpath(path, output_dir)
    except ValueError:  # on another drive
        return None
    # "./": a name may look like the start of an address, such as javascript:
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def _cards(results: dict) -> list[dict[str, object]]:
    """The numbers on top of the page: every score metric, then the main set metrics."""
    intervals = results["intervals"]
    cards = [
        {"name": name, "meaning": metric.meaning, "digits": metric.digits}
        | {"value": results[name], "interval": intervals.get(name)}
        for name, metric in {**SCORE_METRICS, "set_nll": SET_NLL}.items()
    ]
    return cards + [
        {"name": name, "meaning": f"{SET_METRICS[name].meaning}, %; rule {rule}", "digits": 2}
        | {"value": results["predicted_sets"][rule][name]}
        | {"interval": intervals["predicted_sets"][rule][name]}
        for name, rule in BEST_RULES.items()
    ]


def write_curves(curves: list[np.ndarray], labels: tuple[str, ...], path: Path) -> None:
    """Write P×3 PR curves (score, recall, precision) as CSV, a row per point."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("label", "score", "recall", "precision"))
            for label, curve in zip(labels, curves, strict=True):
                writer.writerows((csv_text(label), *(f"{v:.9g}" for v in point)) for point in curve)

    write_atomically(path, write)


def _thin(curve: np.ndarray, most: int) -> np.ndarray:
    """At most `most` points of a curve, its first and last among them."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).round().astype(int))
    return curve[kept]


def render(template: str, **values: object) -> bytes:
    """Fill in a page of templates/, every value escaped; x.html may have its own x.css and x.js.

    The page's content security policy allows only its own script, by hash.
    """
    import jinja2  # imported here: only pages and cards need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "counted": counted}
    style, script = (_shared_and_own(template, suffix) for suffix in (".css", ".js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"style": Markup(style), "script": Markup(script), "script_hash": digest}
    # "replace": file names may contain bytes that are not valid text
    return environment.get_template(template).render(**own, **values).encode("utf-8", "replace")


def _shared_and_own(template: str, suffix: str) -> str:
    paths = [TEMPLATES / f"page{suffix}", (TEMPLATES / template).with_suffix(suffix)]
    return "".join(path.read_text("utf-8") for path in paths if path.is_file())


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A metric as the console prints it; a dash if it is undefined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''},.{digits}f}"


def write_comparison(found: dict, text: str, output_dir: Path) -> None:
    """Write comparison.html from what `compare` found."""
    make_folder(output_dir)
    page = render("comparison.html", c=found, text=text)
    write_whole(output_dir / "comparison.html", page)
    log(f"wrote {output_dir / 'comparison.html'}")
