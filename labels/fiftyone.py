"""FiftyOne's exports of labels: one JSON file beside the folder data/.

    {"classes": ["cat", "dog"], "labels": {"000001": [0, 1], "000002": 1, "000003": null}}

The keys are file names without suffix. A value is a number in classes, a class, a list of these,
{"label": 0, "confidence": 0.9}, or a list of detections, each with a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.entries import Entry, images_from_entries
from labels.json_text import decode_json, peek_json
from labels.options import DEFAULTS, ReadOptions
from util.errors import UsageError
from util.log import log

NAME = "FiftyOne"
FILE = "labels.json"


def matches(path: Path) -> bool:
    """Whether this is {"classes": ..., "labels": {...}}, or a folder with it beside data/."""
    if path.is_dir():
        return (path / "data").is_dir() and (path / FILE).is_file() and matches(path / FILE)
    top = peek_json(path)
    if not isinstance(top, dict) or "classes" not in top or top.keys() - {"classes", "labels"}:
        return False
    return isinstance(top["classes"], list | None) and isinstance(top.get("labels", {}), dict)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and image."""
    file = path / FILE if path.is_dir() else path
    content = decode_json(file)
    classes, labels = content.get("classes"), content.get("labels")
    if not isinstance(labels, dict) or not isinstance(classes, list | None):
        raise UsageError(f"{file} needs the list classes and, by file name, labels")
    labelled = {name: value for name, value in labels.items() if value is not None}
    if unlabelled := len(labels) - len(labelled):
        log(f"{file}: {unlabelled:,} of {len(labels):,} images have no label (null): left out")
    entries = (
        Entry(repr(name), name, _labels(value, classes, f"{file}, {name!r},"))
        for name, value in labelled.items()
    )
    return images_from_entries(entries, file, NAME)


def _labels(value: object, classes: list | None, where: str) -> Iterator[object]:
    """The labels of one value. Raises UsageError."""
    for each in value if isinstance(value, list) else [value]:
        label = each["label"] if isinstance(each, dict) and "label" in each else each
        if isinstance(label, int) and not isinstance(label, bool):
            if not classes or not 0 <= label < len(classes):
                raise UsageError(f"{where} has the label {label}, of {len(classes or ())} classes")
            yield classes[label]
        elif isinstance(label, str) and (not classes or label in classes):
            yield label
        else:
            text = str(label)[:60]
            raise UsageError(f"{where} has the label {text!r}: write a number or name in classes")
