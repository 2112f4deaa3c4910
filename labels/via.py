"""VGG Image Annotator (VIA) 1 and 2: attributes of files or regions as labels, in JSON or CSV.

JSON    {"a.jpg9999": {"filename": "a.jpg", "size": 9999, "file_attributes": {"kind": "cat"},
        "regions": [{"shape_attributes": {...}, "region_attributes": {"animal": "dog"}}]}}
        or a project file with the same under "_via_img_metadata"
CSV     filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,
        region_attributes; attributes are JSON in a cell

Labels are read from one attribute; --label_columns names it if there are several. A checkbox is
{"cat": true, "dog": false}; others are a text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.entries import Entry, choose, images_from_entries
from labels.json_text import decode_json, peek_json
from labels.options import DEFAULTS, ReadOptions
from labels.text import read_head, read_text
from util.errors import UsageError

NAME = "VGG Image Annotator"
PROJECT = "_via_img_metadata"
CELLS = ("file_attributes", "region_attributes")
VIA_3 = {"project", "config", "attribute", "file", "view", "metadata"}
Files = list[tuple[str, str, list[dict]]]  # place, file name, dictionaries of attributes


def matches(path: Path) -> bool:
    """Whether this is VIA's CSV or JSON, also of VIA 3, by its columns or keys."""
    if not path.is_file():
        return False
    _, text = read_head(path)
    header = text.partition("\n")[0]
    if all(name in header for name in ("filename", "region_count", *CELLS)):
        return not text.startswith(("{", "["))
    top = peek_json(path)
    if not isinstance(top, dict) or not top:
        return False
    first = next(iter(top.values()))
    return any(key.startswith("_via_") for key in top) or top.keys() >= VIA_3 or _is_file(first)


def _is_file(value: object) -> bool:
    return isinstance(value, dict) and {"filename", "regions"} <= value.keys()


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and image or row."""
    _, text = read_head(path)
    files = _json_files(decode_json(path), path) if text.startswith("{") else _csv_files(path)
    used = [
        name
        for _, _, every in files
        for attributes in every
        for name, value in attributes.items()
        if value not in ("", None, {})
    ]
    wanted = choose(used, options.label_columns, path, "attribute")
    entries = (
        Entry(place, name, _labels(every, wanted, options.separator, f"{path}, {place},"))
        for place, name, every in files
    )
    return images_from_entries(entries, path, NAME)


def _json_files(content: dict, path: Path) -> Files:
    """The files of a project or of exported annotations."""
    if content.keys() >= VIA_3:
        raise UsageError(f"{path} is a project of VIA 3: VIA 2 is read; write a table instead")
    files: Files = []
    metadata = content.get(PROJECT, content)
    for key, file in metadata.items() if isinstance(metadata, dict) else [("", None)]:
        where = f"{path}, {key!r},"
        if not _is_file(file):
            raise UsageError(f"{where} is no file of VIA: it needs filename and regions")
        regions = file["regions"]
        if isinstance(regions, dict):  # VIA 1
            regions = list(regions.values())
        if not isinstance(regions, list) or not all(isinstance(r, dict) for r in regions):
            raise UsageError(f"{where} has regions that are no list")
        every = [file.get("file_attributes", {}), *(r.get(CELLS[1], {}) for r in regions)]
        if not all(isinstance(attributes, dict) for attributes in every):
            raise UsageError(f"{where} has attributes without names: export them again with VIA 2")
        files.append((repr(key), file["filename"], every))
    return files


def _csv_files(path: Path) -> Files:
    """The files of a CSV export; each region has a row."""
    found: dict[str, tuple[str, list[dict]]] = {}
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise UsageError(f"{path} is not CSV ({error})") from None
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number},"
        name = row.get("filename", row.get("#filename"))
        _, every = found.setdefault(name or "", (f"row {number}", []))
        for cell in CELLS:
            try:
                attributes = json.loads(row.get(cell) or "{}")
            except (ValueError, RecursionError):
                attributes = None
            if not isinstance(attributes, dict):
                raise UsageError(f"{where} has {row[cell]!r} in {cell}: JSON is needed, as VIA has")
            every.append(attributes)
    return [(place, name, every) for name, (place, every) in found.items()]


def _labels(
    every: list[dict], wanted: tuple[str, ...], separator: str | None, where: str
) -> Iterator[object]:
    """The labels in some attributes of a file and its regions."""
    for value in (attributes.get(name) for attributes in every for name in wanted):
        if isinstance(value, dict):
            if not all(isinstance(checked, bool) for checked in value.values()):
                raise UsageError(f"{where} has the checkbox {value}: true or false is needed")
            yield from (label for label, checked in value.items() if checked)
        elif isinstance(value, str) and separator:
            yield from (part for part in value.split(separator) if part.strip())
        elif isinstance(value, str) and any(sign in value for sign in "|;,\n"):
            raise UsageError(
                f"{where} has {value[:60]!r}: name what separates its labels with --separator"
            )
        elif value not in (None, ""):
            yield value
