"""FiftyOne's exports of labels: one JSON file beside the folder data/.

    labels.json     {"classes": ["cat", "dog"], "labels": {"000001": [0, 1], "000003": null}}
    samples.json    {"samples": [{"filepath": "data/1.jpg", "tags": ["train"], "ground_truth":
                    {"_cls": "Classifications", "classifications": [{"label": "cat"}]}}]}

The keys of labels are file names without suffix. A value is a number in classes, a class, a list of
these, {"label": 0, "confidence": 0.9}, or a list of detections, each with a label. Of the fields of
samples.json one has the labels; --label_columns names it if there are several.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.entries import Entry, choose, images_from_entries
from labels.json_text import decode_json, peek_json
from labels.options import DEFAULTS, ReadOptions
from labels.text import SPLITS
from util.errors import UsageError
from util.log import log

NAME = "FiftyOne"
FILES = ("labels.json", "samples.json")
# kinds of labels in samples.json, and where their list is; "" is the label itself
KINDS = {"Classification": "", "Classifications": "classifications", "Detection": ""}
KINDS |= {"Detections": "detections", "Polyline": "", "Polylines": "polylines"}


def matches(path: Path) -> bool:
    """Whether this is one of the two files, by its keys, or the folder with it and data/."""
    if path.is_dir():
        return (path / "data").is_dir() and any(
            (path / file).is_file() and matches(path / file) for file in FILES
        )
    top = peek_json(path)
    if not isinstance(top, dict):
        return False
    if isinstance(samples := top.get("samples"), list) and samples:
        return isinstance(samples[0], dict) and "filepath" in samples[0]
    if "classes" not in top or top.keys() - {"classes", "labels"}:
        return False
    return isinstance(top["classes"], list | None) and isinstance(top.get("labels", {}), dict)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and image."""
    file = next(path / f for f in FILES if (path / f).is_file()) if path.is_dir() else path
    content = decode_json(file)
    if "samples" in content:
        return images_from_entries(_samples(content["samples"], file, options), file, NAME)
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


# --- samples.json -------------------------------------------------------------------------------


def _samples(samples: object, path: Path, options: ReadOptions) -> list[Entry]:
    """Each sample with the labels in the chosen fields."""
    if not isinstance(samples, list) or not all(isinstance(s, dict) for s in samples):
        raise UsageError(f"{path} needs the list samples, with an object for each image")
    pairs = ((key, v) for s in samples for key, v in s.items() if isinstance(v, dict))
    fields = [key for key, value in pairs if str(value.get("_cls")) in KINDS]
    wanted = choose(fields, options.label_columns, path, "field")
    labelled = [s for s in samples if any(s.get(field) is not None for field in wanted)]
    if unlabelled := len(samples) - len(labelled):
        log(f"{path}: {unlabelled:,} of {len(samples):,} images have no label (null): left out")
    entries = []
    for number, sample in enumerate(labelled, start=1):
        place = f"sample {number}"
        labels = [x for f in wanted for x in _in_field(sample.get(f), f"{path}, {place},")]
        tags = sample["tags"] if isinstance(sample.get("tags"), list) else []
        named = {SPLITS[str(tag)] for tag in tags if str(tag) in SPLITS}
        split = named.pop() if len(named) == 1 else None
        entries.append(Entry(place, sample.get("filepath"), labels, split))
    return entries


def _in_field(value: object, where: str) -> list[object]:
    """The labels of a field of a sample."""
    if value is None:
        return []
    part = KINDS.get(str(value.get("_cls"))) if isinstance(value, dict) else None
    found = None if part is None else value.get(part) if part else [value]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{where} has {str(value)[:60]!r}: {', '.join(KINDS)} are read")
    return [each.get("label") for each in found]
