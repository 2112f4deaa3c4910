"""Any labels -> AnnotatedImages: the one door to all formats, which are told by their content.

read_labels    COCO instances json (.json.gz), NUS-WIDE, PASCAL VOC, CSV, JSONL, shards, or a
               folder per label
find_labels    where they are, for images given without any
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from annotation_index import read_once
from annotations import (
    GZIP,
    SHARD_INDEX,
    AnnotatedImages,
    find_annotations,
    from_plain,
    read_annotations,
)
from label_folders import is_label_folders, read_label_folders
from label_tables import names_inside, parse_csv, parse_jsonl
from nuswide import is_nuswide, read_nuswide
from utils import UsageError, log
from voc import is_voc, read_voc

FORMATS = (
    "COCO instances json, CSV or JSONL with file_name and labels, the folder of PASCAL VOC or of "
    "NUS-WIDE, or a folder per label"
)
TABLES = (".csv", ".tsv", ".jsonl")
HEAD = 1 << 16  # bytes of a file that are looked at


def read_labels(path: Path, image_path: Path | None = None) -> AnnotatedImages:
    """Read annotations of any format and say on stderr what they are.

    Absolute file names are taken if they lie in `image_path`. Raises UsageError, naming file and
    row, for what is in no format or has mistakes.
    """
    try:
        images = _reader(path, image_path)(path)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    if not len(images):
        raise UsageError(f"{path} lists no images")
    divided = ""
    if images.splits:
        counts = {s: images.splits.count(s) for s in ("train", "val", "test")}
        divided = ": " + ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    log(f"{path}: {images.kind}, {len(images):,} images{divided}, {len(images.categories)} labels")
    return images


def find_labels(image_path: Path, prefer: str) -> Path:
    """Where the labels of images are that were given without: with the images, or beside them.

    In this order: shards; labels.csv (.tsv, .jsonl) in the image folder or beside it; the folder
    itself, if it is in VOC's or NUS-WIDE's layout; `annotations` beside it, see
    annotations.find_annotations; a folder per label. Raises UsageError.
    """
    folder = image_path if image_path.is_dir() else image_path.parent
    if (image_path / SHARD_INDEX).is_file():
        return image_path / SHARD_INDEX
    tables = [f / f"labels{s}" for f in (folder, folder.absolute().parent) for s in TABLES]
    if table := next((t for t in tables if t.is_file()), None):
        here = Path.cwd()
        return table.relative_to(here) if table.is_relative_to(here) else table
    if image_path.is_dir() and (is_voc(image_path) or is_nuswide(image_path)):
        return image_path
    try:
        return find_annotations(image_path, prefer)
    except UsageError:
        if is_label_folders(image_path):
            return image_path
        raise


def _reader(path: Path, image_path: Path | None) -> Callable[[Path], AnnotatedImages]:
    """What reads it, by its content."""
    if path.is_dir():
        if (path / SHARD_INDEX).is_file():
            return lambda folder: read_annotations(folder / SHARD_INDEX)
        readers = ((is_voc, read_voc), (is_nuswide, read_nuswide))
        for is_one, read in (*readers, (is_label_folders, read_label_folders)):
            if is_one(path):
                return read
        raise UsageError(f"{path} is a folder with no labels: name {FORMATS}")
    if path.suffix.lower() == ".txt":
        if is_voc(path):
            return read_voc
        if path.name.lower() == "all_tags.txt" and is_nuswide(path):
            return read_nuswide
    with open(path, "rb") as file:
        head = file.read(HEAD)
    text = head.decode("utf-8-sig", "replace").lstrip()
    if head.startswith(GZIP) or path.suffix.lower() == ".json" or text[:1] in ("{", "["):
        if not _is_jsonl(text):
            return read_annotations
        return lambda file: _read_table(file, image_path, parse_jsonl, "JSONL")
    if text.startswith("<"):
        raise UsageError(f"{path} is XML: of PASCAL VOC name the folder that has Annotations/")
    if not text:
        raise UsageError(f"{path} is empty: name {FORMATS}")
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is no text: name {FORMATS}")
    return lambda file: _read_table(file, image_path, parse_csv, "CSV")


def _is_jsonl(text: str) -> bool:
    """Whether the first line is an object by itself that is not COCO's."""
    try:
        first = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and bool(first) and not first.keys() & COCO_PARTS


COCO_PARTS = {"images", "annotations", "categories"}


def _read_table(path: Path, image_path: Path | None, parse: Callable, kind: str) -> AnnotatedImages:
    def unpack(plain: dict) -> AnnotatedImages:
        return from_plain(
            {**plain, "file_names": names_inside(plain, path, image_path)}, path, kind
        )

    return read_once(path, lambda content: parse(content, path), unpack)
