"""Where the labels of an image folder are, if the user does not say: find_labels.

In this order:

    shards.json in the folder
    labels.csv (.tsv, .jsonl) in the folder or beside it; metadata.jsonl or _classes.csv in it
    the folder itself, if its layout is that of a data set other than a folder per label
    the one table or json file that lists pictures of the folder: in it, beside it or above it
    the folder above, if that has the layout of a data set: VOC2007 for VOC2007/JPEGImages
    the folder itself, if it has a folder per label

Tables such as train.csv and val.csv, beside each other, are one data set: their folder is given.
Of other files, what says most decides: the folder's name in the file's name, train or val in it,
COCO's instances_. If nothing decides, the user has to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from labels import folders, split_files
from labels.annotated import SHARD_INDEX
from labels.listing import MAYBE, NOT, SURELY, Pictures, is_table
from labels.read import FORMATS
from labels.text import means_data, split_of
from util.errors import UsageError
from util.files import is_file, is_ignored, is_picture, walk
from util.log import log, some
from util.names import key, stem

TABLES = (".csv", ".tsv", ".jsonl")
IN_FOLDER = ["metadata.jsonl", "_classes.csv"]  # as Hugging Face and Roboflow write them
BESIDE = ("", "annotations", "labels", "metadata")  # folders to look in, beside and above
OWN = """bad_images missing_images label_issues label_influence labels_to_merge nonfinite_batch log
    predictions pr_curves sidecars skipped_images unreadable"""
# other files of ours have names that users give, too: what lies beside them tells
RUN = ("best.pt", "last.pt", "model.safetensors")
OWN_BESIDE = {"images.csv": RUN, "config.json": RUN, "metrics.json": ("evaluate.log",)}
OWN_BESIDE |= {"sample.json": ("predictions.jsonl",)}
FOR_TOOLS = ("label_studio", "fiftyone")  # folders beside sample.json
# of the page of label issues, with the (1) of browsers, and of annotate.py
CORRECTED = re.compile(r"labels\.(corrected|annotated).*\.csv", re.IGNORECASE)
NOT_LABELS = re.compile(f"submission|^({'|'.join(OWN.split())})$", re.IGNORECASE)
ABOUT_ONE = (".json", ".txt", ".xml")  # a file of the same stem is about that picture
MANY = 20  # files that list pictures: more are one file for each picture


def find_labels(image_path: Path, prefer: str, not_labels: Collection[Path] = ()) -> Path:
    """The labels of an image folder or of one image. prefer: train or val, of several files.

    not_labels: files that hold something else. Raises UsageError if there are no labels, or several
    files that may be meant.
    """
    found = _find(image_path, prefer, frozenset(map(os.path.realpath, not_labels)))
    _say_corrected(image_path, found)
    return found


def _say_corrected(image_path: Path, found: Path) -> None:
    """Say which tables of corrected labels are there and not used."""
    folder = Path(os.path.abspath(image_path if image_path.is_dir() else image_path.parent))
    tables = [t for place in (folder, folder.parent) for t in _tables_in(place)]
    unused = [_shown(t) for t in dict.fromkeys(tables) if _is_corrected(t)]
    unused = [name for name in unused if name != _shown(found.absolute())]
    if unused:
        log(f"labels: {found}; not used: {some(unused)}: name it with --annotations if it is meant")


def _is_corrected(table: Path) -> bool:
    return CORRECTED.fullmatch(table.name) is not None


def _find(image_path: Path, prefer: str, not_labels: frozenset[str]) -> Path:
    """The labels, see `find_labels`."""
    if not image_path.exists():
        raise UsageError(f"{image_path} does not exist: name the images with --image_path")
    folder = Path(os.path.abspath(image_path if image_path.is_dir() else image_path.parent))
    if (image_path / SHARD_INDEX).is_file():
        return image_path / SHARD_INDEX
    pictures, below = _look_into(image_path)
    above = folder.parents[:2]
    named = _named_labels(folder, pictures, not_labels)
    if len(named) == 1 and pictures.are_listed_in(named[0]) == SURELY:
        return _relative(named[0])
    if image_path.is_dir() and (data_set := _data_set_in(image_path)):
        return data_set
    tables: list[Path] = []
    for near in ([*below, *_tables_in(above[0])], _tables_in(above[1]) if above[1:] else []):
        near = [t for t in dict.fromkeys(near) if _may_have_labels(t, pictures, not_labels)]
        sure = {table: pictures.are_listed_in(table) for table in near}
        best = max([MAYBE, *sure.values()])
        listing = [t for t in near if sure[t] == best]
        if found := _choose(listing, folder, prefer):
            return _relative(found)
        tables += near
    if not image_path.is_dir():  # what lists its neighbours
        return _find(_relative(folder), prefer, not_labels)
    if means_data(folder.name) and _is_data_set(above[0]):
        return _relative(above[0])
    if named and pictures.are_listed_in(named[0]) == NOT:
        return _relative(named[0])  # its reader says what is wrong
    if folders.matches(image_path):
        return image_path
    raise UsageError(_nothing_found(image_path, pictures, tables, not_labels))


def _data_set_in(folder: Path) -> Path | None:
    """The folder, or the one below it that alone has pictures, if it is in a known layout."""
    for place in dict.fromkeys((folder, folders.only_folder(folder))):
        if _is_data_set(place):
            return place
    return None


def _is_data_set(folder: Path) -> bool:
    return any(each.matches(folder) for each in FORMATS if each not in (folders, split_files))


def _look_into(image_path: Path) -> tuple[Pictures, list[Path]]:
    """The pictures in a folder, or the one given, and the tables in the folder, at any depth."""
    if not image_path.is_dir():
        return Pictures([image_path.name]), _tables_in(image_path.parent.absolute())
    names, tables = [], []
    for folder, entries in walk(image_path):
        for entry in entries:
            if is_picture(entry.name):
                names.append(entry.name)
            elif is_table(entry.name) and is_file(entry):
                tables.append(image_path.absolute() / folder / entry.name)
    return Pictures(names), tables


def _tables_in(place: Path) -> list[Path]:
    """The tables directly in a folder and in its folder annotations, in order of name."""
    found = []
    for name in BESIDE:
        try:
            entries = sorted(os.scandir(place / name), key=lambda entry: entry.name)
        except OSError:
            continue
        tables = [e for e in entries if is_table(e.name) and not is_ignored(e.name)]
        found += [Path(e.path) for e in tables if e.is_file()]
    return found


def _may_have_labels(table: Path, pictures: Pictures, not_labels: frozenset[str]) -> bool:
    """False for our own output, for Kaggle's sample submissions, and for a.json beside a.jpg."""
    if NOT_LABELS.search(stem(table.name)) or os.path.realpath(table) in not_labels:
        return False
    if _is_own(table):
        return False
    return table.suffix not in ABOUT_ONE or key(stem(table.name)) not in pictures.stems


