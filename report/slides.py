"""The pictures sample.py draws: a slide per image, and a contact sheet of many images."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from report.fonts import Lettering
from report.gallery import overlay
from report.marked import PROGRAM, check_free, save_marked
from report.sample_text import name_set, shown_labels
from report.truth import kind_of, legend, no_label
from util.files import write_picture
from util.log import some
from util.marked import SLIDES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS_SHOWN = 5  # class activation maps per slide, of the most probable predicted labels
TILE, CAPTION, COLUMNS = 240, 56, 5  # contact sheet: tile side and caption in pixels, tiles per row
MARGIN, BASELINE, LINE, LINES = 8, 12, 16, 3  # of a caption: pixels, and lines at most
MOST_BARS = 24  # on a slide, however many labels are right, missed and added
LONGEST = 200  # bytes of a file name: longer ones leave no room for what is added
PREDICTED, OTHER, MUTED = "#2a6fbb", "#c3c9d1", "#888888"
# where the true labels are known; the colours differ for all kinds of colour vision
COLOURS = {"right": "#00795f", "missed": "#c75b00", "added": "#6a3fb5", "not_known": "#777777"}
DRAWN_SIGNS = dict(zip(COLOURS, "✓–+?", strict=True))


def slide_path(output: Path, name: str) -> Path:
    """Where the slide of an image is drawn. name: of the image, with the folders it is in."""
    folders, slash, last = name.rpartition("/")
    if len(last.encode(errors="replace")) > LONGEST:
        last = f"{last[:40]}-{hashlib.sha256(last.encode(errors='replace')).hexdigest()[:16]}"
    return output / SLIDES / f"{folders}{slash}{last}.png"


def draw_slide(
    photo: Image.Image,
    result: dict,
    class_maps: dict[str, np.ndarray],
    top: int,
    path: Path,
    lettering: Lettering,
) -> None:
    """Save a PNG: the photo, bars for the `top` labels, class maps of the predicted labels.

    result: the dictionary that `sample.py --json` prints.
    class_maps: label -> class activation map h×w.
    Raises UsageError if `path` is a file that was not drawn here, RunError.
    """
    check_free(path)
    mapped = result["predicted"][:MAPS_SHOWN]
    figure = new_figure(lettering, (10, 6.6 if mapped else 4.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # inches
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.3, 1)) if mapped else (figure, None)
    left, right = upper.subplots(1, 2, width_ratios=(1.1, 1))
    small = photo.copy()
    small.thumbnail((1000, 1000))
    left.imshow(small)
    left.axis("off")
    _draw_bars(right, result, top, lettering)
    best = name_set(result["most_probable_sets"][0], lettering.show)
    upper.suptitle(f"most probable set: {best}", fontsize=13, wrap=True)
    if mapped:
        axes = lower.subplots(1, MAPS_SHOWN)
        for axis in axes:
            axis.axis("off")
        for axis, label in zip(axes, mapped, strict=False):
            axis.imshow(overlay(small, class_maps[label]))
            axis.set_title(lettering.show(label), fontsize=11)
    save_figure(figure, path)


def new_figure(lettering: Lettering, inches: tuple[float, float], **options: object) -> Figure:
    """An empty figure of this width and height; options are matplotlib's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["text.parse_math"] = False  # a label may contain a dollar sign
    plt.rcParams["font.family"] = lettering.families
    return plt.figure(figsize=inches, **options)


def save_figure(figure: Figure, path: Path) -> None:
    """Save a PNG with the mark of sample.py's pictures, and close the figure. Raises RunError."""
    from matplotlib import pyplot as plt

    mark = {"Software": PROGRAM}
    write_picture(path, lambda file: figure.savefig(file, dpi=110, format="png", metadata=mark))
    plt.close(figure)


