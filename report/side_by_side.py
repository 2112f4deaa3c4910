"""Several models on the same image: true and predicted labels in columns, as text and as a slide.

The result for an image has "image" and "models", a list with a model's name under "model", its
file under "checkpoint", and all that `Predictor.describe` and `Truth.beside` say.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from report.fonts import Lettering
from report.marked import check_free
from report.slides import COLOURS, DRAWN_SIGNS, MUTED, new_figure, save_figure
from report.truth import SIGNS, kind_of, legend
from util.log import counted, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, LETTERS = 20, 20  # of a column on a slide at most
PHOTO, COLUMN, ROW = 4.6, 2.6, 0.25  # inches

Cell = tuple[str | None, str | None, str]  # kind, label, what follows or stands for it
Column = tuple[str, list[Cell | None]]  # title, rows


def name_models(checkpoints: Sequence[Path]) -> list[str]:
    """The names of their run folders; the paths if two would be called alike."""
    names = [path.absolute().parent.name for path in checkpoints]
    return names if len({*names}) == len(names) else [str(path) for path in checkpoints]


def join_results(
    checkpoints: Sequence[Path], batches: Sequence[Iterable[tuple[dict, dict]]]
) -> Iterator[tuple[dict[str, dict], dict[str, str]]]:
    """Join the batches of several models, which have the same images.

    A batch is image -> result, and image -> why it cannot be read.
    """
    names = name_models(checkpoints)
    for parts in zip(*batches, strict=True):
        errors = {image: why for _, failed in parts for image, why in failed.items()}
        joined = {}
        for image in parts[0][0]:
            if image not in errors:
                models = zip(names, checkpoints, parts, strict=True)
                joined[image] = {
                    "models": [
                        {"model": name, "checkpoint": str(path), **results[image]}
                        for name, path, (results, _) in models
                    ]
                }
        yield joined, errors


def format_side_by_side(result: dict, drawing: Path | None) -> str:
    """The console's text for one image: two columns for each model."""
    columns = []
    for model in result["models"]:
        for number, (title, cells) in enumerate(columns_of(model)):
            head = ["" if number else model["model"], title]
            columns.append([*map(printable, [*head, *(_in_text(cell) for cell in cells)])])
    widths = [max(map(_width, column)) for column in columns]
    lines = [printable(result["image"])]
    for row in zip_longest(*columns, fillvalue=""):
        cells = [cell + " " * (w - _width(cell)) for cell, w in zip(row, widths, strict=True)]
        lines.append(f"  {'   '.join(cells)}".rstrip())
    if drawing:
        lines.append(printable(f"  picture: {drawing}"))
    return "\n".join(lines)


def columns_of(model: dict) -> list[Column]:
    """The true labels, if there are annotations, and the predicted ones.

    A right label is in both columns of its row.
    """
    count = counted(len(model["labels"]), "label")
    true, rows = model.get("true"), []
    given = [label for label in model["predicted"] if label not in (true or ())]
    for label in (*(true or ()), *given):
        kind, p = kind_of(label, model), model["labels"].get(label)
        percent = "" if p is None else f"{100 * p:.0f}%"
        in_truth = (kind, label, f"({percent})" if kind == "missed" else "")
        rows.append(
            (
                in_truth if label in (true or ()) else None,
                (kind, label, percent) if label in model["predicted"] else None,
            )
        )
    tags, predicted = ([row[i] for row in rows] for i in (0, 1))
    if not any(tags):
        empty = "none is known" if model.get("unknown") else "no label"
        tags[:1] = [(None, None, empty if true == [] else "not in the annotations")]
    if not any(predicted):
        predicted[:1] = [(None, None, "no label")]
    columns = [(f"Tags ({count})", tags), (f"Prediction ({count})", predicted)]
    return columns if "true" in model else columns[1:]


def _in_text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    kind, label, more = cell
    return " ".join(filter(None, [SIGNS[kind] if kind else " ", label, more]))


def _width(text: str) -> int:
    """Columns of a terminal: Chinese letters take two, combining signs none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def draw_side_by_side(
    photo: Image.Image, result: dict, path: Path, lettering: Sequence[Lettering]
) -> None:
    """Save a PNG: the photo, then two columns of labels for each model.

    lettering: of each model's labels. Raises UsageError if `path` is a file that was not drawn
    here, RunError.
    """
    check_free(path)
    models = [columns_of(model) for model in result["models"]]
    columns = [column for model in models for column in model]
    height = max(4.2, 1.3 + ROW * min(ROWS + 1, max(len(cells) for _, cells in columns)))
    width = PHOTO + COLUMN * len(columns)
    figure = new_figure(lettering[0], (width, height))
    left = figure.add_axes((0.02, 0.1, PHOTO / width - 0.03, 0.8))
    small = photo.copy()
    small.thumbnail((1000, 1000))
    left.imshow(small)
    left.axis("off")
    x = PHOTO / width
    for model, titled, letters in zip(result["models"], models, lettering, strict=True):
        name = _cut(printable(model["model"]), LETTERS * len(titled))
        figure.text(x, 1 - 0.25 / height, name, fontsize=14, va="top")
        for title, cells in titled:
            figure.text(x, 1 - 0.6 / height, title, fontsize=11, color=MUTED, va="top")
            _draw_cells(figure, x, height, cells, letters)
            x += COLUMN / width
    if any(model.get("true") is not None for model in result["models"]):
        figure.text(PHOTO / width, 0.12 / height, legend(DRAWN_SIGNS), fontsize=10, color=MUTED)
    save_figure(figure, path)


def _draw_cells(
    figure: Figure, x: float, height: float, cells: list[Cell | None], lettering: Lettering
) -> None:
    """A column of labels; x: where it starts, as a part of the width. height: of the figure."""
    shown = cells if len(cells) <= ROWS else cells[: ROWS - 1]
    for number, cell in enumerate(shown):
        if cell:
            kind, label, more = cell
            sign = DRAWN_SIGNS[kind] if kind else ""
            words = [sign, _cut(lettering.show(label), LETTERS) if label else "", more]
            look = {"color": COLOURS.get(kind, "black" if label else MUTED), "fontsize": 12}
            y = 1 - (1 + ROW * number) / height
            text = " ".join(filter(None, words))
            figure.text(x, y, text, fontfamily=lettering.families, va="top", **look)
    if more := sum(cell is not None for cell in cells[len(shown) :]):
        y = 1 - (1 + ROW * len(shown)) / height
        figure.text(x, y, f"… and {more:,} more", color=MUTED, fontsize=11, va="top")


def _cut(text: str, most: int) -> str:
    """A text that is at most so wide, in letters; … says that there was more."""
    if _width(text) <= most:
        return text
    while _width(text) > most - 1:
        text = text[:-1]
    return f"{text}…"
