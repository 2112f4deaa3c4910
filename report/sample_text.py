"""The results of sample.py as text: on the console, as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from util.files import BOM, csv_text, write_atomically
from util.log import printable


def format_result(result: dict, top: int, drawing: Path) -> str:
    """The console's text for one image: its `top` most probable labels and label sets."""
    lines = [result["image"]]
    for label, p in list(result["labels"].items())[:top]:
        mark = "*" if label in result["predicted"] else " "
        line = f"  {mark} {label:<20} {100 * p:5.1f}%"
        if "standard_errors" in result:
            line += f" ± {100 * result['standard_errors'][label]:.1f}"
        if "bounds" in result:
            low, high = (100 * bound for bound in result["bounds"][label])
            line += f"  exact value between {low:.1f} and {high:.1f}"
        lines.append(line)
    if "known" in result:
        size = result["effective_sample_size"]
        lines.append(f"  given the known labels; as exact as {size:.0f} independent samples")
    best, *others = result["most_probable_sets"]
    lines.append(f"  most probable set: {name_set(best)}")
    lines += [f"                     {name_set(other)}" for other in others]
    if others:
        lines.append(f"  these sets together: {100 * result['covered']:.1f}%")
    lines.append(f"  picture: {drawing}")
    return "\n".join(map(printable, lines))


def name_set(label_set: dict) -> str:
    """A label set and its probability in words."""
    labels = ", ".join(label_set["labels"]) or "no label"
    return f"{labels} ({100 * label_set['probability']:.1f}%)"


def save_labels(results: list[dict], folder: Path) -> None:
    """Write labels.csv, a column of probabilities per label, and labels.jsonl, as --json prints."""
    columns = ["image", "predicted", *sorted(results[0]["labels"])]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(csv_text, columns))
    for r in results:
        probabilities = (f"{r['labels'][label]:.4f}" for label in columns[2:])
        names = map(csv_text, (r["image"], "; ".join(r["predicted"])))
        writer.writerow([*names, *probabilities])
    lines = "".join(json.dumps(r) + "\n" for r in results)
    for name, content in (("labels.csv", text.getvalue()), ("labels.jsonl", lines)):
        start = BOM if name.endswith(".csv") else ""
        data = (start + content).encode("utf-8", "surrogateescape")
        write_atomically(folder / name, lambda t, data=data: t.write_bytes(data))
