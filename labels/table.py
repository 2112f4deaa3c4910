"""Rows of named columns -> which labels are on which image: what CSV and JSONL share.

One column has the file name, one may have the split. The labels are in one column, or each label
has a column of its own with 0 or 1. Several rows of one image add up. Every error names file and
row.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.text import SPLITS, is_text
from util.errors import UsageError
from util.log import log

FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_name", "image_path", "path")
LABEL_COLUMNS = ("labels", "label", "tags", "tag", "classes", "class", "categories", "category")
SPLIT_COLUMNS = ("split", "subset", "set")
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}
SEPARATORS = "|;,"  # of labels; those that are rarest within a label come first
Row = tuple[int, dict[str, object]]  # its number in the file, and the value of each column


@dataclass(frozen=True)
class Columns:
    """What the columns mean: either `labels` or `flags` is given."""

    file: str
    split: str | None
    labels: str | None  # all labels of an image
    flags: list[str]  # one label each


def images_from_rows(
    rows: Iterator[Row], path: Path, image_path: Path | None, kind: str
) -> AnnotatedImages:
    """The images in order of their first rows. Raises UsageError."""
    rows = list(rows)
    if not rows:
        raise UsageError(f"{path} lists no images: it has a header at most")
    columns = _find_columns(rows, path)
    labels_in = _label_reader(rows, columns, path)
    labels_of: dict[str, dict[str, None]] = {}
    numbers: dict[str, int] = {}
    splits: dict[str, str] = {}
    for number, row in rows:
        where = f"{path}, row {number},"
        name = _file_name(row, columns.file, where)
        labels_of.setdefault(name, {}).update(dict.fromkeys(labels_in(row, where)))
        numbers.setdefault(name, number)
        if columns.split:
            split = _split(row, columns.split, where)
            if splits.setdefault(name, split) != split:
                raise UsageError(f"{where} puts {name} in {split}, another row in {splits[name]}")
    found = {label: label for labels in labels_of.values() for label in labels}  # one copy of each
    return AnnotatedImages(
        str(path),
        file_names=_names_inside(numbers, path, image_path),
        label_sets=[tuple(found[label] for label in labels) for labels in labels_of.values()],
        categories=sorted({*columns.flags, *found}),
        kind=kind,
        splits=list(splits.values()) or None,
    )


def find_column(columns: list[str], names: tuple[str, ...]) -> str | None:
    """The column with the first of these names that occurs, in upper or lower case."""
    lower = {column.strip().lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def _find_columns(rows: list[Row], path: Path) -> Columns:
    names = list(dict.fromkeys(key for _, row in rows for key in row))
    file = find_column(names, FILE_COLUMNS)
    if file is None:
        raise UsageError(f"{path} has no file_name in row {rows[0][0]}")
    split = find_column(names, SPLIT_COLUMNS)
    others = [name for name in names if name not in (file, split)]
    if not others:
        raise UsageError(
            f"{path} has no column of labels: add a column labels, or one column for each label"
        )
    labels = find_column(others, LABEL_COLUMNS)
    if labels is None and len(others) == 1 and not _all_flags(rows, others[0]):
        labels = others[0]
    if labels is None:
        return Columns(file, split, None, others)
    if unused := [name for name in others if name != labels]:
        log(f"{path}: labels are in the column {labels!r}; not used: {', '.join(unused)}")
    return Columns(file, split, labels, [])


def _all_flags(rows: list[Row], column: str) -> bool:
    return all(str(row.get(column, "")).lower() in YES | NO for _, row in rows)


def _file_name(row: dict, column: str, where: str) -> str:
    name = row.get(column)
    if not isinstance(name, str) or not name.strip() or not is_text(name):
        raise UsageError(f"{where} has no {column}")
    return name.strip().replace("\\", "/")


def _split(row: dict, column: str, where: str) -> str:
    split = SPLITS.get(str(row.get(column, "")).strip().lower())
    if split is None:
        raise UsageError(
            f"{where} has {column} {row.get(column)!r}: write train, val or test, in every row or "
            "in none"
        )
    return split


def _names_inside(rows: dict[str, int], path: Path, image_path: Path | None) -> list[str]:
    """The file names, given with their rows; absolute ones become relative to the image folder.

    Raises UsageError, naming the row, for a name that leads out of the folder.
    """
    roots = []
    if image_path is not None:
        root = image_path if image_path.is_dir() else image_path.parent
        roots = [f"{r.as_posix().rstrip('/')}/" for r in (root.absolute(), root.resolve())]
    names = []
    for name, row in rows.items():
        name = name.removeprefix(next((r for r in roots if name.startswith(r)), ""))
        absolute = name.startswith("/") or name[1:3] == ":/"
        if ".." in name.split("/") or (absolute and image_path is not None):
            raise UsageError(
                f"{path}, row {row}, has file_name {name!r}, which is not inside the image folder; "
                "write names relative to it"
            )
        names.append(name)
    return names


def _label_reader(
    rows: list[Row], columns: Columns, path: Path
) -> Callable[[dict, str], list[str]]:
    """A function from a row, and its place for messages, to its labels."""
    if columns.labels is None:
        return lambda row, where: _flagged_labels(row, columns.flags, where)
    separator = _find_separator([row.get(columns.labels) for _, row in rows], path)
    return lambda row, where: _labels_in_cell(row.get(columns.labels), separator, where)


def _flagged_labels(row: dict, columns: list[str], where: str) -> list[str]:
    """The labels whose columns say yes."""
    found = []
    for column in columns:
        value = str(row.get(column, "")).strip().lower()
        if value in YES:
            found.append(column)
        elif value not in NO:
            raise UsageError(
                f"{where} has {value!r} in the column {column!r}: the column of one label holds 0 "
                "or 1; call a column with all labels of an image labels"
            )
    return found


def _labels_in_cell(value: object, separator: str, where: str) -> list[str]:
    """The labels in a cell of text, or in a list of JSONL."""
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = _python_list(value)
    if isinstance(value, str):
        if not separator:
            value = [value]
        else:
            cell = csv.reader([value], delimiter=separator, skipinitialspace=separator != " ")
            value = next(cell, [])
    if not isinstance(value, list) or not all(isinstance(v, str) and is_text(v) for v in value):
        raise UsageError(f"{where} has labels {str(value)[:60]!r}: write texts, as in cat|dog")
    return [label for v in value if (label := " ".join(v.split()))]


def _python_list(value: str) -> object:
    """['cat', 'dog'], as pandas writes lists."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _find_separator(cells: list[object], path: Path) -> str:
    """What separates the labels in these cells; empty if each cell is one label."""
    texts = {cell for cell in cells if isinstance(cell, str) and not cell.startswith("[")}
    for separator in SEPARATORS:
        if any(separator in text for text in texts):
            log(f"{path}: labels are separated by {separator!r}")
            return separator
    # "traffic light" has a space, too: spaces separate labels if few words form many cells
    words = {word for text in texts for word in text.split(" ")}
    if any(" " in text for text in texts) and len(words) < len(texts):
        log(f"{path}: labels are separated by spaces; if that is wrong, end each label with |")
        return " "
    for sign in "/+&:_-":
        mixed = [t for t in texts if sign in t and {p.strip() for p in t.split(sign)} <= texts]
        if mixed:
            log(f"{path}: {min(mixed)!r} is read as one label; separate labels with | or ; or ,")
            break
    return ""