def _is_own(table: Path) -> bool:
    """Whether what lies beside a file says that this program wrote it."""
    if table.parent.name in FOR_TOOLS:
        return (table.parent.parent / "sample.json").exists()
    return any((table.parent / name).exists() for name in OWN_BESIDE.get(table.name, ()))


def _named_labels(folder: Path, pictures: Pictures, not_labels: frozenset[str]) -> list[Path]:
    """labels.csv or another known name in the folder, or labels.csv beside it.

    Raises UsageError for two in one place.
    """
    for place in (folder, folder.parent):
        names = [f"labels{suffix}" for suffix in TABLES] + (IN_FOLDER if place is folder else [])
        tables = [t for name in names if (t := place / name).is_file()]
        tables = [t for t in tables if os.path.realpath(t) not in not_labels]
        if len(tables) > 1:
            tables = [t for t in tables if pictures.are_listed_in(t) > NOT] or tables
        if len(tables) > 1:
            raise UsageError(_several(tables))
        if tables:
            return tables
    return []


def _choose(tables: list[Path], folder: Path, prefer: str) -> Path | None:
    """The one that is meant, by its name. Raises UsageError if several may be meant."""
    left = tables
    instances = [t for t in left if t.name.startswith("instances")]
    if instances:  # COCO has captions and keypoints of the same images
        left = [t for t in left if t in instances or t.suffix != ".json"]
    words = _words(folder.name)
    own = [t for t in left if words and words <= _words(t.stem)]
    if len(left) > 1 and own:
        left = own
    splits = {t: split_files.split_in(t.stem) for t in left}
    wanted = [t for t in left if splits[t] == (split_of(folder.name) or prefer)]
    together = len({t.parent for t in left}) == 1  # else they may be parts of one set
    if len(left) > 1 and together and all(splits.values()) and not split_of(folder.name):
        parts = split_files.split_files(left[0].parent)
        if parts and {*parts.values()} <= {*left}:
            if others := [_shown(t) for t in tables if t not in parts.values()]:
                log(f"labels: not used: {some(others)}")
            return left[0].parent
    if len(left) > 1 and len(wanted) == 1 and together and all(splits.values()):
        left = wanted
    if len(left) > 1:
        raise UsageError(_several(left))
    others = [_shown(t) for t in tables if t not in left and not _is_corrected(t)]
    if left and others:
        log(f"labels: {_shown(left[0])}; not used: {some(others)}")
    return left[0] if left else None


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", name.lower()) if word}


def _several(tables: list[Path]) -> str:
    names = ", ".join(_shown(t) for t in tables[:MANY]) + (", …" if len(tables) > MANY else "")
    return f"{len(tables)} files may have the labels, {names}: name the one with --annotations"


def _nothing_found(
    image_path: Path, pictures: Pictures, tables: list[Path], not_labels: frozenset[str]
) -> str:
    about = f"no labels of the images in {image_path}: no annotations folder beside it"
    about += ", no table that lists them in, beside or above it, and no folders named as labels"
    if not pictures.names:
        about = f"{image_path} contains no pictures, and there are no labels in it or beside it"
    if tables:
        shown = [f"{_shown(t)} ({pictures.what_lists(t)})" for t in tables[:MANY]]
        about += f"; overlooked: {some(shown)}"
    if not_labels:
        shown = [_shown(Path(name)) for name in sorted(not_labels)]
        about += f"; another flag names {some(shown)}"
    return f"{about}; name the labels with --annotations"


def _shown(path: Path) -> str:
    return str(_relative(path))


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
