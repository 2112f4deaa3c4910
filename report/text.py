"""The results of evaluate.py as text: what the console and evaluate.log show."""

from __future__ import annotations

import math

from evaluation.metrics import RULES, SHOWN
from util.log import printable


def format_tables(r: dict) -> str:
    """The console's and the log's text, from the same dictionary that becomes metrics.json."""
    width = max(5, *(len(row["label"]) for row in r["per_label"]))
    lines = [f"{'label':<{width}} {'images':>7} {'AP':>6} {'P':>6} {'R':>6} {'F1':>6}"]
    for row in r["per_label"]:
        cells = " ".join(f"{row[k]:6.1f}" for k in ("AP", "precision", "recall", "f1"))
        lines.append(f"{row['label']:<{width}} {row['support']:>7,} {cells}")
    names = ("CP", "CR", "CF1", "macroF1", "OP", "OR", "OF1", "EM", "EBF1")
    lines += ["", f"{'predicted sets':<14}" + "".join(f"{name:>8}" for name in names)]
    for rule, meaning in RULES.items():
        cells = "".join(f"{r['predicted_sets'][rule][name]:8.1f}" for name in names)
        lines.append(f"{rule:<14}{cells}  {meaning}")
    lines += [
        "",
        f"checkpoint {r['checkpoint']} (epoch {r['epoch']}, {r['decoder']}), "
        f"threshold {r['threshold']:.3f} fitted on {r['threshold_fitted_on']}",
        f"{r['num_images']:,} {r['protocol']} of {r['annotations']}",
        f"mAP {r['mAP']:.2f} over {r['mAP_labels']} labels   mAP@10 {r['mAP@10']:.2f}   "
        f"set NLL {r['set_nll']:.3f} nats   ECE {r['ECE']:.2f}",
        f"the most probable set is proved to be it on {r['map_certain']:.1f} % of the images",
    ]
    if "paper" in r:
        lines += ["", *_paper_lines(r["paper"], r["per_label"])]
    if "intervals" in r:
        lines += ["", *_interval_lines(r["intervals"])]
    if "revealed" in r:
        lines += ["", f"{r['revealed']['labels_per_image']} true label(s) of each image told:"]
        for when in ("before", "after"):
            cells = "   ".join(f"{k} {v:.2f}" for k, v in r["revealed"][when].items())
            lines.append(f"{when:<7}{cells}  over the other labels")
    if "influence_agreement" in r:
        lines += ["", "label influence and co-occurrence in these annotations: "]
        lines[-1] += f"rank correlation {r['influence_agreement']:.2f}"
    if "label_issues" in r:
        lines += ["", "least likely annotations, given the image and its other annotations", ""]
        lines[-1] = f"{'P(right)':>9}  {'':<7} {'label':<{width}} image"
        for row in r["label_issues"]:
            lines.append(
                f"{row['probability']:9.2g}  {row['annotation']:<7} {row['label']:<{width}} "
                f"{row['image']}"
            )
    return "\n".join(map(printable, lines))


def _paper_lines(paper: dict, per_label: list[dict]) -> list[str]:
    """What --protocol adds."""
    about = f"{paper['num_images']:,} images, {paper['num_labels']:,} labels"
    lines = [f"as papers have it ({paper['protocol']}: {about})"]
    rules = {name: values for name, values in paper.items() if isinstance(values, dict)}
    if not rules:
        aps = zip(paper["AP11"], per_label, strict=True)
        lines += [f"{'AP11 ' + row['label']:<24}{ap:8.1f}" for ap, row in aps]
        return [*lines, f"mAP {paper['mAP11']:.2f} of 11 points (mAP {paper['mAP']:.2f} of all)"]
    columns = list(next(iter(rules.values())))
    lines += [f"{'':<14}" + "".join(f"{name:>8}" for name in columns)]
    for rule, values in rules.items():
        lines += [f"{rule:<14}" + "".join(f"{values[name]:8.1f}" for name in columns)]
    return [*lines, f"mAP@10 {paper['mAP@10']:.2f}   mAP {paper['mAP']:.2f}"]


def _interval_lines(intervals: dict) -> list[str]:
    """95 % intervals of the headline figures, a row for each decision rule."""
    lines = [f"{'95 % intervals':<14}" + "".join(f"{name:>16}" for name in SHOWN)]
    for rule, found in intervals["predicted_sets"].items():
        cells = ("{:.1f} to {:.1f}".format(*found[name]) for name in SHOWN)
        lines.append(f"{rule:<14}" + "".join(f"{cell:>16}" for cell in cells))
    m_ap, set_nll = intervals["mAP"], intervals["set_nll"]
    if math.isnan(set_nll[0]):
        return ["no intervals: too few images"]
    last = f"mAP {m_ap[0]:.2f} to {m_ap[1]:.2f}   set NLL {set_nll[0]:.3f} to {set_nll[1]:.3f}"
    return [*lines, f"{last}   (bootstrap over images)"]


def format_comparison(c: dict) -> str:
    """The console's text for what compare.compare returns."""
    names = [run["name"] for run in c["runs"]]
    first, *others = names
    width = max(14, *(len(name) for name in names))
    lines = [f"{run['name']:<{width}}  {run['metrics']}  ({run['decoder']})" for run in c["runs"]]
    lines += [f"{c['num_images']:,} {c['protocol']} of {c['annotations']}"]
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
            f"{test['labels']} labels; Wilcoxon's signed-rank test p = {test['p']:.2g}"
        ]
    lines = map(printable, lines)
    return "\n".join([*lines, "", "* 0 is outside the interval (bootstrap over images, paired)"])
