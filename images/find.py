"""Which file is which image: names in annotations -> paths in the image folder."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from images.shards import ShardMember, find_members
from labels.annotated import SHARD_INDEX, AnnotatedImages
from util.errors import UsageError

HASHED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts this before the name of an upload


def find_images(
    image_path: Path, images: AnnotatedImages, may_lack: bool = False
) -> list[Path] | list[ShardMember]:
    """Where each image lies: in the folder itself, in a folder directly below it, or in its shards.

    A name may have folders that are not there, another case or Label Studio's prefix, as long as
    only one file can be meant. Raises UsageError if the folder is missing, or any of the images
    unless `may_lack`; a path then is where the image should be.
    """
    if (image_path / SHARD_INDEX).is_file():
        return find_members(image_path, images)
    paths = _locate(image_path, images)
    missing = [n for n, path in zip(images.file_names, paths, strict=True) if path is None]
    if may_lack:
        named = zip(images.file_names, paths, strict=True)
        return [path or image_path / name.replace(_BACKSLASH, "/") for name, path in named]
    if missing:
        raise UsageError(
            f"{len(missing):,} of the {len(images):,} images of {images.source} are not under "
            f"{image_path}, {PurePosixPath(missing[0].replace(_BACKSLASH, '/')).name} for one"
        )
    return paths


_BACKSLASH = "\\"


def _locate(image_path: Path, images: AnnotatedImages) -> list[Path | None]:
    if not image_path.is_dir():
        raise UsageError(f"the image folder {image_path} does not exist")
    try:
        folders = _Folders(image_path)
    except OSError as error:
        raise UsageError(f"cannot look into {error.filename} ({error.strerror})") from None
    paths = [folders.find(name) for name in images.file_names]
    if folders.inexact:  # two names may have come to the same file
        takers = {}
        for name, path in zip(images.file_names, paths, strict=True):
            other = takers.setdefault(path, name) if path else name
            if other != name and {name, other} & folders.inexact:
                raise UsageError(
                    f"{images.source}: {other!r} and {name!r} would both be {path}; "
                    "write the names as the files are called"
                )
    return paths


class _Folders:
    """The files of a folder and of those directly below it, each folder listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self.listed = root, {}
        self.below = ["", *sorted(e.name for e in os.scandir(root) if os.path.isdir(e.path))]
        self.inexact: set[str] = set()  # names that were not found as they are written

    def list(self, folder: str) -> dict[str, str | None]:
        """Files by name; in lower case as well, None where several share it."""
        if folder not in self.listed:
            try:
                names = os.listdir(self.root / folder)
            except OSError:
                names = []
            lower = {}
            for name in names:
                lower[name.lower()] = None if name.lower() in lower else name
            self.listed[folder] = lower | {name: name for name in names}
        return self.listed[folder]

    def find(self, text: str) -> Path | None:
        """The file of that name, or None."""
        parts = [p for p in text.replace(_BACKSLASH, "/").split("/") if p not in ("", ".")]
        if not parts:
            return None
        name = parts[-1]
        for folder in ("/".join(parts[:-1]), *(self.below if len(parts) == 1 else ())):
            if self.list(folder).get(name) == name:
                return self.root / folder / name
        self.inexact.add(text)
        names = [name, *HASHED.findall(name)]
        tails = ["/".join(parts[i:-1]) for i in range(len(parts))]
        for each in names:
            for folder in (*tails, *self.below):
                real = self.list(folder).get(each) or self.list(folder).get(each.lower())
                if real:
                    return self.root / folder / real
        return None
