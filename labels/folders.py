"""A folder per label -> which labels are on which image.

    photos/cat/a.jpg  photos/cat/b.jpg  photos/dog/b.jpg        b.jpg shows a cat and a dog

A picture lies in the folders of all its labels: as a link, or as a copy with the same name and the
same content. (Two pictures with the same name and other content are two.) Pictures beside the
folders have no label. If the folders are called train, val or test, the label folders lie in these.

Names that mean data, as images or train-jpg do, are no labels, and one folder alone is none. A
folder with pictures in folders of its own stops the reader: is cat in animal/cat a label?
"""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.label_numbers import name_numbers
from labels.options import ReadOptions
from labels.text import SPLITS, means_data, split_of
from util.errors import UsageError
from util.files import is_file, is_folder, is_ignored, is_picture, left_out, walk
from util.log import log, some

NAME = "a folder per label"
HASH = re.compile(r"[0-9a-f]{2,3}", re.IGNORECASE)
UNLABELLED = re.compile("_?unlabell?ed", re.IGNORECASE)  # as FiftyOne calls that folder
COPY = re.compile(
    r"(.+?)(?:\s*\(\d+\)|[\s_-]+(?:copy|kopie|copie|old|backup|bak|new)(?:[\s_]*\(?\d+\)?)?)",
    re.IGNORECASE,
)
JOINED = re.compile(r"\s+(?:and|und|et)\s+|[_+,&]")  # between labels in one name
TABLE = "or write a table of the pictures and their labels (--annotations)"


def matches(path: Path) -> bool:
    """Whether pictures lie in folders below this one whose names can be labels."""
    if not path.is_dir():
        return False
    names = {folder.name for part, _ in _parts(path) for folder in _folders(part)}
    return len(names) > 1 and not all(map(means_data, names))


def read(path: Path, image_path: Path | None, options: ReadOptions) -> AnnotatedImages:
    """Images in order of name. Raises UsageError naming the folder or file."""
    names, label_sets, splits = [], [], []
    for part, split in _parts(path):
        found = _read_part(part)
        for picture in sorted(found, key=lambda p: (p.name, p.parent.name)):
            names.append(picture.relative_to(path).as_posix())
            label_sets.append(found[picture])
            splits.append(split)
    label_sets = [tuple(labels) for labels in name_numbers(label_sets, path, options)]
    categories = sorted({label for labels in label_sets for label in labels})
    log(f"{path}: the labels are the names of folders, {some(categories)}")
    others = (e.name for _, entries in walk(path) for e in entries if not is_picture(e.name))
    if sentence := left_out(others):
        log(f"{path}: {sentence}")
    divided = splits if any(splits) else None
    return AnnotatedImages(str(path), names, label_sets, categories, NAME, divided)


def _parts(path: Path) -> list[tuple[Path, str]]:
    """The folders that contain label folders, each with its split or with an empty text."""
    top = only_folder(path)
    folders = _folders(top)
    if folders and all(split_of(folder.name) for folder in folders):
        return [(only_folder(folder), split_of(folder.name)) for folder in folders]
    return [(top, "")]


def only_folder(path: Path) -> Path:
    """`path`, or the folder in it that alone has label folders: photos/archive/{cat,dog}."""
    while len(folders := _folders(path)) == 1 and not any(_pictures(path)):
        if not _folders(folders[0]):
            break
        path = folders[0]
    return path


def _read_part(folder: Path) -> dict[Path, list[str]]:
    """The first file of each picture with its labels."""
    labels = _folders(folder)
    _check_names(folder, labels)
    found: dict[Path, list[str]] = {picture: [] for picture in sorted(_pictures(folder))}
    by_target = {os.path.realpath(picture): picture for picture in found}
    by_name: dict[str, list[Path]] = {picture.name: [picture] for picture in found}
    inside = [(label.name, p) for label in labels for p in _pictures_of_label(label)]
    _check_hashes(folder, inside)
    for label, picture in sorted(inside, key=lambda each: each[1].is_symlink()):  # files first
        first = by_target.get(picture.resolve())
        copies = by_name.get(picture.name, []) if first is None else ()
        first = first or next((p for p in copies if filecmp.cmp(p, picture, False)), picture)
        label = "" if UNLABELLED.fullmatch(label) else label
        by_target.setdefault(picture.resolve(), first)
        if first is picture:
            by_name.setdefault(picture.name, []).append(picture)
        found.setdefault(first, []).extend([label] if label else [])
    return {picture: list(dict.fromkeys(of)) for picture, of in found.items()}


