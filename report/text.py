"""The results of evaluate.py as text: what the console and evaluate.log show."""

from __future__ import annotations

import math

from evaluation.metrics import SCORE_METRICS, SET_METRICS, SET_NLL, SHOWN, Metric
from evaluation.promise_results import rule_meaning
from report.promise_text import promise_lines
from util.log import counted, printable, some


def format_tables(r: dict) -> str:
    """The text for the console and the log, from the dictionary that becomes metrics.json."""
    width = max(5, *(len(row["label"]) for row in r["per_label"]))
    lines = [f"{'label':<{width}} {'images':>7} {'AP':>6} {'P':>6} {'R':>6} {'F1':>6}"]
    for row in r["per_label"]:
        cells = " ".join(f"{row[k]:6.1f}" for k in ("AP", "precision", "recall", "f1"))
        lines.append(f"{row['label']:<{width}} {row['support']:>7,} {cells}")
    wide = max(map(len, ("predicted sets", *r["predicted_sets"])))
    lines += ["", f"{'predicted sets':<{wide}}" + "".join(f"{name:>8}" for name in SET_METRICS)]
    for rule, values in r["predicted_sets"].items():
        cells = (f"{values[name]:8.{m.digits}f}" for name, m in SET_METRICS.items())
        lines.append(f"{rule:<{wide}}{''.join(cells)}  {rule_meaning(rule)}")
    lines += [
        "",
        _model_line(r),
        f"{r['num_images']:,} {r['protocol']} of {r['annotations']}",
        *_pairs_lines(r),
        "   ".join(_score_cells(r)),
        f"rule map: proved to be the most probable set on {r['map_certain']:.1f} % of the images",
    ]
    if "rules" in r:
        lines += ["", *_rule_lines(r["rules"], r["num_images"], "pairs" in r)]
    if "promise" in r:
        lines += ["", *promise_lines(r["promise"], r["leak"], width)]
    if "paper" in r:
        lines += ["", *_paper_lines(r["paper"], r["per_label"])]
    if "intervals" in r:
        lines += ["", *_interval_lines(r["intervals"])]
    if "revealed" in r:
        count = r["revealed"]["labels_per_image"]
        lines += ["", f"the other labels, before and after {count} true label(s) are revealed:"]
        for when in ("before", "after"):
            cells = "   ".join(f"{k} {v:.2f}" for k, v in r["revealed"][when].items())
            lines.append(f"{when:<7}{cells}")
    if "influence_agreement" in r:
        agreement = f"rank correlation {r['influence_agreement']:.2f}"
        lines += ["", f"label influence and co-occurrence in these annotations: {agreement}"]
    if "label_issues" in r:
        lines += [
            "",
            "annotations, the most suspicious first; P: given the image and its other annotations",
        ]
        lines += [f"{'P correct':>9}  {'':<7} {'label':<{width}} image"]
        for row in r["label_issues"]:
            lines.append(
                f"{row['probability']:9.2g}  {row['annotation']:<7} {row['label']:<{width}} "
                f"{row['image']}"
            )
    if "pointing" in r:
        lines += ["", *_pointing_lines(r["pointing"], width)]
    return "\n".join(map(printable, lines))


def _pairs_lines(r: dict) -> list[str]:
    """How many image-label pairs are known, if some are not; r: metrics.json, or a comparison."""
    if not (pairs := r.get("pairs")):
        return []
    return [
        f"{pairs['known']:,} of {pairs['all']:,} image-label pairs are known; only these count",
        "set NLL: -log P(known labels | image), lower than that of complete annotations would be",
    ]


def _model_line(r: dict) -> str:
    """Which model was evaluated, or which models."""
    if r["folds"]:
        return (
            f"{r['folds']} models with the flags of {r['checkpoint']}; each judges the images that "
            "it was trained without, with a threshold of its own"
        )
    return (
        f"checkpoint {r['checkpoint']} (epoch {r['epoch']}, {r['decoder']}), "
        f"threshold {r['threshold']:.3f} fitted on {r['threshold_fitted_on']}"
    )


def _score_cells(r: dict) -> list[str]:
    """The metrics of the scores, with their names."""
    units = {"mAP": f" over {r['mAP_labels']} labels"}
    cells = [
        f"{name} {r[name]:.{m.digits}f}{units.get(name, '')}" for name, m in SCORE_METRICS.items()
    ]
    return [*cells, f"set NLL {r['set_nll']:.{SET_NLL.digits}f} nats"]


def _rule_lines(rules: dict, num_images: int, are_partial: bool) -> list[str]:
    """What --rules adds: how often the annotations break them, and the set NLL of all others."""
    theirs = "set NLL of those without unknown labels" if are_partial else "their set NLL"
    broken = [row for row in rules["broken"] if row["images"]]
    kept = f"{rules['images_kept']:,} of {num_images:,} annotated sets keep all of them"
    median, lowest = (100 * p for p in rules["probability_kept"])
    nll = f"{theirs} {rules['set_nll']:.3f} nats given the rules, "
    lines = [
        f"{counted(len(rules['broken']), 'rule')}, which no set but top3 can break; {kept}",
        nll + f"{rules['set_nll_without']:.3f} without (set NLL above: all images, without)",
        f"P(rules are kept | image): median {median:.3g} %, lowest {lowest:.3g} %",
    ]
    for row in sorted(broken, key=lambda row: -len(row["images"])):
        count = counted(len(row["images"]), "image")
        lines.append(f"the annotations of {count} break {row['rule']}: {some(row['images'], 3)}")
    return lines


