"""What evaluate.py's tables say of a promise of precision or recall."""

from __future__ import annotations

import math

from util.log import counted


def promise_lines(promise: dict, leak: str, width: int) -> list[str]:
    """The promise, its thresholds, and what it gives on the evaluated images.

    leak: evaluate.py's note on images that the model knows; empty if there is none. width: of the
    column of labels.
    """
    what = promise["kind"].removeprefix("label_")
    of_each = "per_label" in promise
    over = "for each label by itself" if of_each else "over all labels"
    lines = [
        f"promise: {what} of at least {promise['target']:g} % {over}, with "
        f"{promise['confidence']:g} % confidence, from "
        f"{counted(promise['hold_out_images'], 'hold-out image')}"
    ]
    if of_each:
        lines += _label_rows(promise["per_label"], width)
        lines += _without_promise(promise["per_label"], what)
    else:
        lines += [_thresholds(promise["thresholds"], what)]
    where = "here, over all labels" if of_each else "here"
    lines.append(
        f"{where}: precision {_percent(promise['precision'])}, "
        f"recall {_percent(promise['recall'])}; "
        f"{counted(promise['said'], 'label')} said"
    )
    if leak:
        lines.append(f"no test of the promise: {leak}")
    return lines


def _thresholds(thresholds: list[float | None], what: str) -> str:
    """From which probability on a label is said."""
    if what == "recall":
        (threshold,) = thresholds
        if not threshold:
            return "every label is said on every image: no higher threshold keeps the promise"
        return f"a label is said from probability {threshold:.4f} on"
    cells = [f"{t:.4f}" for t in thresholds if t is not None]
    return "said are the most probable label of an image from probability " + (
        f"{cells[0]} on, and no other one"
        if len(cells) == 1
        else f"{cells[0]} on, the next ones from {', '.join(cells[1:])}, and no more"
    )


def _label_rows(rows: list[dict], width: int) -> list[str]:
    """A row for each label; P and R on the evaluated images."""
    lines = [f"{'label':<{width}} {'threshold':>9} {'said':>7} {'P':>6} {'R':>6}"]
    for row in rows:
        threshold = "never" if row["threshold"] is None else f"{row['threshold']:.4f}"
        threshold = threshold if row["threshold"] != 0 else "always"
        lines.append(
            f"{row['label']:<{width}} {threshold:>9} {row['said']:>7,} "
            f"{_percent(row['precision']):>6} {_percent(row['recall']):>6}"
        )
    return lines


def _percent(value: float) -> str:
    """A dash where nothing is said, or nothing is there."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def _without_promise(rows: list[dict], what: str) -> list[str]:
    """Which labels have no promise, and how they are treated."""
    without = None if what == "precision" else 0
    names = [row["label"] for row in rows if row["threshold"] == without]
    if not names:
        return []
    how = "never said" if what == "precision" else "said on every image"
    return [f"nothing can be promised of {len(names)} of {counted(len(rows), 'label')}, {how}"]
