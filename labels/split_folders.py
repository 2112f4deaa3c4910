"""A label file in each split folder -> which labels are on which image, with splits.

    train/_classes.csv   valid/_classes.csv   test/_classes.csv         Roboflow
    train/metadata.jsonl   test/metadata.jsonl                          Hugging Face's imagefolder
    train/_annotations.coco.json   valid/_annotations.coco.json         COCO in parts

All tables are read as one, so that separator and columns are the same in each. Their file names
are relative to their own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from labels import (
    coco,
    csv_table,
    fiftyone,
    imaterialist,
    json_rows,
    jsonl,
    label_studio,
    openimages,
    spreadsheet,
    via,
)
from labels.annotated import AnnotatedImages
from labels.columns import find_file_column
from labels.options import DEFAULTS, ReadOptions
from labels.rows import Table
from labels.table import images_from_table
from labels.text import means_data, read_head, split_of
from util.errors import UsageError
from util.files import is_ignored, is_picture, suffix_of
from util.log import log

NAME = "a label file in each split folder"
KNOWN = (
    "_classes.csv",
    "metadata.csv",
    "metadata.jsonl",
    "metadata.parquet",
    "_annotations.coco.json",
)
ELSEWHERE = re.compile(r"[\\/]|\w+:")  # a name from the root, of a drive, or a URL
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
TABLES = (spreadsheet, json_rows, jsonl, csv_table)
# of a file: the first one that matches reads, as in read.py
FORMATS = (label_studio, via, fiftyone, openimages, imaterialist, *TABLES[:-1], coco, csv_table)


@dataclass(frozen=True)
class Part:
    """The label file of a split. folder: its own, relative to the folder of all; "" if it is that.

    images: a folder in which its file names may be, if they are not in its own.
    """

    folder: str
    split: str
    file: Path
    images: str = ""


def matches(path: Path) -> bool:
    """Whether a split folder in this folder has a label file."""
    return path.is_dir() and any(_label_files(folder) for folder in _split_folders(path))


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Images in order of split folder and file. Raises UsageError naming file and row."""
    parts = list(_parts(path))
    formats = {part: format_of(part.file) for part in parts}
    if not {*formats.values()} <= {*TABLES}:
        return _join([_read_part(part, formats[part], options) for part in parts], path)
    return read_tables(path, parts, NAME, options, image_path)


def read_tables(
    path: Path,
    parts: list[Part],
    kind: str,
    options: ReadOptions = DEFAULTS,
    image_path: Path | None = None,
) -> AnnotatedImages:
    """The tables of all parts, read as one. Raises UsageError naming file and row."""
    formats = [format_of(part.file) for part in parts]
    tables = [f.read_table(part.file, options) for f, part in zip(formats, parts, strict=True)]
    if {*formats} == {csv_table}:
        _check_columns(tables)
    files = {
        _place(table, part, path, options, image_path)
        for part, table in zip(parts, tables, strict=True)
        if len(table)
    }
    if len(files) == 1:
        options = replace(options, file_column=files.pop())
    columns = dict.fromkeys(name for table in tables for name in table.cells)
    empty = [[None] * len(table) for table in tables]
    cells = {
        name: [
            cell
            for table, nothing in zip(tables, empty, strict=True)
            for cell in table.cells.get(name, nothing)
        ]
        for name in columns
    }
    numbers = [
        f"{number} of {part.file.relative_to(path).as_posix()}"
        for part, table in zip(parts, tables, strict=True)
        for number in table.numbers
    ]
    if not options.split_column:
        options = replace(options, split_column="split")
    return images_from_table(Table(path, cells, numbers), kind, options)


def format_of(file: Path) -> ModuleType:
    found = next((each for each in FORMATS if each.matches(file)), None)
    if found is None:
        raise UsageError(f"{file} is not a table of labels: repair it, or move it elsewhere")
    return found