def _pointing_lines(pointing: dict, width: int) -> list[str]:
    """What --pointing adds: a row per label, then the mean over labels and all pairs."""
    rows = [(row["label"], f"{row['pairs']:,}", row) for row in pointing["per_label"]]
    for name, key in (("label mean", "label_mean"), ("all pairs", "all_pairs")):
        values = {point: pointing[point][key] for point in ("peak", "centre")}
        rows.append((name, f"{pointing['pairs']:,}", values))
    width = max(width, len("label mean"))
    return [
        "pointing game: % of annotated labels with a point on one of their objects",
        "(peak: of the label's class activation map; centre: of the picture, for comparison)",
        f"{'label':<{width}} {'pairs':>9} {'peak':>7} {'centre':>7}",
        *(
            f"{name:<{width}} {pairs:>9} {values['peak']:7.1f} {values['centre']:7.1f}"
            for name, pairs, values in rows
        ),
    ]


def _paper_lines(paper: dict, per_label: list[dict]) -> list[str]:
    """What --protocol adds."""
    about = f"{paper['num_images']:,} images, {paper['num_labels']:,} labels"
    lines = [f"metrics of papers on this data set ({paper['protocol']}: {about})"]
    rules = {name: values for name, values in paper.items() if isinstance(values, dict)}
    if not rules:
        aps = zip(paper["AP11"], per_label, strict=True)
        lines += [f"{'AP11 ' + row['label']:<24}{ap:8.1f}" for ap, row in aps]
        return [*lines, f"11-point mAP {paper['mAP11']:.2f}   mAP {paper['mAP']:.2f}"]
    columns = list(next(iter(rules.values())))
    lines += [f"{'':<14}" + "".join(f"{name:>8}" for name in columns)]
    for rule, values in rules.items():
        lines += [f"{rule:<14}" + "".join(f"{values[name]:8.1f}" for name in columns)]
    return [*lines, f"mAP@10 {paper['mAP@10']:.2f}   mAP {paper['mAP']:.2f}"]


def _interval_lines(intervals: dict) -> list[str]:
    """95 % intervals of the main metrics, a row per decision rule."""
    wide = max(map(len, ("95 % intervals", *intervals["predicted_sets"])))
    lines = [f"{'95 % intervals':<{wide}}" + "".join(f"{name:>16}" for name in SHOWN)]
    for rule, found in intervals["predicted_sets"].items():
        cells = (_span(found[name], SET_METRICS[name]) for name in SHOWN)
        lines.append(f"{rule:<{wide}}" + "".join(f"{cell:>16}" for cell in cells))
    if math.isnan(intervals["set_nll"][0]):
        return ["no intervals: too few images"]
    m_ap, set_nll = intervals["mAP"], intervals["set_nll"]
    last = f"mAP {_span(m_ap, SCORE_METRICS['mAP'])}   set NLL {_span(set_nll, SET_NLL)}"
    return [*lines, f"{last}   (bootstrap over images)"]


def _span(interval: list[float], metric: Metric) -> str:
    """An interval with the metric's number of digits."""
    return " to ".join(f"{end:.{metric.digits}f}" for end in interval)


def format_comparison(c: dict) -> str:
    """The text for what `compare` returns."""
    names = [run["name"] for run in c["runs"]]
    first, *others = names
    width = max(14, *(len(name) for name in names))
    lines = [f"{run['name']:<{width}}  {run['metrics']}  ({run['decoder']})" for run in c["runs"]]
    lines += [f"{c['num_images']:,} {c['protocol']} of {c['annotations']}", *_pairs_lines(c)]
    for n, other in enumerate(others, start=1):
        head = f"{'':<14} {first:>{width}} {other:>{width}} {'difference':>11}"
        lines += ["", f"{head}  95 % interval"]
        for row in c["metrics"]:
            digits = 3 if row["metric"] == "set_nll" else 2
            name = "set NLL" if row["metric"] == "set_nll" else row["metric"]
            low, high = row["intervals"][n - 1]
            cells = " ".join(f"{row['values'][k]:{width}.{digits}f}" for k in (0, n))
            mark = " *" if low > 0 or high < 0 else ""
            lines.append(
                f"{name:<14} {cells} {row['differences'][n - 1]:+11.{digits}f}  "
                f"{low:+.{digits}f} to {high:+.{digits}f}{mark}"
            )
        test = c["wilcoxon"][n - 1]
        lines += [
            f"AP of {other} is higher on {test['higher']}, lower on {test['lower']} of "
            f"{test['labels']} labels; Wilcoxon signed-rank test: p = {test['p']:.2g}"
        ]
    lines = map(printable, lines)
    return "\n".join([*lines, "", "* 0 is outside the interval (bootstrap over images, paired)"])