def _draw_bars(axis, result: dict, top: int, lettering: Lettering) -> None:
    """A bar per label, most probable on top; a dotted line marks each label's threshold."""
    shown = shown_labels(result, top)
    labels = shown[:MOST_BARS][::-1]  # matplotlib draws from the bottom up
    kinds = [kind_of(label, result) for label, _ in labels]
    usual = [PREDICTED if label in result["predicted"] else OTHER for label, _ in labels]
    colours = [COLOURS.get(kind, other) for kind, other in zip(kinds, usual, strict=True)]
    signs = [f"{DRAWN_SIGNS[kind]} " if kind else "" for kind in kinds]
    names = [s + lettering.show(label) for s, (label, _) in zip(signs, labels, strict=True)]
    places = range(len(labels))  # not the names: two may be written alike
    bars = axis.barh(places, [p for _, p in labels], color=colours)
    axis.set_yticks(places, names)
    axis.bar_label(bars, [f" {100 * p:.0f}%" for _, p in labels], fontsize=11)
    if "thresholds" in result:
        y = np.arange(len(labels))
        x = [result["thresholds"][label] for label, _ in labels]
        axis.set_title("dotted: threshold", fontsize=10, color=MUTED, loc="right")
        axis.vlines(x, y - 0.5, y + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    if result.get("true") is not None:
        words = _say_truth(result, len(shown) - len(labels), lettering)
        axis.set_xlabel(words, fontsize=10, color=MUTED)
    axis.set(xlim=(0, 1.12), xticks=[])
    axis.tick_params(axis="y", length=0, labelsize=12)
    axis.spines[:].set_visible(False)


def _say_truth(result: dict, left_out: int, lettering: Lettering) -> str:
    """The legend of the signs, and what has no bar."""
    words = [legend(DRAWN_SIGNS)]
    words += [f"true labels: {no_label(result)}"] if not result["true"] else []
    words += [f"without {left_out:,} more"] if left_out else []
    if unknown := [lettering.show(label) for label in result["not_known"]]:
        words += textwrap.wrap(f"? {some(unknown, 8)}", 70)
    return "\n".join(words)


def make_tile(photo: Image.Image, predicted: list[str], lettering: Lettering) -> np.ndarray:
    """(TILE + CAPTION)×TILE×3 uint8: the photo on white, its predicted labels below."""
    canvas = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    small = ImageOps.contain(photo, (TILE - 12, TILE - 12))
    canvas.paste(small, ((TILE - small.width) // 2, TILE - small.height))
    words = ", ".join(map(lettering.show, predicted)) or "no label"
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(_wrap(words, lettering)):
        x, y = MARGIN, TILE + 4 + BASELINE + LINE * number
        for run, font in lettering.runs(line):
            draw.text((x, y), run, "black", font, anchor="ls")  # fonts differ in height
            x += font.getlength(run)
    return np.asarray(canvas)


def _wrap(words: str, lettering: Lettering) -> list[str]:
    """A caption's lines, cut where they are too long; … says that there is more."""
    most, lines = TILE - 2 * MARGIN, [""]
    for word in words.split():
        line = f"{lines[-1]} {word}".strip()
        if lettering.width(line) <= most:
            lines[-1] = line
            continue
        while lettering.width(word) > most:  # a word longer than a line, as in Chinese
            end = next(i for i in range(len(word), 0, -1) if lettering.width(word[:i]) <= most)
            lines, word = [*lines, word[:end]], word[end:]
        lines.append(word)
    lines = [line for line in lines if line]
    if len(lines) > LINES:
        last = lines[LINES - 1]
        while lettering.width(f"{last} …") > most:
            last = last[:-1]
        lines = [*lines[: LINES - 1], f"{last} …"]
    return lines


def save_contact_sheet(tiles: list[np.ndarray], path: Path) -> None:
    """Save all tiles as one PNG, COLUMNS in a row. Raises UsageError for a file of the user."""
    from skimage.util import montage  # imported here: a single image has no contact sheet

    columns = min(len(tiles), COLUMNS)
    shape = (-(-len(tiles) // columns), columns)
    sheet = montage(np.stack(tiles), fill=(255, 255, 255), grid_shape=shape, channel_axis=-1)
    save_marked(Image.fromarray(sheet), path)
