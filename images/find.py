"""File names in annotations -> paths in the image folder."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from images.shards import ShardMember, find_members
from labels.annotated import SHARD_INDEX, AnnotatedImages
from util.errors import UsageError
from util.log import log

BACKSLASH = "\\"  # separates folders in names written on Windows
HASHED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio's prefix of uploaded files
MAY_BE_GONE = ("NUS-WIDE",)  # sets published as URLs, whose images disappear over time


def find_images(
    image_path: Path, images: AnnotatedImages, allow_missing: bool = False
) -> list[Path] | list[ShardMember]:
    """The path of each image: in the folder, in a folder directly below it, or in its shards.

    A name may differ from the file's in case, in leading folders or by Label Studio's prefix, as
    long as only one file fits. Raises UsageError if the folder is missing, or an image is; with
    `allow_missing` a missing image gets the path where it should be.
    """
    if (image_path / SHARD_INDEX).is_file():
        return find_members(image_path, images)
    paths = _locate(image_path, images)
    missing = [n for n, path in zip(images.file_names, paths, strict=True) if path is None]
    if allow_missing:
        named = zip(images.file_names, paths, strict=True)
        return [path or image_path / name.replace(BACKSLASH, "/") for name, path in named]
    if missing:
        raise UsageError(
            f"{len(missing):,} of the {len(images):,} images of {images.source} are not under "
            f"{image_path}, for example {PurePosixPath(missing[0].replace(BACKSLASH, '/')).name}"
        )
    return paths


def without_missing(image_path: Path, images: AnnotatedImages) -> AnnotatedImages:
    """Without missing images, for sets whose images disappear (MAY_BE_GONE); logs how many.

    Other sets are returned unchanged: there a missing image is an error.
    """
    if images.kind not in MAY_BE_GONE or (image_path / SHARD_INDEX).is_file():
        return images
    keep = [i for i, path in enumerate(_locate(image_path, images)) if path is not None]
    if gone := len(images) - len(keep):
        log(
            f"{images.source}: {gone:,} of {len(images):,} images are not under {image_path} "
            "(deleted from Flickr?) and are skipped"
        )
    return images.select(keep) if keep else images


def _locate(image_path: Path, images: AnnotatedImages) -> list[Path | None]:
    """The path of each image, None for a missing one. Raises UsageError."""
    if not image_path.is_dir():
        raise UsageError(f"the image folder {image_path} does not exist")
    try:
        folders = _Folders(image_path)
    except OSError as error:
        raise UsageError(f"cannot read the folder {error.filename} ({error.strerror})") from None
    paths = [folders.find(name) for name in images.file_names]
    if folders.inexact:  # two names may have led to the same file
        names = {}
        for name, path in zip(images.file_names, paths, strict=True):
            other = names.setdefault(path, name) if path else name
            if other != name and {name, other} & folders.inexact:
                raise UsageError(
                    f"{images.source}: {other!r} and {name!r} would both be {path}; "
                    "write the exact file names"
                )
    return paths


class _Folders:
    """The files of a folder and of the folders directly below it, each listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self.listed = root, {}
        self.below = ["", *sorted(e.name for e in os.scandir(root) if os.path.isdir(e.path))]
        self.inexact: set[str] = set()  # names that differ from their file's

    def list(self, folder: str) -> dict[str, str | None]:
        """Name or lower-case name -> file name; None for a lower-case name of several files."""
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
        """The path of the file with this name, or None."""
        parts = [p for p in text.replace(BACKSLASH, "/").split("/") if p not in ("", ".")]
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
