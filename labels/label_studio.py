"""Label Studio's JSON and JSON-MIN exports: the choices or shapes that people marked.

JSON        [{"data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [{"result": [
            {"from_name": "animals", "type": "choices", "value": {"choices": ["cat", "dog"]}}]}]}]
JSON-MIN    [{"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "annotator": 1,
            "animals": {"choices": ["cat", "dog"]}}]            one choice alone is a text: "cat"

Labels are read from one control tag ("animals"); --label_columns names it if there are several.
Tasks that nobody has annotated are left out. Annotations that differ stop the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.entries import Entry, choose, images_from_entries
from labels.json_text import decode_json, peek_json
from labels.options import DEFAULTS, ReadOptions
from util.errors import UsageError
from util.files import is_picture
from util.log import log

NAME = "Label Studio"
HINT = "people disagree; mark one annotation of the task as ground truth, or delete the others"
# what JSON-MIN says about a record, beside the task's data and the labels
ABOUT = {"annotator", "annotation_id", "lead_time"}
OTHER = ABOUT | {"id", "created_at", "updated_at", "agreement", "inner_id", "total_annotations"}
Record = dict[str, object]


def matches(path: Path) -> bool:
    """Whether this is a list of tasks (JSON) or of their annotations (JSON-MIN)."""
    items = peek_json(path)
    if not isinstance(items, list) or not items or not isinstance(items[0], dict):
        return False
    marked = items[0].get("annotations", items[0].get("completions"))
    first = marked[0] if isinstance(marked, list) and marked else None
    cut_off = len(items) == 1 and isinstance(first, dict) and "result" in first
    return cut_off or _is_task(items[0]) or _is_min(items[0])


def _is_task(item: Record) -> bool:
    marked = item.get("annotations", item.get("completions"))
    return isinstance(item.get("data"), dict) and isinstance(marked or [], list)


def _is_min(item: Record) -> bool:
    choices = any(isinstance(v, dict) and set(v) == {"choices"} for v in item.values())
    return choices or ("id" in item and bool(ABOUT & item.keys()))


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and task."""
    items = decode_json(path)
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict) or not (_is_task(item) or _is_min(item)):
            raise UsageError(f"{path}, entry {number}, is no task of Label Studio: it needs data")
    read_items = _tasks if _is_task(items[0]) else _records
    return images_from_entries(read_items(items, path, options), path, NAME, HINT)


# --- JSON ---------------------------------------------------------------------------------------


def _tasks(tasks: list[Record], path: Path, options: ReadOptions) -> list[Entry]:
    """Each task with the labels of its annotation."""
    marked = [(task, _annotations(task, f"{path}, {_place(task)},")) for task in tasks]
    done = [(task, annotations) for task, annotations in marked if annotations]
    if unmarked := len(tasks) - len(done):
        log(f"{path}: {unmarked:,} of {len(tasks):,} tasks have no annotation and are left out")
    if not done:
        raise UsageError(f"{path} has no task with an annotation: label some and export again")
    fields = {field for _, each in done for found in each for field, _ in found}
    wanted = choose(fields, options.label_columns, path, "control tag")
    file_key = _file_key([task["data"] for task, _ in done], options.file_column, path)
    return [
        Entry(_place(task), task["data"].get(file_key), _agreed(task, annotations, wanted, path))
        for task, annotations in done
    ]


def _place(task: Record) -> str:
    return f"task {task.get('id')}"


def _annotations(task: Record, where: str) -> list[list[tuple[str, str]]]:
    """What was marked in each annotation that counts: control tag and label."""
    all_annotations = task.get("annotations", task.get("completions")) or []
    if not all(isinstance(a, dict) and isinstance(a.get("result"), list) for a in all_annotations):
        raise UsageError(f"{where} has an annotation without the list result: export as JSON")
    kept = [a for a in all_annotations if not a.get("was_cancelled")]
    truths = [a for a in kept if a.get("ground_truth")]
    return [list(_marked(a["result"], where)) for a in truths or kept]


