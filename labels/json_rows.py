"""JSON that is no format of its own -> which labels are on which image. All of these are read:

    [{"file_name": "a.jpg", "labels": ["cat", "dog"], "split": "train"}]        records
    {"data": [{"file_name": "a.jpg", "labels": ["cat", "dog"]}]}                under any name
    [["a.jpg", ["cat", "dog"]]]                                                 pairs
    {"a.jpg": ["cat", "dog"]}   {"a.jpg": {"labels": "cat", "split": "val"}}    by picture
    {"cat": ["a.jpg"], "dog": ["a.jpg"]}                                        by label
    {"file_name": {"0": "a.jpg"}, "labels": {"0": ["cat", "dog"]}}              pandas' to_json,
    {"columns": ["file_name", "labels"], "data": [["a.jpg", ["cat", "dog"]]]}   its split, its
    {"0": {"file_name": "a.jpg", "labels": ["cat", "dog"]}}                     index
    {"train": any of these, "val": ...}                                         by split

The columns of a record mean what those of a CSV file do, see table.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from labels import coco
from labels.annotated import AnnotatedImages
from labels.json_text import decode_json, peek_json
from labels.nested import file_key, flat, has_labels
from labels.options import DEFAULTS, ReadOptions
from labels.rows import Table
from labels.table import images_from_table, table_from_rows
from labels.text import PICTURE, SPLITS, read_head
from util.errors import UsageError
from util.log import log

NAME = "JSON records"
LIST = re.compile(r"\[\s*\{")
OTHER_FORMATS = {"images", "annotations", "categories", "info", "licenses", "classes", "names"}


def matches(path: Path) -> bool:
    """Whether the file begins as one of the layouts above, or as a list of objects."""
    return bool(LIST.match(read_head(path)[1])) or _layout(peek_json(path)) is not None


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and entry."""
    data = decode_json(path)
    if isinstance(data, dict) and {"annotations", "categories"} <= data.keys():
        return coco.read(path, image_path, options)
    return images_from_table(_table(data, path), NAME, options)


def read_table(path: Path, options: ReadOptions) -> Table:
    """The records of a file. Raises UsageError."""
    return _table(decode_json(path), path)


def _table(data: object, path: Path) -> Table:
    records = _records(data, path)
    rows = ((i, flat(r, f"{path}, row {i},")) for i, r in enumerate(records, start=1))
    return table_from_rows(rows, path)


def _layout(data: object) -> str | None:
    """Which of the layouts this is; None for another format."""
    if isinstance(data, list):
        if data and isinstance(data[0], dict):
            return "records" if _is_record(data[0]) else None
        return "pairs" if data and all(_is_pair(entry) for entry in data) else None
    if not isinstance(data, dict) or not data:
        return None
    keys, first = list(data), next(iter(data.values()))
    if all(key.lower() in SPLITS for key in keys):
        return "splits" if isinstance(first, (list, dict)) else None
    if file_key(keys):
        same = {type(value) for value in data.values()}
        return "columns" if len(keys) > 1 and same in ({dict}, {list}) else None
    if {"columns", "data"} <= data.keys() or keys[0] == "columns":
        return "table"
    if sum(_is_picture(key) for key in keys) * 2 > len(keys):
        return "by picture"
    if _wrapped(data):
        return "wrapped"
    if OTHER_FORMATS & data.keys() or any(key.startswith("_") for key in keys):
        return None
    if all(isinstance(value, list) for value in data.values()):
        values = [v for value in data.values() for v in value]
        if values and all(_is_picture(v) for v in values):
            return "by label"
        texts = all(isinstance(v, str) for v in values) and not has_labels(keys)
        return "by picture" if texts else None
    return "records" if isinstance(first, dict) and _is_record(first) else None


