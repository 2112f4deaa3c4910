"""JSONL -> which labels are on which image.

{"file_name": "a.jpg", "labels": ["cat", "dog"], "split": "train"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.json_text import RepeatedKeyError, loads
from labels.nested import flat
from labels.options import DEFAULTS, ReadOptions
from labels.rows import Table
from labels.table import Row, images_from_table, table_from_rows
from labels.text import read_head, read_text
from util.errors import UsageError

NAME = "JSONL"
COCO_PARTS = {"images", "annotations", "categories"}


def matches(path: Path) -> bool:
    """Whether the first line is a whole JSON object, and not one of COCO."""
    _, text = read_head(path)
    try:
        first = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and bool(first) and not first.keys() & COCO_PARTS


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and row."""
    return images_from_table(read_table(path, options), NAME, options, image_path)


def read_table(path: Path, options: ReadOptions) -> Table:
    """Raises UsageError naming file and row."""
    return table_from_rows(_rows(read_text(path), path), path)


def _rows(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = loads(line)
        except RepeatedKeyError as error:
            raise UsageError(f"{path}, row {number}, has {error} twice: keep one") from None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, row {number}, is not a JSON object on one line")
        yield number, flat(row, f"{path}, row {number},")
