"""CSV -> which labels are on which image.

    file_name,labels,split              file_name,cat,dog
    a.jpg,cat|dog,train                 a.jpg,1,1
    b.jpg,,val                          b.jpg,0,0

Columns are separated by comma, semicolon, tab or |. The labels in a cell are separated by |,
semicolon, comma or, if none of these occurs, spaces. A label that contains the separator stands in
double quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from labels.table import FILE_COLUMNS, Row, images_from_rows
from labels.text import BOMS_UTF16, PICTURE, read_head, read_text
from util.errors import UsageError

NAME = "CSV"
DELIMITERS = ",;\t|"  # of columns


def matches(path: Path) -> bool:
    """Whether this is a file of text, other than XML."""
    head, text = read_head(path)
    binary = b"\0" in head and not head.startswith(BOMS_UTF16)
    return bool(text) and not text.startswith("<") and not binary


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and row."""
    rows = _rows(read_text(path), path)
    return images_from_rows(rows, path, image_path, NAME)


def _rows(text: str, path: Path) -> Iterator[Row]:
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
                cells.pop()  # spreadsheets add empty cells
            if len(cells) > len(header):
                raise UsageError(
                    f"{path}, row {number}, has {len(cells)} cells, its header {len(header)}: put "
                    "cells that contain a separator in double quotes, or separate labels with |"
                )
            cells += [""] * (len(header) - len(cells))
            yield number, {k: v.strip() for k, v in zip(header, cells, strict=True) if k}
    except csv.Error as error:
        what = "a cell of more than 131,072 letters" if "field" in str(error) else str(error)
        raise UsageError(
            f"{path}, row {start}, cannot be read ({what}): is a double quote missing?"
        ) from None


def _delimiter(first: str, path: Path) -> str:
    """The delimiter of the first line, which must be a header."""
    for delimiter in DELIMITERS:
        names = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        if any(name in FILE_COLUMNS for name in names) and len(names) > 1:
            repeated = {name for name in names if name and names.count(name) > 1}
            if repeated:
                raise UsageError(f"{path} has two columns {min(repeated)!r} in its first row")
            return delimiter
    shown = first if len(first) < 60 else first[:60] + "…"
    if first.strip().strip('"').lower() in FILE_COLUMNS:
        raise UsageError(f"{path} has no column of labels: its first row is {shown!r}")
    if any(PICTURE.search(cell.strip().strip('"')) for cell in re.split("[,;\t|]", first)):
        raise UsageError(
            f"{path} has no header: add a first row that names the columns, as in file_name,labels"
        )
    raise UsageError(
        f"{path} has no column file_name (its first row is {shown!r}): name the columns in the "
        "first row, separated by comma, semicolon or tab, as in file_name,labels"
    )
