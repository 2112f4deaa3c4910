"""Labels of any format -> AnnotatedImages.

read_labels reads a file or folder in any of FORMATS; search.py finds the labels of an image folder.

A format is a module with

    NAME                        as messages call it
    matches(path) -> bool       whether a file or folder is in this format, by its content
    read(path, image_path, options) -> AnnotatedImages

To add a format, write such a module and put it in FORMATS.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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
    split_files,
    split_folders,
    spreadsheet,
    tars,
    via,
    voc,
    yolo,
)
from labels.annotated import AnnotatedImages, all_but, union
from labels.merge import merge_labels, read_merges
from labels.options import DEFAULTS, ReadOptions
from labels.split_folders import splits_by_folder
from labels.tags import respell, same_spelling
from labels.text import folded, read_head
from util.errors import UsageError
from util.log import counted, log, some

# The first one that matches reads: special formats come before general ones.
TOOLS = (voc, nuswide, cvat, label_studio, via, fiftyone, yolo, openimages, imaterialist)
FORMATS: tuple[ModuleType, ...] = (
    *TOOLS,
    tars,
    split_folders,
    split_files,
    spreadsheet,
    json_rows,
    jsonl,
    coco,
    folders,
    csv_table,
)
FORMAT_NAMES = ", ".join(each.NAME for each in FORMATS)


def read_labels(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Read annotations of any format and say on stderr what they are.

    Absolute file names are accepted if they lie in `image_path`. Raises UsageError, naming file and
    row, for an unknown format and for mistakes.
    """
    try:
        if options.checked:  # the file says what a blank cell means
            options = replace(options, blank="absent")
        images = _format_of(path).read(path, image_path, options)
        looked_for = options.checked and _read_checked(options)
    except OSError as error:
        place = error.filename or path
        raise UsageError(f"cannot read {place} ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
    if not len(images):
        raise UsageError(f"{path} lists no images")
    images = splits_by_folder(images) if options.split_column is None else images
    images = _respelled(images)
    if options.merge:
        images = merge_labels(images, options.merge)
    if looked_for:
        images = _with_checked(images, looked_for)
    divided = ""
    if images.splits:
        counts = {s: images.splits.count(s) for s in ("train", "val", "test")}
        divided = ": " + ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    sizes = f"{counted(len(images), 'image')}{divided}, {counted(len(images.categories), 'label')}"
    log(f"{path}: {images.kind}, {sizes}")
    if options.blank == "unknown" and not images.unknown:
        log(f"note: --blank unknown changes nothing: {path} leaves no label open; see --checked")
    return images


def _respelled(images: AnnotatedImages) -> AnnotatedImages:
    """The images with all labels in Unicode's NFC and with single spaces."""
    spelling = {label: new for label in images.categories if (new := folded(label)) != label}
    return respell(images, spelling) if spelling else images


def _read_checked(options: ReadOptions) -> AnnotatedImages:
    """The file of --checked: for each image the labels that somebody looked for.

    Raises UsageError if it is a table of labels, some of which are unknown.
    """
    keep = ("separator", "label_names", "unknown")
    options_of_file = ReadOptions(**{name: getattr(options, name) for name in keep})
    path = options.checked
    found = _respelled(_format_of(path).read(path, None, options_of_file))
    if found.unknown and any(found.unknown):
        raise UsageError(
            f"{path} (--checked) says of some labels that they are unknown: if it has the labels "
            "of the images, give it with --annotations, without --checked; else write all labels "
            "looked for in one column, image,labels"
        )
    return respell(found, read_merges(options.merge)) if options.merge else found


def _with_checked(images: AnnotatedImages, found: AnnotatedImages) -> AnnotatedImages:
    """The images, on which labels are unknown that nobody looked for; found: who looked for what.

    Labels that are unknown already stay so. Raises UsageError if no image is in both, or if a label
    is spelled in two ways.
    """
    looked_for = dict(zip(found.file_names, found.label_sets, strict=True))
    others = sorted(looked_for.keys() - {*images.file_names})
    if len(others) == len(looked_for):
        raise UsageError(
            f"{found.source} (--checked) names {others[0]!r}, and no image of {images.source}: "
            "write the names as they are there"
        )
    if others:
        what = counted(len(others), "image that is", "images that are")
        log(f"note: {found.source} names {what} not in {images.source}: {some(others)}")
    new = sorted(found.labels() - {*images.categories})
    if twins := same_spelling(new, images.categories):
        raise UsageError(
            f"{found.source} has the label {twins[0][0]!r}, {images.source} has {twins[0][1]!r}: "
            "write it in one way"
        )
    if new:
        log(f"note: {found.source} names labels that {images.source} lacks: {some(new)}")
    checked = [looked_for.get(name, ()) for name in images.file_names]
    not_looked_for = all_but(images.categories, images.label_sets, checked)
    unknown = union(not_looked_for, images.unknown)
    what = counted(sum(map(bool, checked)), "image has", "images have")
    log(
        f"{found.source}: {what} labels that were looked for; others that are not on an image are "
        "unknown"
    )
    return replace(images, unknown=unknown if any(unknown) else None)


def _format_of(path: Path) -> ModuleType:
    """The module that reads this path. Raises UsageError if there is none, OSError."""
    for each in FORMATS:
        if each.matches(path):
            return each
    head, text = read_head(path)
    if path.is_dir():
        what = "is a folder without labels"
    elif text.startswith("<"):
        what = "is XML; for PASCAL VOC give the folder that contains Annotations/, for CVAT its "
        what += "export CVAT for images 1.1"
    else:
        what = "is not a text file" if head else "is empty"
    raise UsageError(f"{path} {what}; formats: {FORMAT_NAMES}")
