"""CSV and JSONL -> which labels are on which image.

    file_name,labels,split              file_name,cat,dog             {"file_name": "a.jpg",
    a.jpg,cat|dog,train                 a.jpg,1,1                      "labels": ["cat", "dog"]}
    b.jpg,,val                          b.jpg,0,0

The columns of a CSV are parted by comma, semicolon, tab or |, the labels in a cell by |, semicolon,
comma or, if these occur nowhere, spaces; a label that has that sign in it stands in double quotes.
Several rows of an image add up. Every error names file and row.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from util.errors import UsageError
from util.log import log

FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_name", "image_path", "path")
LABEL_COLUMNS = ("labels", "label", "tags", "tag", "classes", "class", "categories", "category")
SPLIT_COLUMNS = ("split", "subset", "set")
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val"}
SPLITS |= {"validation": "val", "dev": "val", "test": "test", "testing": "test"}
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}
DELIMITERS = ",;\t|"  # of columns
SEPARATORS = "|;,"  # of labels, the least usual within a label first
PICTURE = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?)$", re.IGNORECASE)
Row = tuple[int, dict[str, object]]  # its number in the file, and what is in each column


def parse_csv(content: bytes, path: Path) -> dict[str, list]:
    """What annotations.from_plain takes, and the row of each image. Raises UsageError."""
    return _to_plain(_csv_rows(_decode(content, path), path), path)


def parse_jsonl(content: bytes, path: Path) -> dict[str, list]:
    """The same of JSONL."""
    return _to_plain(_jsonl_rows(_decode(content, path), path), path)


def _decode(content: bytes, path: Path) -> str:
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, row {row}, is not UTF-8: save the file anew with the encoding UTF-8"
        ) from None


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = _delimiter(first, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header, start = None, 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                continue
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()  # spreadsheets leave such
            if len(cells) > len(header):
                raise UsageError(
                    f"{path}, row {number}, has {len(cells)} cells, its header {len(header)}: put "
                    "cells with a separator in them in double quotes, or part labels by |"
                )
            cells += [""] * (len(header) - len(cells))
            yield number, {k: v.strip() for k, v in zip(header, cells, strict=True) if k}
    except csv.Error as error:
        what = "a cell of more than 131,072 letters" if "field" in str(error) else str(error)
        raise UsageError(
            f"{path}, row {start}, cannot be read ({what}): is a double quote missing?"
        ) from None


def _delimiter(first: str, path: Path) -> str:
    """That of the first line, which must be a header."""
    for delimiter in DELIMITERS:
        names = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        if any(name in FILE_COLUMNS for name in names) and (len(names) > 1):
            repeated = {name for name in names if name and names.count(name) > 1}
            if repeated:
                raise UsageError(f"{path} has two columns {min(repeated)!r} in its first row")
            return delimiter
    shown = first if len(first) < 60 else first[:60] + "…"
    if first.strip().strip('"').lower() in FILE_COLUMNS:
        raise UsageError(f"{path} has no column of labels: its first row is {shown!r}")
    if any(PICTURE.search(cell.strip().strip('"')) for cell in re.split("[,;\t|]", first)):
        raise UsageError(
            f"{path} has no header: let its first row name the columns, as in file_name,labels"
        )
    raise UsageError(
        f"{path} has no column file_name (its first row is {shown!r}): let the first row name the "
        "columns, parted by comma, semicolon or tab, as in file_name,labels"
    )


def _jsonl_rows(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, row {number}, is not a JSON object on one line")
        yield number, row


def _to_plain(rows: Iterator[Row], path: Path) -> dict[str, list]:
    rows = list(rows)
    if not rows:
        raise UsageError(f"{path} lists no images: it has a header at most")
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    file_column = _column(columns, FILE_COLUMNS)
    if file_column is None:
        raise UsageError(f"{path} has no file_name in row {rows[0][0]}")
    split_column = _column(columns, SPLIT_COLUMNS)
    others = [c for c in columns if c not in (file_column, split_column)]
    if not others:
        raise UsageError(f"{path} has no column of labels: call it labels, or name each label's")
    label_column = _column(others, LABEL_COLUMNS)
    if label_column is None and len(others) == 1 and not _all_flags(rows, others[0]):
        label_column = others[0]
    if label_column is None:
        read, categories = _flags, set(others)
    else:
        if unused := [c for c in others if c != label_column]:
            log(f"{path}: labels are in the column {label_column!r}; not used: {', '.join(unused)}")
        separator = _separator([row.get(label_column) for _, row in rows], path)
        others, categories = [label_column, separator], set()
        read = _labels
    found, splits, numbers = {}, {}, {}
    for number, row in rows:
        where = f"{path}, row {number},"
        name = row.get(file_column)
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise UsageError(f"{where} has no {file_column}")
        name = name.strip().replace("\\", "/")
        labels = read(row, others, where)
        found.setdefault(name, {}).update(dict.fromkeys(labels))
        categories.update(labels)
        numbers.setdefault(name, number)
        if split_column:
            split = SPLITS.get(str(row.get(split_column, "")).strip().lower())
            if split is None:
                raise UsageError(
                    f"{where} has {split_column} {row.get(split_column)!r}: write train, val or "
                    "test, in every row or in none"
                )
            if splits.setdefault(name, split) != split:
                raise UsageError(f"{where} puts {name} in {split}, another row in {splits[name]}")
    names = sorted(categories)
    position = {label: i for i, label in enumerate(names)}
    return {
        "file_names": list(found),
        "label_sets": [[position[label] for label in labels] for labels in found.values()],
        "categories": names,
        "splits": list(splits.values()) or None,
        "rows": list(numbers.values()),
    }


def names_inside(plain: dict, path: Path, image_path: Path | None) -> list[str]:
    """The file names, absolute ones made relative to the image folder.

    Raises UsageError, naming the row, for one that leads out of the folder.
    """
    roots = []
    if image_path is not None:
        root = image_path if image_path.is_dir() else image_path.parent
        roots = [f"{r.as_posix().rstrip('/')}/" for r in (root.absolute(), root.resolve())]
    names = []
    for name, row in zip(plain["file_names"], plain["rows"], strict=True):
        start = next((r for r in roots if name.startswith(r)), "")
        name = name.removeprefix(start)
        absolute = name.startswith("/") or name[1:3] == ":/"
        if ".." in name.split("/") or (absolute and image_path is not None):
            raise UsageError(
                f"{path}, row {row}, has file_name {name!r}, which is not inside the image folder; "
                "write names relative to it"
            )
        names.append(name)
    return names


def _column(columns: list[str], names: tuple[str, ...]) -> str | None:
    """The column of the first of these names that there is, in any case."""
    lower = {column.strip().lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def _all_flags(rows: list[Row], column: str) -> bool:
    return all(str(row.get(column, "")).lower() in YES | NO for _, row in rows)


def _flags(row: dict, columns: list[str], where: str) -> list[str]:
    """The labels whose columns say yes."""
    found = []
    for column in columns:
        value = str(row.get(column, "")).strip().lower()
        if value in YES:
            found.append(column)
        elif value not in NO:
            raise UsageError(
                f"{where} has {value!r} in the column {column!r}: a label's own column holds 0 or "
                "1; a column with all labels of an image is called labels"
            )
    return found


def _labels(row: dict, column_and_separator: list[str], where: str) -> list[str]:
    """The labels in a cell, or in JSONL a list."""
    column, separator = column_and_separator
    value = row.get(column)
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = _list_in_a_cell(value)
    if isinstance(value, str):
        if not separator:
            value = [value]
        else:
            quoted = csv.reader([value], delimiter=separator, skipinitialspace=separator != " ")
            value = next(quoted, [])
    if not isinstance(value, list) or not all(isinstance(v, str) and _is_text(v) for v in value):
        raise UsageError(f"{where} has labels {str(value)[:60]!r}: write texts, as in cat|dog")
    return [label for v in value if (label := " ".join(v.split()))]


def _list_in_a_cell(value: str) -> object:
    """['cat', 'dog'], as pandas writes lists."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _separator(cells: list[object], path: Path) -> str:
    """What parts the labels in these cells; empty if each cell is one label."""
    texts = {cell for cell in cells if isinstance(cell, str) and not cell.startswith("[")}
    for separator in SEPARATORS:
        if any(separator in text for text in texts):
            log(f"{path}: labels are parted by {separator!r}")
            return separator
    # a space is in "traffic light", too: it parts labels if they then occur in many combinations
    words = {word for text in texts for word in text.split(" ")}
    if any(" " in text for text in texts) and len(words) < len(texts):
        log(f"{path}: labels are parted by spaces; if they should not be, end each with a |")
        return " "
    for sign in "/+&:_-":
        mixed = [t for t in texts if sign in t and {p.strip() for p in t.split(sign)} <= texts]
        if mixed:
            log(f"{path}: {min(mixed)!r} is read as one label; part labels by |, ; or a comma")
            break
    return ""


def _is_text(value: str) -> bool:
    """Lone halves of characters are legal JSON, but no text."""
    return value.encode(errors="replace").decode() == value