def _records(data: object, path: Path) -> list[dict[str, object]]:
    """The records in any layout. Raises UsageError."""
    layout = _layout(data)
    if layout == "records":
        records = list(data.values()) if isinstance(data, dict) else data
    elif layout == "pairs":
        records = [{"file_name": name, "labels": labels} for name, labels in data]
    elif layout == "wrapped":
        records = _records(data[_wrapped(data)], path)
    elif layout == "columns":
        records = _from_columns(data, path)
    elif layout == "table":
        records = _from_table(data, path)
    elif layout == "by picture":
        if not any(map(_is_picture, data)):
            name, labels = next(iter(data.items()))
            log(f"{path}: {name!r} is read as the name of a picture with the labels {labels}")
        records = [_of_picture(name, labels, path) for name, labels in data.items()]
    elif layout == "by label":
        records = _by_label(data, path)
    elif layout == "splits":
        records = list(_by_split(data, path))
    else:
        raise UsageError(
            f"{path} is JSON, but neither COCO nor records: write a list of "
            '{"file_name": "a.jpg", "labels": ["cat", "dog"]}'
        )
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise UsageError(f"{path}, entry {i + 1}, is not an object as the others are")
    return records


def _is_record(value: dict) -> bool:
    """Whether an object has the name of a picture, and something else that may be its labels."""
    file = next((key for key, v in value.items() if _is_picture(v)), None)
    file = file or file_key(value)
    return file is not None and bool(value.keys() - {file, "id", "width", "height"})


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_picture(value[0])


def _is_picture(value: object) -> bool:
    return isinstance(value, str) and bool(PICTURE.search(value.partition("?")[0]))


def _wrapped(data: dict) -> str | None:
    """The one key whose value is records with labels, pairs, or labels by picture."""

    def holds_labels(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(_is_picture, value)) and _layout(value) == "by picture"
        layout = _layout(value) if isinstance(value, list) else None
        return layout == "pairs" or (layout == "records" and has_labels(value[0]))

    found = [key for key, value in data.items() if holds_labels(value)]
    return found[0] if len(found) == 1 else None


def _of_picture(name: str, labels: object, path: Path) -> dict[str, object]:
    """The record of a picture whose value is its labels, or holds them in named fields.

    Raises UsageError if the value is pictures.
    """
    if isinstance(labels, list) and labels and all(map(_is_picture, labels)):
        raise UsageError(f"{path}: {name!r} lists pictures, as {labels[0]!r}, but no labels")
    if isinstance(labels, dict):
        return {**labels, "file_name": name}
    return {"file_name": name, "labels": labels}


def _from_columns(data: dict, path: Path) -> list[dict[str, object]]:
    columns = {k: v if isinstance(v, dict) else dict(enumerate(v)) for k, v in data.items()}
    rows = list(columns[file_key(columns)])
    for name, column in columns.items():
        if column.keys() != set(rows):
            raise UsageError(f"{path} has columns of different lengths, for example {name!r}")
    return [{name: column[row] for name, column in columns.items()} for row in rows]


def _from_table(data: dict, path: Path) -> list[dict[str, object]]:
    names, rows = data.get("columns"), data.get("data")
    fits = isinstance(names, list) and isinstance(rows, list)
    if not fits or any(not isinstance(r, list) or len(r) != len(names) for r in rows):
        raise UsageError(f"{path} needs a list columns, and data with a value for each of them")
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def _by_label(data: dict, path: Path) -> list[dict[str, object]]:
    log(f"{path}: each label lists its pictures, for example {next(iter(data))!r}")
    labels_of: dict[str, list[str]] = {}
    for label, names in data.items():
        for name in dict.fromkeys(names):
            labels_of.setdefault(name, []).append(label)
    return [{"file_name": name, "labels": labels} for name, labels in labels_of.items()]


def _by_split(data: dict, path: Path) -> Iterator[dict[str, object]]:
    for split, part in data.items():
        if isinstance(part, list) and part and all(isinstance(v, str) for v in part):
            raise UsageError(
                f"{path} lists the pictures of {split}, but no labels: name the file that has them"
            )
        if not part:
            continue
        for record in _records(part, path):
            own = record.get("split", split)
            if SPLITS.get(str(own).lower()) != SPLITS[split.lower()]:
                raise UsageError(f"{path} has an image of the split {own!r} under {split!r}")
            yield {**record, "split": split}
