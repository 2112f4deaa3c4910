"""A folder of WebDataset tars -> which labels are on which image.

Tars of data/make_shards.py have their labels in shards.json, as COCO json. For tars made elsewhere
the index is made on first use, see tar_index.py. Their labels are in one of these:

    0001.json   {"labels": ["cat", "dog"]}      columns as in table.py
    0001.cls    3                               a number, which needs --label_names, or a label
    0001.txt    cat, dog                        labels, but no sentences: those are captions

`--label_columns` chooses: cls, txt, or a key of the json. If the tars are called by their splits
(train-000.tar, val-000.tar), these are used.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from labels import coco
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.column_names import FILE_NAMES
from labels.nested import flat, has_labels
from labels.options import DEFAULTS, ReadOptions
from labels.rows import plain
from labels.table import images_from_table, table_from_rows
from labels.tar_index import Fields, find_tars, make_index
from labels.text import SPLITS, split_of
from util.errors import UsageError
from util.log import counted, log, some
from util.reading import MOST_TEXT, read_bytes, read_json

NAME = "WebDataset"
SMALL_WORDS = """a an the of with on in and is at to und ein eine der die das mit auf im de la le
    les un une el los las con en y avec sur dans et"""
SMALL = frozenset(SMALL_WORDS.split())  # words of sentences, hardly of labels


class _Kind(msgspec.Struct):
    """Whether an index was made for tars from elsewhere; all else in it is skipped."""

    made_elsewhere: bool = False


class _Tar(msgspec.Struct):
    """A tar."""

    file_name: str
    bytes: int


class _Sample(msgspec.Struct):
    """A picture, and the texts beside it."""

    file_name: str
    shard: Annotated[int, msgspec.Meta(ge=0)]
    fields: dict[str, Any]


class _Index(msgspec.Struct):
    """The index of tars from elsewhere, as `make_index` writes it."""

    shards: list[_Tar]
    images: list[_Sample]


def matches(path: Path) -> bool:
    """Whether this is a folder of tars, one tar, or an index."""
    if path.is_dir():
        return (path / SHARD_INDEX).is_file() or bool(find_tars(path) or _folders_of_tars(path))
    return path.name == SHARD_INDEX or path.suffix.lower() == ".tar"


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """The images in order of the tars. Raises UsageError."""
    if path.suffix.lower() == ".tar" and path.is_file():
        raise UsageError(f"{path} is one tar: name the folder that contains it, {path.parent}")
    folder = path if path.is_dir() else path.parent
    index = folder / SHARD_INDEX
    if not index.is_file() and not find_tars(folder):
        names = " and ".join(str(each) for each in _folders_of_tars(folder))
        raise UsageError(
            f"{folder} has its tars in {names}: name these with --image_path and --val_image_path"
        )
    if not index.is_file():
        make_index(folder)
    elif not _made_elsewhere(index):
        return coco.read_annotations(index, options)
    try:
        content = read_json(index, _Index, MOST_TEXT, any_number=True)  # a sample may have nan
        if any(image["shard"] >= len(content["shards"]) for image in content["images"]):
            raise ValueError("an image is in no tar")
    except ValueError as error:
        raise UsageError(f"{index} is damaged ({error}): delete it, and it is made again") from None
    _check_tars(folder, index, content["shards"])
    rows = [(image["file_name"], image["fields"]) for image in content["images"]]
    columns, options = _columns(rows, index, options)
    images = images_from_table(table_from_rows(columns, index), NAME, options)
    names = [Path(shard["file_name"]).stem for shard in content["shards"]]
    splits = _splits(names, folder)
    if splits:
        images = replace(images, splits=[splits[image["shard"]] for image in content["images"]])
    return images


def _folders_of_tars(path: Path) -> list[Path]:
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and split_of(p.name)]
    return [folder for folder in folders if find_tars(folder)]


def _made_elsewhere(index: Path) -> bool:
    try:
        return msgspec.json.decode(read_bytes(index, MOST_TEXT), type=_Kind).made_elsewhere
    except (msgspec.DecodeError, RecursionError):
        return False


def _check_tars(folder: Path, index: Path, shards: list[dict]) -> None:
    """Raise UsageError if a tar has come, gone or changed since the index was made."""
    sizes = {path.name: path.stat().st_size for path in find_tars(folder)}
    known = {shard["file_name"]: shard["bytes"] for shard in shards}
    if changed := sorted(name for name, _ in sizes.items() ^ known.items()):
        raise UsageError(
            f"{index} does not fit {changed[0]}, which was added, removed or changed since: delete "
            f"{index}, and it is made again"
        )


def _columns(
    rows: list[tuple[str, Fields]], index: Path, options: ReadOptions
) -> tuple[list[tuple[int, dict]], ReadOptions]:
    """Rows as those of a table, with the labels of each sample in one place. Raises UsageError."""
    texts = sorted({name for _, fields in rows for name in fields if not name.endswith("json")})
    table = []
    for number, (file_name, fields) in enumerate(rows, start=1):
        row: dict[str, object] = {"file_name": file_name}
        for name, value in fields.items():
            if not name.endswith("json"):
                row[name] = value
            elif isinstance(value, dict):
                value = flat(value, f"{index}, {file_name},")
                row |= {k: v for k, v in value.items() if plain(k) not in FILE_NAMES}
            else:
                row["labels"] = value
        table.append((number, row))
    keys = list(dict.fromkeys(key for _, row in table for key in row))
    others = [key for key in keys if key not in (*texts, "file_name")]
    options = replace(options, file_column="file_name")
    if options.label_columns:
        chosen = options.label_columns[0]
        return _renamed(table, chosen, options) if chosen in texts else (table, options)
    choices = [*texts, *(key for key in others if has_labels([key]))]
    if len(choices) > 1:
        raise UsageError(
            f"{index} has samples with {' and '.join(choices)}: name the one that has the labels "
            f"with --label_columns, as in --label_columns {choices[0]}"
        )
    if not choices:
        raise UsageError(
            f"{index}: nothing beside the pictures is called as labels are; their .json has "
            f"{some(others) or 'nothing'}: choose with --label_columns"
        )
    (chosen,) = choices
    if options.separator is None:
        _check_captions([row.get(chosen) for _, row in table], chosen, index)
    if lacking := sum(chosen not in row for _, row in table):
        what = counted(lacking, "picture has", "pictures have")
        log(f"{index}: {what} no {chosen}, so no label")
    return _renamed(table, chosen, options)


def _renamed(
    rows: list[tuple[int, dict]], column: str, options: ReadOptions
) -> tuple[list[tuple[int, dict]], ReadOptions]:
    """One column called labels, so that its numbers are those of labels."""
    named = [(number, {"file_name": r["file_name"], "labels": r.get(column)}) for number, r in rows]
    return named, replace(options, label_columns=("labels",))


def _check_captions(values: list[object], column: str, index: Path) -> None:
    """Raise UsageError if the texts are sentences."""
    texts = [value for value in values if isinstance(value, str)]
    long = [t for t in texts if len(w := t.lower().split()) > 3 and (SMALL & {*w} or t[-1] == ".")]
    if len(long) * 2 > len(texts):
        raise UsageError(
            f"{index}: {column} has sentences, as {long[0][:60]!r}: captions are no labels; if "
            "they are, say with --separator what is between them"
        )


def _splits(names: list[str], folder: Path) -> list[str] | None:
    """The split of each tar by its name, if there is more than one. Raises UsageError."""
    words = [re.split(r"[^a-z]+", name.lower()) for name in names]
    found = [next((SPLITS[w] for w in each if w in SPLITS), None) for each in words]
    if {"val", "test"} & {*found} and None in found:
        raise UsageError(
            f"{folder}: some tars are called by their split, but "
            f"{names[found.index(None)]}.tar is not: rename it, as in train-000.tar"
        )
    return found if len({*found}) > 1 and None not in found else None