def splits_by_folder(images: AnnotatedImages) -> AnnotatedImages:
    """With splits, if it has none and all files lie in the folders of at least two splits."""
    if images.splits is not None:
        return images
    folders = [name.replace("\\", "/").rpartition("/")[0] for name in images.file_names]
    split = {
        folder: next((s for part in folder.split("/") if (s := split_of(part))), None)
        for folder in set(folders)
    }
    if None in split.values() or len({*split.values()}) < 2:
        return images
    log(f"{images.source}: the folders of the files are their splits: {', '.join(sorted(split))}")
    return replace(images, splits=[split[folder] for folder in folders])


def _split_folders(path: Path) -> list[Path]:
    """The folders for train, val or test, here or in the one folder here that holds data."""
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and not is_ignored(p.name)]
    found = [folder for folder in folders if split_of(folder.name)]
    if not found and len(folders) == 1 and means_data(folders[0].name):
        return _split_folders(folders[0])
    return found


def _label_files(folder: Path) -> list[Path]:
    """The files in a folder that are known to have labels, or else those that list pictures."""
    files = [p for p in sorted(folder.iterdir()) if not is_ignored(p.name) and p.is_file()]
    if known := [p for p in files if p.name.lower() in KNOWN]:
        return known
    stems = {p.stem for p in files if is_picture(p.name)}  # a.json is about a.jpg alone
    listing = [p for p in files if suffix_of(p.name) in SUFFIXES and p.stem not in stems]
    return [p for p in listing if _names_pictures(p)]


def _names_pictures(path: Path) -> bool:
    return any(is_picture(word) for word in re.split(r"[^\w.-]+", read_head(path)[1]))


def _parts(path: Path) -> Iterator[Part]:
    """Raises UsageError for a folder with several label files, and for one beside the folders."""
    if beside := _label_files(path):
        inner = next(file for folder in _split_folders(path) for file in _label_files(folder))
        raise UsageError(
            f"{path} contains {beside[0].name}, and {inner.parent.name} contains {inner.name}: "
            "name one with --annotations, or move the one that is not meant"
        )
    for folder in _split_folders(path):
        files = _label_files(folder)
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UsageError(f"{folder} contains {names}: name one with --annotations")
        if not files:
            log(f"{folder} has no file of labels: it is left out")
            continue
        yield Part(folder.relative_to(path).as_posix(), split_of(folder.name), files[0])


def _check_columns(tables: list[Table]) -> None:
    """Raise UsageError if one table has a column that another lacks: it may be a label."""
    for table in tables:
        if odd := sorted(table.cells.keys() ^ tables[0].cells.keys()):
            raise UsageError(
                f"only one of {tables[0].path} and {table.path} has the column {odd[0]!r}"
            )


def _place(
    table: Table, part: Part, path: Path, options: ReadOptions, image_path: Path | None
) -> str:
    """Put the folder before the file names, and give all rows its split.

    Returns the column of file names. Raises UsageError.
    """
    column = find_file_column(table, options, image_path)
    names = table.cells[column]
    splits = table.cells.get("split", [part.split] * len(table))
    for number, split in zip(table.numbers, splits, strict=True):
        if not options.split_column and split_of(str(split)) != part.split:
            raise UsageError(
                f"{table.path}, row {number}, has the split {split!r}, its folder or name says "
                f"{part.split}"
            )
    table.cells["split"] = splits
    folder = part.folder
    if part.images and (path / part.images / str(names[0])).is_file():
        folder = part.images
    if folder:
        table.cells[column] = [
            f"{folder}/{n}" if isinstance(n, str) and n and not ELSEWHERE.match(n) else n
            for n in names
        ]
    return column


def _read_part(part: Part, table: ModuleType, options: ReadOptions) -> AnnotatedImages:
    images = table.read(part.file, None, options)
    names = [f"{part.folder}/{name}" for name in images.file_names]
    return replace(images, file_names=names, splits=[part.split] * len(names))


def _join(parts: list[AnnotatedImages], path: Path) -> AnnotatedImages:
    unknown = [labels for part in parts for labels in part.unknown_sets()]
    return AnnotatedImages(
        str(path),
        [name for part in parts for name in part.file_names],
        [labels for part in parts for labels in part.label_sets],
        sorted({label for part in parts for label in part.categories}),
        NAME,
        [split for part in parts for split in part.splits],
        unknown=unknown if any(unknown) else None,
    )
