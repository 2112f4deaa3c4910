"""Any labels -> AnnotatedImages: the one door to all formats, which are told by their content.

read_labels    COCO instances json (.json.gz), NUS-WIDE, PASCAL VOC, CSV, JSONL, shards, or a
               folder per label
find_labels    where they are, for images given without any
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from labels.annotated import SHARD_INDEX, AnnotatedImages, from_plain
from labels.coco import GZIP, read_annotations
from labels.csv_jsonl import names_inside, parse_csv, parse_jsonl
from labels.folders import is_label_folders, read_label_folders
from labels.index import read_once
from labels.nuswide import is_nuswide, read_nuswide
from labels.voc import is_voc, read_voc
from util.errors import UsageError
from util.log import log

FORMATS = (
    "COCO instances json, CSV or JSONL with file_name and labels, the folder of PASCAL VOC or of "
    "NUS-WIDE, or a folder per label"
)
TABLES = (".csv", ".tsv", ".jsonl")
HEAD = 1 << 16  # bytes of a file that are looked at
COCO_PARTS = {"images", "annotations", "categories"}


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


def _read_table(path: Path, image_path: Path | None, parse: Callable, kind: str) -> AnnotatedImages:
    def unpack(plain: dict) -> AnnotatedImages:
        return from_plain(
            {**plain, "file_names": names_inside(plain, path, image_path)}, path, kind
        )

    return read_once(path, lambda content: parse(content, path), unpack)


def find_annotations(image_path: Path, prefer: str) -> Path:
    """The annotation file for images given without one: data/images -> data/annotations.

    Of several files takes the only one that lists the image (for a single image), that bears the
    folder's name, or that is called instances_<prefer>2014.json. Raises UsageError otherwise.
    A folder of shards brings its own.
    """
    if (image_path / SHARD_INDEX).is_file():
        return image_path / SHARD_INDEX
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
    raise UsageError(f"{_relative(folder)} holds {names}: name the one with --annotations")


def _lists(path: Path, file_name: str) -> bool:
    with contextlib.suppress(UsageError):
        return any(PurePosixPath(n).name == file_name for n in read_annotations(path).file_names)
    return False


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
