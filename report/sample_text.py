"""The results of sample.py as text for the console."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from report.truth import SIGNS, kind_of, no_label
from util.log import printable


def format_result(result: dict, top: int, drawing: Path | None) -> str:
    """The console's text for one image: its `top` most probable labels and label sets."""
    lines = [result["image"]]
    for label, p in shown_labels(result, top):
        usual = "*" if label in result["predicted"] else " "
        mark = SIGNS.get(kind_of(label, result), usual)
        line = f"  {mark} {label:<20} {100 * p:5.1f}%"
        if "standard_errors" in result:
            line += f" ± {100 * result['standard_errors'][label]:.1f}"
        if "bounds" in result:
            low, high = (100 * bound for bound in result["bounds"][label])
            line += f"  exact value between {low:.1f} and {high:.1f}"
        lines.append(line)
    lines += [f"  {SIGNS['not_known']} {label}" for label in result.get("not_known", ())]
    if result.get("true") == []:
        lines.append(f"  true labels: {no_label(result)}")
    given = {"known": "the known labels", "rules": "the rules"}
    if given := " and ".join(words for key, words in given.items() if key in result):
        size = result["effective_sample_size"]
        how = "exact" if size is None else f"as exact as {size:.0f} independent samples"
        lines.append(f"  given {given}; {how}")
    best, *others = result["most_probable_sets"]
    lines.append(f"  most probable set: {name_set(best)}")
    lines += [f"                     {name_set(other)}" for other in others]
    if others:
        lines.append(f"  these sets together: {100 * result['covered']:.1f}%")
    if drawing:
        lines.append(f"  picture: {drawing}")
    return "\n".join(map(printable, lines))


def shown_labels(result: dict, top: int) -> list[tuple[str, float]]:
    """The `top` most probable labels, and all right, missed and added ones; their probabilities."""
    labels = list(result["labels"].items())
    return labels[:top] + [pair for pair in labels[top:] if kind_of(pair[0], result)]


def name_set(label_set: dict, show: Callable[[str], str] = str) -> str:
    """A label set and its probability in words; `show` says how a label is written."""
    labels = ", ".join(map(show, label_set["labels"])) or "no label"
    return f"{labels} ({100 * label_set['probability']:.1f}%)"
