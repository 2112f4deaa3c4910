"""Predictions as files that other tools import, in a folder of their own in the output folder.

    label_studio/tasks.json     a task for each photo, with a prediction of type choices
    label_studio/config.xml     the labelling interface of the project: all labels
    fiftyone/labels.json        classes, and each photo's labels with their probabilities
    fiftyone/data.json          where the photos are; both are FiftyOneImageClassificationDataset

Formats: labelstud.io/guide/predictions and docs.voxel51.com, "Loading datasets from disk".
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from util.errors import UsageError
from util.files import write_whole
from util.log import counted, log
from util.reading import read_bytes

CONTROL, IMAGE = "labels", "image"  # names of the tags in Label Studio's interface
SERVED = "/data/local-files/?d="  # Label Studio's address of a file on its own disk
# FiftyOne ignores the last suffix of a name in data.json: this one is there to be ignored
IGNORED = ".photo"
DIGITS = 4


def label_studio(results: Sequence[dict], root: Path, labels: Sequence[str], model: str) -> dict:
    """The files for Label Studio: file name -> content.

    results: predictions, "image" relative to root. model: its name. Label Studio must serve the
    folder that `root` is in. score: the probability of the most probable label set, so that sorting
    by it puts the photos first of which the model is least sure. labels: see `check_tags`.
    """
    tasks = []
    for result in results:
        choices = {"from_name": CONTROL, "to_name": IMAGE, "type": "choices"}
        choices["value"] = {"choices": result["predicted"]}
        score = round(result["most_probable_sets"][0]["probability"], DIGITS)
        prediction = {"model_version": model, "score": score}
        prediction["result"] = [choices] if result["predicted"] else []
        address = SERVED + quote(f"{root.name}/{result['image']}", errors="surrogateescape")
        tasks.append(json.dumps({"data": {IMAGE: address}, "predictions": [prediction]}))
    choice = "".join(f"    <Choice value={quoteattr(label)}/>\n" for label in labels)
    config = (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{IMAGE}" choice="multiple" showInline="true">\n'
        f"{choice}  </Choices>\n</View>\n"
    )
    return {"tasks.json": _lines("[", tasks, "]"), "config.xml": config.encode()}


def fiftyone(results: Sequence[dict], root: Path, labels: Sequence[str], model: str) -> dict:
    """The files for FiftyOne: file name -> content. Arguments as of `label_studio`."""
    number = {label: i for i, label in enumerate(labels)}
    data, targets = [], []
    for result in results:
        name, image = result["image"], json.dumps(result["image"])
        found = [
            {"label": number[label], "confidence": round(result["labels"][label], DIGITS)}
            for label in result["predicted"]
        ]
        data.append(f"{json.dumps(name + IGNORED)}: {json.dumps(str(root / name))}")
        targets.append(f"{image}: {json.dumps(found)}")
    head = f'{{"classes": {json.dumps(list(labels))},\n"labels": {{'
    return {"data.json": _lines("{", data, "}"), "labels.json": _lines(head, targets, "}}")}


Maker = Callable[[Sequence[dict], Path, Sequence[str], str], dict[str, bytes]]
FORMATS: dict[str, tuple[str, Maker]] = {
    "labelstudio": ("label_studio", label_studio),
    "fiftyone": ("fiftyone", fiftyone),
}


def write_for_tool(
    tool: str, output: Path, results: Iterable[dict], root: Path, labels: Sequence[str], model: str
) -> None:
    """Write the files of one of FORMATS into the output folder, and say where. Raises RunError."""
    name, make = FORMATS[tool]
    kept = [_needed(result) for result in results]  # a tenth of the memory
    contents = make(kept, root, labels, model)
    folder = write_folder(output / name, contents)
    log(f"{folder}: {' and '.join(contents)} ({counted(len(kept), 'image')})")
    if tool == "labelstudio":
        log(f"Label Studio needs LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root.parent}")


def _needed(result: dict) -> dict:
    """What the files need of a prediction."""
    predicted = result["predicted"]
    return {
        "image": result["image"],
        "predicted": predicted,
        "labels": {label: result["labels"][label] for label in predicted},
        "most_probable_sets": result["most_probable_sets"][:1],
    }


def write_folder(path: Path, contents: dict[str, bytes]) -> Path:
    """Write files into a folder and replace no other: returns it, or `path-2` and so on.

    contents: by file name. Files that hold the first of the same entries are replaced: we wrote
    them, and photos were added since. Raises RunError.
    """
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        there = {name: _read(folder / name) for name in contents}
        if os.path.lexists(folder) and not folder.is_dir():
            continue
        if all(there[name] is None or _begins(there[name], contents[name]) for name in contents):
            for name, content in contents.items():
                if there[name] != content:
                    write_whole(folder / name, content)
            return folder
    raise AssertionError("numbers do not end")


def _lines(start: str, entries: list[str], end: str) -> bytes:
    """JSON with an entry on each line."""
    return "".join([start, "\n", ",\n".join(entries), "\n", end, "\n"]).encode()


def _begins(old: bytes, new: bytes) -> bool:
    """Whether a file holds the first entries of a new one, or all of them."""
    return old.endswith(b"\n") and new.startswith(old.rstrip(b"\n]}"))


def _read(path: Path) -> bytes | None:
    """A file's content; None if there is no file; b"" for what we have not written."""
    if not os.path.lexists(path):
        return None
    try:
        return read_bytes(path)
    except (OSError, UsageError):
        return b""