def _check_names(folder: Path, labels: list[Path]) -> None:
    """Raise UsageError if some of the folders that would be labels hold data by their names."""
    data = [n for n in (label.name for label in labels) if means_data(n)]
    data = [name for name in data if not UNLABELLED.fullmatch(name)]
    if data:
        others = [label.name for label in labels if not means_data(label.name)]
        raise UsageError(
            f"{folder} contains {some(data)}, which by its name holds data and is no label, beside "
            f"{some(others) or 'no label folders'}: rename or move what does not belong, {TABLE}"
        )
    _check_copies(folder, {label.name for label in labels})


def _check_copies(folder: Path, names: set[str]) -> None:
    """Raise UsageError for names made of others: cat_train, cat - Copy, or cat_dog beside cat."""
    first: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
        rest = " ".join(word for word in words if word not in SPLITS)
        if len(words) > 1 and first.setdefault(rest, name) != name:
            raise UsageError(
                f"{folder} contains {first[rest]} and {name}: are these splits of one label? "
                f"Make folders train and test, with a folder per label in each, {TABLE}"
            )
        copy = COPY.fullmatch(name)
        if copy and copy[1] in names:
            raise UsageError(
                f"{folder} contains {copy[1]} and {name}: is one a copy of the other? Delete it, "
                "move its pictures, or give it another name"
            )
        parts = [part.strip() for part in JOINED.split(name)]
        if len(parts) > 1 and names.issuperset(parts):
            raise UsageError(
                f"{folder} contains {name}, beside {some(parts)}: is it a label of its own, or do "
                f"its pictures have these labels? Give it another name, put its pictures into the "
                f"folders of their labels, {TABLE}"
            )


def _check_hashes(folder: Path, inside: list[tuple[str, Path]]) -> None:
    """Raise UsageError for folders such as 0a, whose pictures begin like it: 0a94f1.jpg."""
    names = sorted({name for name, _ in inside})
    if (
        len(names) > 7
        and len({len(name) for name in names}) == 1
        and all(HASH.fullmatch(name) for name in names)
        and not all(name.isalpha() for name in names)
        and all(picture.name.lower().startswith(name.lower()) for name, picture in inside)
    ):
        raise UsageError(
            f"{folder} has folders that are called as their pictures begin, such as {names[0]}: "
            "they are no labels; write a table of the pictures and their labels (--annotations)"
        )


def _pictures_of_label(label: Path) -> list[Path]:
    """The pictures of a label folder. Raises UsageError if there are more in folders of its own."""
    for inner in _folders(label):
        count = sum(1 for _ in _all_pictures(inner))
        raise UsageError(
            f"{label} has folders of its own, for example {inner.name} with {count:,} pictures: "
            f"are they labels, parts of {label.name}, or is {label.name} no label? Move the "
            f"pictures up, name another folder with --image_path, {TABLE}"
        )
    return sorted(_pictures(label))


def _folders(path: Path) -> list[Path]:
    """The folders directly below that contain pictures, in order of name."""
    here = path.resolve()
    try:
        below = [Path(e.path) for e in os.scandir(path) if not is_ignored(e.name) and is_folder(e)]
    except OSError as error:
        raise UsageError(f"cannot list {path} ({error.strerror})") from None
    below = [folder for folder in below if not here.is_relative_to(folder.resolve())]  # a link up
    return sorted(folder for folder in below if next(_all_pictures(folder), None))


def _pictures(folder: Path) -> Iterator[Path]:
    """The pictures directly in a folder."""
    return _all_pictures(folder, deep=False)


def _all_pictures(folder: Path, deep: bool = True) -> Iterator[Path]:
    """The pictures in a folder, at any depth. Raises UsageError for a broken link."""
    for _, entries in walk(folder):
        for entry in entries:
            if is_picture(entry.name):
                if not is_file(entry):
                    raise UsageError(f"{entry.path} is a broken link or not a file: delete it")
                yield Path(entry.path)
        if not deep:
            return
