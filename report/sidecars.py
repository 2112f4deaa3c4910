"""Predicted labels as tags in XMP side-cars beside the photos, which are only read.

The side-car of photo.jpg is photo.jpg.xmp, as darktable, digiKam, Immich and PhotoPrism name it:
photo.jpg and photo.cr2 have one each. Only if there is no such file but a photo.xmp (Adobe's name),
and no other file photo.*, this photo.xmp is the photo's side-car: a second file would hide it.

sidecars.jsonl in the output folder lists what was written. A photo that it lists is left alone, so
a tag that the user deletes does not come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.embedded_tags import embedded_tags
from images.xmp import EMPTY, add_tags, check_tag, has_hierarchy
from util.errors import RunError, UsageError
from util.files import suffix_of, write_atomically
from util.log import counted, log, some
from util.names import key, stem
from util.reading import check_ordinary, read_bytes

RECORD, SUFFIX = "sidecars.jsonl", ".xmp"
MOST = 1 << 26  # bytes of a side-car: darktable's have 100 kB, with all steps of an edit
LONGEST = 255  # bytes of a file name
NOTES = 5  # side-cars that cannot be used: the first ones are named


def check_tags(labels: Iterable[str]) -> None:
    """Raise UsageError for a label that XMP cannot hold."""
    for label in labels:
        if problem := check_tag(label):
            raise UsageError(f"the label {label!r} cannot be a tag: {problem}")


class _Listing:
    """The files of a folder. by_photo: photo.jpg -> photo.jpg.xmp; by_stem: photo -> photo.*."""

    def __init__(self, names: list[str]) -> None:
        names = [name for name in names if suffix_of(name)]
        cars = [name for name in sorted(names) if suffix_of(name) == SUFFIX]  # .XMP before .xmp
        self.by_photo = {name[: -len(SUFFIX)]: name for name in cars}
        self.by_stem = dict[str, list[str]]()
        for name in names:
            self.by_stem.setdefault(key(stem(name)), []).append(name)


@dataclass
class SideCars:
    """The side-cars of photos in a folder. Use `write`, then `report`.

    root: the folder of the photos. record: sidecars.jsonl, or None to keep none.
    """

    root: Path
    record: Path | None
    num_changed: int = 0
    num_complete: int = 0  # those that had all tags
    hierarchical: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # why
    _listed: dict[Path, _Listing] = field(default_factory=dict)

    def write(self, results: Iterable[dict]) -> None:
        """Add the predicted labels of each photo. Raises RunError if a file cannot be written.

        results: as `Predictor.describe` gives them, with "image", the name in the folder.
        """
        done = set(self._recorded())
        for result in results:
            name, tags = result["image"], result["predicted"]
            if not tags or not (self.root / name).exists():
                continue
            try:
                path = self._find(self.root / name)
                if name in done and path.exists():
                    self.num_complete += 1
                    continue
                self._add(self.root / name, path, tags)
            except UsageError as error:
                self.refused.append(str(error))
                if len(self.refused) <= NOTES:
                    log(f"note: {error}; left as it is")
                continue
            if self.record:
                self._note({"image": name, "sidecar": path.name, "tags": tags})

    def report(self) -> None:
        """Say what was done. Raises UsageError if a side-car was refused."""
        what = f"side-cars in {self.root}: {self.num_changed:,} written"
        if self.num_complete:
            what += f", {self.num_complete:,} had their tags before"
        log(what)
        if self.hierarchical:
            which = counted(len(self.hierarchical), "side-car has", "side-cars have")
            log(
                f"note: {which} tags in a hierarchy, too, which stay as they are; some programs "
                f"show only those: {some(self.hierarchical, 3)}"
            )
        if self.refused:
            others = f" (and {len(self.refused) - 1:,} more)" if len(self.refused) > 1 else ""
            raise UsageError(f"{self.refused[0]}; left as it is{others}: repair it or move it away")

    def _find(self, photo: Path) -> Path:
        """The photo's side-car, which may not exist yet."""
        if photo.parent not in self._listed:
            self._listed[photo.parent] = _Listing(os.listdir(photo.parent))
        listing = self._listed[photo.parent]
        if name := listing.by_photo.get(photo.name):
            return photo.with_name(name)
        same = listing.by_stem.get(key(stem(photo.name)), [])
        cars = [name for name in same if suffix_of(name) == SUFFIX]
        is_only = len(cars) == 1 and len(same) == 2
        return photo.with_name(cars[0] if is_only else photo.name + SUFFIX)

    def _add(self, photo: Path, path: Path, tags: Sequence[str]) -> None:
        """Add tags to a side-car, or write a new one. Raises UsageError, RunError."""
        if len(os.fsencode(path.name)) > LONGEST:
            raise UsageError(f"the name of {photo} is too long for a side-car")
        old = _read(path)
        if old is None:
            tags = [*_own_tags(photo), *tags]  # a program that finds a side-car may read only it
        try:
            new = add_tags(EMPTY if old is None else old, tags)
            if has_hierarchy(new):
                self.hierarchical.append(path.name)
        except ValueError as error:
            raise UsageError(f"the side-car {path} cannot be used: {error}") from None
        if new == old:
            self.num_complete += 1
            return
        _replace(path, old, new)
        self.num_changed += 1

    def _recorded(self) -> Iterator[str]:
        """The photos whose side-cars were written by an earlier command."""
        if self.record and os.path.lexists(self.record):
            for line in read_bytes(self.record).splitlines():
                with contextlib.suppress(ValueError, LookupError, TypeError):  # half a line
                    yield str(json.loads(line)["image"])

    def _note(self, entry: dict) -> None:
        check_ordinary(self.record)
        with open(self.record, "ab") as file:
            file.write(f"{json.dumps(entry)}\n".encode())


def _own_tags(photo: Path) -> list[str]:
    """The tags in the photo file; with a note if they cannot be read."""
    try:
        return embedded_tags(photo)
    except UsageError as error:
        log(f"note: {error}; its side-car begins without them")
        return []


def _read(path: Path) -> bytes | None:
    """A side-car's content; None if there is no file. Raises UsageError."""
    if not os.path.lexists(path):
        return None
    try:
        content = read_bytes(path, MOST)
        if not path.stat().st_mode & 0o222:
            raise UsageError(f"the side-car {path} is write-protected")
        return content
    except OSError as error:  # a link to nowhere, a folder
        raise UsageError(f"the side-car {path} cannot be read ({error.strerror})") from None


def _replace(path: Path, old: bytes | None, new: bytes) -> None:
    """Write a side-car in one step, unless it has changed meanwhile. A link stays a link."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(new)
        if _read(path) != old:
            raise RunError(f"{path} was changed by another program meanwhile: run it again")
        if old is not None:
            shutil.copymode(path, temporary)

    write_atomically(Path(os.path.realpath(path)), write)