def _marked(result: list[object], where: str) -> Iterator[tuple[str, str]]:
    for item in result:
        kind = str(item.get("type")) if isinstance(item, dict) else ""
        value = item.get("value") if kind else None
        if kind in ("textarea", "number", "rating", "datetime", "relation", "pairwise", "ranker"):
            continue
        if not isinstance(value, dict) or not isinstance(item.get("from_name"), str):
            raise UsageError(f"{where} has a result without type, from_name and value")
        if kind in ("rectangle", "polygon", "ellipse", "keypoint", "brush"):
            continue  # a shape without a label
        labels = value.get(kind)
        if kind != "choices" and not kind.endswith("labels"):
            raise UsageError(f"{where} has a result of type {kind!r}: choices and labels are read")
        if not isinstance(labels, list):
            raise UsageError(f"{where} has a result without the list {kind!r} in its value")
        for label in labels:
            yield item["from_name"], label


def _agreed(task: Record, annotations: list, wanted: tuple[str, ...], path: Path) -> list[str]:
    """The labels on which all annotations of a task agree. Raises UsageError if they do not."""
    sets = [[label for field, label in found if field in wanted] for found in annotations]
    if any(set(map(str, labels)) != set(map(str, sets[0])) for labels in sets):
        raise UsageError(f"{path}: {_place(task)} has annotations with different labels: {HINT}")
    return sets[0]


# --- JSON-MIN -----------------------------------------------------------------------------------


def _records(records: list[Record], path: Path, options: ReadOptions) -> list[Entry]:
    """Each record with its labels."""
    file_key = _file_key(records, options.file_column, path)
    keys = list(dict.fromkeys(key for record in records for key in record))
    others = [key for key in keys if key != file_key and key not in OTHER]
    values = {key: [record[key] for record in records if record.get(key)] for key in others}
    lists = [key for key in others if any(_is_label_value(value) for value in values[key])]
    texts = [key for key in others if any(isinstance(value, str) for value in values[key])]
    # a text that recurs may be a choice; one that never does is data of the task
    recurring = [key for key in texts if len(set(map(str, values[key]))) < len(values[key])]
    found = list(dict.fromkeys([*lists, *recurring])) or texts
    wanted = choose(
        others if options.label_columns else found, options.label_columns, path, "field"
    )
    if unused := [key for key in others if key not in wanted]:
        log(f"{path}: labels are in {', '.join(wanted)}; not used: {', '.join(unused)}")
    entries = []
    for number, record in enumerate(records, start=1):
        place = f"entry {number}"
        labels = [x for key in wanted for x in _labels(record.get(key), f"{path}, {place},", key)]
        entries.append(Entry(place, record.get(file_key), labels))
    return entries


def _is_label_value(value: object) -> bool:
    """Whether this can only be labels: {"choices": [...]} or shapes with labels."""
    if isinstance(value, dict):
        return "choices" in value
    return isinstance(value, list) and any(
        isinstance(shape, dict) and any(key.endswith("labels") for key in shape) for shape in value
    )


def _labels(value: object, where: str, key: str) -> list[object]:
    if value is None or isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return value["choices"]
    if isinstance(value, list):
        lists = [
            shape[kind]
            for shape in value
            if isinstance(shape, dict)
            for kind in shape
            if kind.endswith("labels")
        ]
        if len(lists) == len(value) and all(isinstance(labels, list) for labels in lists):
            return [label for labels in lists for label in labels]
    raise UsageError(f"{where} has {str(value)[:60]!r} in {key!r}: choices or labels are read")


def _file_key(records: list[Record], wanted: str | None, path: Path) -> str:
    """The key of the image's name: --file_column, else the only one whose values are pictures."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    if wanted:
        if wanted not in keys:
            raise UsageError(f"{path} has no field {wanted!r}, but {', '.join(keys)}")
        return wanted
    names = {key: [r[key] for r in records if isinstance(r.get(key), str)] for key in keys}
    found = [key for key in keys if names[key] and all(map(_is_picture, names[key]))]
    if not found:  # names without suffix
        found = [key for key in keys if key.lower() in ("image", "img", "image_url", "url")]
    if len(found) == 1:
        return found[0]
    problem = f"several fields with pictures: {', '.join(found)}" if found else "no picture's name"
    raise UsageError(f"{path} has {problem}; name the field with --file_column: {', '.join(keys)}")


def _is_picture(name: str) -> bool:
    path, _, query = name.partition("?")
    return is_picture(path) or is_picture(re.sub(r"[&#].*", "", query))
