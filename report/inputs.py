"""Which images sample.py is given: their common folder, and their names in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from report.sidecars import SUFFIX
from util.errors import UsageError
from util.files import is_file, is_picture, left_out, suffix_of, walk
from util.log import log, some


@dataclass(frozen=True)
class Inputs:
    """Images. root: as it is shown; full_root: in full, the same for all ways to name it."""

    root: Path
    full_root: Path
    names: list[str]  # relative to root, with /, each once
    named: frozenset[str]  # those that were given by name, not in a folder

    @property
    def is_one(self) -> bool:
        """Whether a single image was given, by name."""
        return len(self.names) == len(self.named) == 1


def list_inputs(given: list[Path]) -> Inputs:
    """The files given, and the pictures at any depth in the folders given.

    Pictures that sample.py has drawn are left out. Raises UsageError.
    """
    for path in given:
        if not path.is_dir() and not path.is_file():
            raise UsageError(f"there is no image {path}")
    folders = [path if path.is_dir() else path.parent for path in given]
    if len(set(folders)) == 1:
        root, inside = folders[0], [""] * len(given)
    else:
        full = [_absolute(folder) for folder in folders]
        root = common = Path(os.path.commonpath(full))
        inside = [path.relative_to(common).as_posix() for path in full]
        inside = ["" if path == "." else path for path in inside]
        if not any(path.is_absolute() for path in given):
            root = Path(os.path.relpath(common))
    names, named = [], set()
    for path, folder in zip(given, inside, strict=True):
        found = list(_pictures_in(path)) if path.is_dir() else [path.name]
        found = [f"{folder}/{name}" if folder else name for name in found]
        names += found
        named |= set() if path.is_dir() else {*found}
    return Inputs(root, Path(os.path.realpath(root)), list(dict.fromkeys(names)), frozenset(named))


def _absolute(folder: Path) -> Path:
    """`..` after a link means the folder above its target."""
    return Path((os.path.realpath if ".." in folder.parts else os.path.abspath)(folder))


def _pictures_in(path: Path) -> Iterator[str]:
    """Names relative to the folder, with /. Raises UsageError if there are none."""
    others, some = [], False
    for folder, entries in walk(path):
        for entry in filter(is_file, entries):
            if not is_picture(entry.name):
                others += [entry.name] if suffix_of(entry.name) != SUFFIX else []  # side-cars
            else:
                some = True
                yield f"{folder}/{entry.name}" if folder else entry.name
    about = left_out(others)
    if not some:
        what = f": {about}" if about else ""
        raise UsageError(f"there are no images in the folder {path}{what}")
    if about:
        log(f"{path}: {about}")


@contextlib.contextmanager
def left_out_if_gone() -> Iterator[None]:
    """Log that an image cannot be drawn: it was there when it was labelled."""
    try:
        yield
    except UsageError as error:
        log(f"note: {error}; not drawn")


def check_outcome(inputs: Inputs, failed: dict[str, str], num_read: int) -> None:
    """Raise UsageError if an image given by name cannot be read, or if none can."""
    named = [why for name, why in failed.items() if name in inputs.named]
    if named:
        raise UsageError(some(named, 3))
    if not num_read:
        raise UsageError("none of the images can be read")
