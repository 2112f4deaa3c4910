"""The pictures sample.py draws: a slide per image, and a contact sheet of many images."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage.util import montage

from report.gallery import overlay
from report.sample_text import name_set
from util.files import write_atomically
from util.log import printable

MAPS_SHOWN = 5  # class activation maps per slide, of the most probable predicted labels
TILE, CAPTION, COLUMNS = 240, 56, 5  # contact sheet: tile side and caption in pixels, tiles per row
PREDICTED, OTHER, MUTED = "#2a6fbb", "#c3c9d1", "#888888"


def name_drawings(files: list[Path], folder: Path) -> list[Path]:
    """A slide's path for each image; images of the same name in different folders get numbers."""
    paths: dict[Path, None] = {}  # an ordered set
    for file in files:
        path, n = folder / f"{file.stem}_labels.png", 1
        while path in paths:
            n += 1
            path = folder / f"{file.stem}_{n}_labels.png"
        paths[path] = None
    return list(paths)


def draw_slide(
    photo: Image.Image,
    result: dict,
    class_maps: dict[str, np.ndarray],
    top: int,
    path: Path,
) -> None:
    """Save a PNG: the photo, bars for the `top` labels, class maps of the predicted labels.

    result: the dictionary that `sample.py --json` prints.
    class_maps: label -> class activation map h×w.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["text.parse_math"] = False  # a label may contain a dollar sign
    mapped = result["predicted"][:MAPS_SHOWN]
    figure = plt.figure(figsize=(10, 6.6 if mapped else 4.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # inches
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.3, 1)) if mapped else (figure, None)
    left, right = upper.subplots(1, 2, width_ratios=(1.1, 1))
    small = photo.copy()
    small.thumbnail((1000, 1000))
    left.imshow(small)
    left.axis("off")
    _draw_bars(right, result, top)
    title = f"most probable set: {name_set(result['most_probable_sets'][0])}"
    upper.suptitle(printable(title), fontsize=13, wrap=True)
    if mapped:
        axes = lower.subplots(1, MAPS_SHOWN)
        for axis in axes:
            axis.axis("off")
        for axis, label in zip(axes, mapped, strict=False):
            axis.imshow(overlay(small, class_maps[label]))
            axis.set_title(printable(label), fontsize=11)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    plt.close(figure)


def _draw_bars(axis, result: dict, top: int) -> None:
    """A bar per label, most probable on top; a dotted line marks each label's threshold."""
    labels = list(result["labels"].items())[:top][::-1]  # matplotlib draws from the bottom up
    colours = [PREDICTED if label in result["predicted"] else OTHER for label, _ in labels]
    names = [printable(label) for label, _ in labels]
    bars = axis.barh(names, [p for _, p in labels], color=colours)
    axis.bar_label(bars, [f" {100 * p:.0f}%" for _, p in labels], fontsize=11)
    if "thresholds" in result:
        y = np.arange(len(labels))
        x = [result["thresholds"][label] for label, _ in labels]
        axis.set_title("dotted: threshold", fontsize=10, color=MUTED, loc="right")
        axis.vlines(x, y - 0.5, y + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    axis.set(xlim=(0, 1.12), xticks=[])
    axis.tick_params(axis="y", length=0, labelsize=12)
    axis.spines[:].set_visible(False)


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
    """Save all tiles as one PNG, COLUMNS in a row."""
    columns = min(len(tiles), COLUMNS)
    shape = (-(-len(tiles) // columns), columns)
    sheet = montage(np.stack(tiles), fill=(255, 255, 255), grid_shape=shape, channel_axis=-1)
    write_atomically(path, lambda temporary: Image.fromarray(sheet).save(temporary, "PNG"))
