"""JSONL -> which labels are on which image.

{"file_name": "a.jpg", "labels": ["cat", "dog"], "split": "train"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from labels.table import Row, images_from_rows
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
    rows = _rows(read_text(path), path)
    return images_from_rows(rows, path, image_path, NAME, options)


def _rows(text: str, path: Path) -> Iterator[Row]:
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
