"""A record of JSON -> a row of texts and lists: what is nested in it, as programs write it.

    "image": {"path": "a.jpg", "bytes": null}                           the name
    "labels": {"cat": 1, "dog": 0, "hat": null}                         ["cat"], checked: cat, dog
    "objects": {"bbox": [...], "categories": ["cat", "cat"]}            ["cat"]
    "annotations": [{"label": "cat", "coordinates": {...}}]             ["cat"]

Anything else stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable

from labels.column_names import FILE_NAMES, LABEL, LABELS
from labels.rows import plain
from labels.values import OFF, ON, UNKNOWN, as_text
from util.errors import UsageError

FILE_KEYS = [name for name in FILE_NAMES if name not in ("id", "uri", "url")]
NAME_KEYS = ("label", "name", "class", "category", "tag", "class_name", "category_name")
SCORES = {"score", "confidence", "probability", "prob", "value", "present"}
OBJECTS = ("objects", "annotations", "predictions", "detections")
CHECKED = "checked_labels"  # the labels that somebody looked for
LIST_KEYS = ("categories", "category", "labels", "label", "classes", "class")


def file_key(names: Iterable[str]) -> str | None:
    """The key of the file name, if one is called so."""
    found = {plain(name): name for name in names}
    return next((found[name] for name in FILE_KEYS if name in found), None)


def has_labels(names: Iterable[str]) -> bool:
    """Whether one of these keys is called as labels are."""
    return any(plain(name) in {*LABELS, *LABEL} for name in names)


def flat(record: dict[str, object], where: str) -> dict[str, object]:
    """A record with texts or lists for what is nested.

    Raises UsageError for labels with scores: some of them may not be on the image.
    """
    flat = {}
    for key, value in record.items():
        if isinstance(value, dict) and plain(key) in FILE_KEYS:
            value = value.get(file_key(value), value.get("url", value))
        elif isinstance(value, dict) and value and _are_flags(value, has_labels([key])):
            states = {label: _state(flag) for label, flag in value.items()}
            if has_labels([key]) and CHECKED not in record and not all(states.values()):
                # a label that other records lack is unknown there
                looked_for = [label for label, state in states.items() if state is not None]
                flat[CHECKED] = [*flat.get(CHECKED, []), *looked_for]
            value = [label for label, state in states.items() if state]
        elif isinstance(value, dict) and "bbox" in value:  # Hugging Face: objects
            value = next((value[k] for k in LIST_KEYS if k in value), value)
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            if has_labels([key]) or key in OBJECTS:
                _check_scores(value, where)
            value = _names_of_objects(value)
        flat[key] = value
    objects = [key for key in OBJECTS if isinstance(flat.get(key), list)]
    if objects and not has_labels(flat):
        labels = flat.pop(objects[0])
        flat["labels"] = list(dict.fromkeys(labels)) if _hashable(labels) else labels
    return flat


def _hashable(values: list) -> bool:
    return not any(isinstance(v, (list, dict)) for v in values)


def _are_flags(values: dict[str, object], are_labels: bool) -> bool:
    """Whether all values are 0 or 1; those of labels may also be null, ? and yes or no in words."""
    numbers = [v for v in values.values() if isinstance(v, (bool, int)) and v in (0, 1)]
    others = [v for v in values.values() if not isinstance(v, (bool, int, float, list, dict))]
    words = [v for v in others if v is None or as_text(v) in ON | OFF | UNKNOWN]
    return len(numbers) + (len(words) if are_labels else 0) == len(values)


def _state(flag: object) -> bool | None:
    """Whether a flag says yes; None if it is not known."""
    text = as_text(flag)
    return None if text == "" or text in UNKNOWN else text in ON


def _check_scores(objects: list[dict], where: str) -> None:
    for each in objects:
        if scores := [key for key, v in each.items() if plain(key) in SCORES and v is not None]:
            raise UsageError(
                f"{where} has labels with {scores[0]} {each[scores[0]]!r}: keep those that are on "
                "the image, and write their names only"
            )


def _names_of_objects(objects: list[dict]) -> list:
    """The names of objects that have one each: [{"label": "cat", "coordinates": {...}}]."""
    for key in NAME_KEYS:
        if all(isinstance(each.get(key), (str, int)) for each in objects):
            return [each[key] for each in objects]
    return objects
