"""Small exports of labelling tools, and how the tests read them."""

import pytest
from conftest import write_json

from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

SETS = {"p0.jpg": ["cat", "dog"], "p1.jpg": ["dog"], "p2.jpg": [], "p3.jpg": ["traffic light"]}


def sets_of(path, **options) -> dict[str, set[str]]:
    images = read_labels(path, None, ReadOptions(**options))
    return {n: set(s) for n, s in zip(images.file_names, images.label_sets, strict=True)}


def refusal(path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        read_labels(path, None, ReadOptions(**options))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def choices(labels, name="animals") -> dict:
    return {"from_name": name, "to_name": "i", "type": "choices", "value": {"choices": labels}}


def boxes(*labels) -> list[dict]:
    return [
        {
            "from_name": "box",
            "to_name": "i",
            "type": "rectanglelabels",
            "value": {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": [label]},
        }
        for label in labels
    ]


def task(number, *results, name=None, **fields) -> dict:
    annotations = [
        {"id": i, "result": result, "was_cancelled": False} for i, result in enumerate(results)
    ]
    data = {"image": name or f"/data/upload/1/0a1b2c0{number}-p{number}.jpg"}
    return {"id": number, "annotations": annotations, "data": data, **fields}


def tasks() -> list[dict]:
    return [task(i, [choices(labels)] if labels else []) for i, labels in enumerate(SETS.values())]


def records() -> list[dict]:
    found = []
    for i, (name, labels) in enumerate(SETS.items()):
        record = {"image": f"/data/local-files/?d=x/{name}", "id": i, "annotator": 1}
        if labels:
            record["animals"] = labels[0] if len(labels) == 1 else {"choices": labels}
        found.append(record)
    return found


def comment() -> dict:
    return {"from_name": "c", "to_name": "i", "type": "textarea", "value": {"text": ["x"]}}


def cvat(path, *images, before=""):
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><task><name>x</name></task></meta>{before}{''.join(images)}</annotations>"
    )
    return path


def image(name, *labels, kind="tag", inside="", **more) -> str:
    items = "".join(f'<{kind} label="{x}" source="manual">{inside}</{kind}>' for x in labels)
    others = "".join(f' {key}="{value}"' for key, value in more.items())
    return f'<image id="0" name="{name}" width="4" height="4"{others}>{items}</image>'


def via_file(name, regions=(), **attributes) -> dict:
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    regions = [{"shape_attributes": shape, "region_attributes": r} for r in regions]
    return {"filename": name, "size": 9, "regions": regions, "file_attributes": attributes}


def via(path, *files, project=False):
    content = {f"{file['filename']}9": file for file in files}
    if project:
        content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
    return write_json(content, path)


def sample(name, *labels, split="train", field="ground_truth", **more) -> dict:
    found = {"_cls": "Classifications", "classifications": [{"label": x} for x in labels]}
    return {"filepath": f"data/{name}", "tags": [split, "x"], "metadata": None, field: found} | more
