"""Pictures of what sample.py finds: a slide for each photo, a contact sheet of many."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage.util import montage

from gallery import overlay
from utils import printable, write_atomically

MAPS_SHOWN = 5  # where the network saw a label, of the most probable predicted ones
TILE, CAPTION, COLUMNS = 240, 56, 5  # of the contact sheet: pixels, pixels, photos in a row
PREDICTED, OTHER, MUTED = "#2a6fbb", "#c3c9d1", "#888888"


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
