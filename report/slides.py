"""Pictures of what sample.py finds: a slide for each photo, a contact sheet of many."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage.util import montage

from report.gallery import overlay
from util.files import write_atomically
from util.log import csv_text, printable

MAPS_SHOWN = 5  # where the network saw a label, of the most probable predicted ones
TILE, CAPTION, COLUMNS = 240, 56, 5  # of the contact sheet: pixels, pixels, photos in a row
PREDICTED, OTHER, MUTED = "#2a6fbb", "#c3c9d1", "#888888"


def name_drawings(files: list[Path], folder: Path) -> list[Path]:
    """Where each picture goes; a number keeps files of the same name apart."""
    names: dict[Path, None] = {}  # a set in order
    for file in files:
        name, n = folder / f"{file.stem}_labels.png", 1
        while name in names:
            n += 1
            name = folder / f"{file.stem}_{n}_labels.png"
        names[name] = None
    return list(names)


def format_result(result: dict, top: int, drawing: Path) -> str:
    """The console's text for one picture."""
    lines = [result["image"]]
    for label, p in list(result["labels"].items())[:top]:
        mark = "*" if label in result["predicted"] else " "
        line = f"  {mark} {label:<20} {100 * p:5.1f}%"
        if "standard_errors" in result:
            line += f" ± {100 * result['standard_errors'][label]:.1f}"
        if "bounds" in result:
            line += "  certainly {:.1f} to {:.1f}".format(
                *(100 * b for b in result["bounds"][label])
            )
        lines.append(line)
    if "known" in result:
        size = result["effective_sample_size"]
        lines.append(f"  given what is known; as good as {size:.0f} independent samples")
    best, *others = result["most_probable_sets"]
    lines.append(f"  most probable set: {name_set(best)}")
    lines += [f"                     {name_set(other)}" for other in others]
    if others:
        lines.append(f"  these sets together: {100 * result['covered']:.1f}%")
    lines.append(f"  picture: {drawing}")
    return "\n".join(map(printable, lines))


def save_labels(results: list[dict], folder: Path) -> None:
    """labels.csv, a column for each label's probability; labels.jsonl, all that --json prints."""
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
        data = content.encode("utf-8", "surrogateescape")
        write_atomically(folder / name, lambda t, data=data: t.write_bytes(data))


def name_set(found: dict) -> str:
    """A label set and its probability in words."""
    return f"{', '.join(found['labels']) or 'no label'} ({100 * found['probability']:.1f}%)"


def draw_slide(
    photo: Image.Image,
    result: dict,
    class_maps: dict[str, np.ndarray],
    top: int,
    path: Path,
) -> None:
    """The photo, a bar for each of the `top` labels, and where each predicted label was seen.

    result: what `sample.py --json` prints. class_maps: label -> h×w, the CNN's score by place.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["text.parse_math"] = False  # a label may hold a dollar sign
    photo = photo.copy()
    photo.thumbnail((1000, 1000))
    labels = list(result["labels"].items())[:top][::-1]
    seen = result["predicted"][:MAPS_SHOWN]
    figure = plt.figure(figsize=(10, 6.6 if seen else 4.6), layout="constrained")
    upper, lower = figure, None
    if seen:
        upper, lower = figure.subfigures(2, 1, height_ratios=(2.3, 1))
    left, right = upper.subplots(1, 2, width_ratios=(1.1, 1))
    left.imshow(photo)
    left.axis("off")
    colours = [PREDICTED if label in result["predicted"] else OTHER for label, _ in labels]
    bars = right.barh(
        [printable(label) for label, _ in labels], [p for _, p in labels], color=colours
    )
    right.bar_label(bars, [f" {100 * p:.0f}%" for _, p in labels], fontsize=11)
    if "thresholds" in result:
        y = np.arange(len(labels))
        x = [result["thresholds"][label] for label, _ in labels]
        right.vlines(x, y - 0.5, y + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    right.set(xlim=(0, 1.12), xticks=[])
    right.tick_params(axis="y", length=0, labelsize=12)
    right.spines[:].set_visible(False)
    title = f"most probable set: {name_set(result['most_probable_sets'][0])}"
    upper.suptitle(printable(title), fontsize=13, wrap=True)
    if lower is not None:
        axes = lower.subplots(1, MAPS_SHOWN)
        for axis in axes:
            axis.axis("off")
        for axis, label in zip(axes, seen, strict=False):
            axis.imshow(overlay(photo, class_maps[label]))
            axis.set_title(printable(label), fontsize=11)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    plt.close(figure)


def make_tile(photo: Image.Image, predicted: list[str]) -> np.ndarray:
    """(TILE + CAPTION)×TILE×3 uint8: the photo on white, its predicted labels below."""
    canvas = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    small = ImageOps.contain(photo, (TILE - 12, TILE - 12))
    canvas.paste(small, ((TILE - small.width) // 2, TILE - small.height))
    words = ", ".join(" ".join(label.split()) for label in predicted) or "no label"
    lines = textwrap.wrap(words, 34, max_lines=3, placeholder=" …")
    font = ImageFont.load_default(13)
    ImageDraw.Draw(canvas).multiline_text((8, TILE + 4), "\n".join(lines), "black", font)
    return np.asarray(canvas)


def save_contact_sheet(tiles: list[np.ndarray], path: Path) -> None:
    """All tiles in rows of COLUMNS, as one PNG."""
    columns = min(len(tiles), COLUMNS)
    shape = (-(-len(tiles) // columns), columns)
    sheet = montage(np.stack(tiles), fill=(255, 255, 255), grid_shape=shape, channel_axis=-1)
    write_atomically(path, lambda temporary: Image.fromarray(sheet).save(temporary, "PNG"))
