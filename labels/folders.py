"""A folder per label -> which labels are on which image.

    photos/cat/a.jpg  photos/cat/b.jpg  photos/dog/b.jpg        b.jpg shows a cat and a dog

A picture lies in the folders of all its labels: as a link, or as a copy with the same name and the
same content. (Two pictures with the same name and other content are two.) Pictures beside the
folders have no label. If the folders are called train, val or test, the label folders lie in these.
"""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from labels.text import PICTURE, SPLITS
from util.errors import UsageError

NAME = "a folder per label"


def matches(path: Path) -> bool:
    """Whether pictures lie in folders below this one."""
    if not path.is_dir():
        return False
    folders = _folders(path)
    inner = [f for folder in folders for f in _folders(folder)] if _are_splits(folders) else folders
    return any(_pictures(folder) for folder in inner)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Images in order of name. Raises UsageError naming the file."""
    folders = _folders(path)
    parts = folders if _are_splits(folders) else [path]
    names, label_sets, splits, categories = [], [], [], set()
    for part in parts:
        found, labels = _read_part(part)
        categories.update(labels)
        for picture in sorted(found, key=lambda p: (p.name, p.parent.name)):
            names.append(picture.relative_to(path).as_posix())
            label_sets.append(tuple(found[picture]))
            splits.append(SPLITS.get(part.name.lower(), ""))
    divided = splits if parts is folders else None
    return AnnotatedImages(str(path), names, label_sets, sorted(categories), NAME, divided)


def _read_part(folder: Path) -> tuple[dict[Path, list[str]], list[str]]:
    """The first file of each picture with its labels; and all labels that have pictures."""
    found: dict[Path, list[str]] = {picture: [] for picture in _pictures(folder)}
    by_target = {picture.resolve(): picture for picture in found}
    by_name: dict[str, list[Path]] = {picture.name: [picture] for picture in found}
    inside = [(label.name, p) for label in _folders(folder) for p in _pictures(label)]
    for label, picture in sorted(inside, key=lambda each: each[1].is_symlink()):  # files first
        first = by_target.get(picture.resolve())
        copies = by_name.get(picture.name, []) if first is None else ()
        first = first or next((p for p in copies if filecmp.cmp(p, picture, False)), picture)
        by_target.setdefault(picture.resolve(), first)
        if first is picture:
            by_name.setdefault(picture.name, []).append(picture)
        found.setdefault(first, []).append(label)
    labels = list(dict.fromkeys(label for label, _ in inside))
    return {picture: list(dict.fromkeys(of)) for picture, of in found.items()}, labels


def _folders(path: Path) -> list[Path]:
    """Folders directly below, in order of name. Not deeper, so that no link can loop."""
    below = (Path(e.path) for e in os.scandir(path) if not e.name.startswith("."))
    return sorted(p for p in below if os.path.isdir(p))


def _are_splits(folders: list[Path]) -> bool:
    return bool(folders) and all(folder.name.lower() in SPLITS for folder in folders)


def _pictures(folder: Path) -> list[Path]:
    try:
        pictures = [Path(e.path) for e in os.scandir(folder) if PICTURE.search(e.name)]
    except OSError as error:
        raise UsageError(f"cannot list {folder} ({error.strerror})") from None
    for picture in pictures:
        if not os.path.isfile(picture):
            raise UsageError(f"{picture} is a broken link or not a file: delete it")
    return sorted(pictures)
