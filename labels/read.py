"""Labels of any format -> AnnotatedImages.

read_labels    reads a file or folder in any of FORMATS
find_labels    where the labels of an image folder are, if the user does not say

A format is a module with

    NAME                        as messages call it
    matches(path) -> bool       whether a file or folder is in this format, by its content
    read(path, image_path, options) -> AnnotatedImages

To add a format, write such a module and put it in FORMATS.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from types import ModuleType

from labels import (
    coco,
    csv_table,
    cvat,
    fiftyone,
    folders,
    imaterialist,
    json_rows,
    jsonl,
    label_studio,
    nuswide,
    openimages,
    split_folders,
    tars,
    via,
    voc,
    yolo,
)
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.merge import read_merges
from labels.options import DEFAULTS, ReadOptions
from labels.split_folders import splits_by_folder
from labels.tags import respell
from labels.text import read_head
from util.errors import UsageError
from util.log import log

# The first one that matches reads: special formats come before general ones.
TOOLS = (voc, nuswide, cvat, label_studio, via, fiftyone, yolo, openimages, imaterialist)
FORMATS: tuple[ModuleType, ...] = (
    *TOOLS,
    tars,
    split_folders,
    json_rows,
    jsonl,
    coco,
    folders,
    csv_table,
)
FORMAT_NAMES = ", ".join(each.NAME for each in FORMATS)
TABLES = (".csv", ".tsv", ".jsonl")


def read_labels(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Read annotations of any format and say on stderr what they are.

    Absolute file names are accepted if they lie in `image_path`. Raises UsageError, naming file and
    row, for an unknown format and for mistakes.
    """
    try:
        images = _format_of(path).read(path, image_path, options)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    if not len(images):
        raise UsageError(f"{path} lists no images")
    images = splits_by_folder(images) if options.split_column is None else images
    if options.merge:
        images = respell(images, read_merges(options.merge))
    divided = ""
    if images.splits:
        counts = {s: images.splits.count(s) for s in ("train", "val", "test")}
        divided = ": " + ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    log(f"{path}: {images.kind}, {len(images):,} images{divided}, {len(images.categories)} labels")
    return images


def _format_of(path: Path) -> ModuleType:
    """The module that reads this path. Raises UsageError if there is none, OSError."""
    for each in FORMATS:
        if each.matches(path):
            return each
    head, text = read_head(path)
    if path.is_dir():
        what = "is a folder without labels"
    elif text.startswith("<"):
        what = "is XML; for PASCAL VOC give the folder that contains Annotations/"
    else:
        what = "is not a text file" if head else "is empty"
    raise UsageError(f"{path} {what}; formats: {FORMAT_NAMES}")


def find_labels(image_path: Path, prefer: str) -> Path:
    """The labels of images that were given without any: in the image folder, or beside it.

    In this order: shards.json; labels.csv (.tsv, .jsonl) in the folder or beside it; the folder
    itself, if its layout is that of a data set; see `find_annotations`; the folder itself, if it
    has a folder per label. Raises UsageError if there is nothing.
    """
    folder = image_path if image_path.is_dir() else image_path.parent
    if (image_path / SHARD_INDEX).is_file():
        return image_path / SHARD_INDEX
    tables = [f / f"labels{s}" for f in (folder, folder.absolute().parent) for s in TABLES]
    if table := next((t for t in tables if t.is_file()), None):
        return _relative(table)
    if image_path.is_dir() and any(f.matches(image_path) for f in FORMATS if f is not folders):
        return image_path
    try:
        return find_annotations(image_path, prefer)
    except UsageError:
        if folders.matches(image_path):
            return image_path
        raise


def find_annotations(image_path: Path, prefer: str) -> Path:
    """The COCO file of an image folder: data/images -> data/annotations/*.json.

    Of several files, the only one that lists the image (for a single image), that has the
    folder's name in its name, or that is called instances_<prefer>2014.json. Raises UsageError.
    """
    start = image_path.parent if image_path.is_file() else image_path
    folder = next(
        (p / "annotations" for p in start.absolute().parents[:2] if (p / "annotations").is_dir()),
        None,
    )
    if folder is None:
        raise UsageError(f"no annotations folder beside {image_path}; name it with --annotations")
    files = sorted(folder.glob("*.json"))
    if image_path.is_file() and len(files) > 1:
        listing = [f for f in files if _lists(f, image_path.name)]
    else:
        listing = [f for f in files if start.name in f.stem]
    preferred = [f for f in files if f.stem == f"instances_{prefer}2014"]
    instances = [f for f in listing if f.stem.startswith("instances")]  # not its keypoints
    for choice in (files, listing, instances, [] if image_path.is_file() else preferred):
        if len(choice) == 1:
            return _relative(choice[0])
    names = ", ".join(f.name for f in files) or "no json file"
    raise UsageError(f"{_relative(folder)} contains {names}: name the one with --annotations")


def _lists(path: Path, file_name: str) -> bool:
    with contextlib.suppress(UsageError):
        images = coco.read_annotations(path)
        return any(PurePosixPath(name).name == file_name for name in images.file_names)
    return False


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
