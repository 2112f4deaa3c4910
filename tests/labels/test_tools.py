"""Exports of labelling tools: CVAT and VGG Image Annotator; which tool is it; damaged ones."""

import contextlib
import json

import pytest
from conftest import write_json
from tool_exports import (
    SETS,
    boxes,
    choices,
    cvat,
    image,
    records,
    refusal,
    sample,
    sets_of,
    task,
    tasks,
    via,
    via_file,
)

from labels.read import FORMATS, read_labels
from util.errors import UsageError

# --- CVAT for images --------------------------------------------------------------------------


def test_cvat_tags_and_shapes(tmp_path, capsys):
    images = [image(name, *labels) for name, labels in SETS.items()]
    path = cvat(tmp_path / "annotations.xml", *images)
    assert sets_of(path) == {name: set(labels) for name, labels in SETS.items()}
    assert "CVAT for images, 4 images, 3 labels" in capsys.readouterr().err
    shapes = [image("a.jpg", "cat", "cat", kind="box"), image("b.jpg", "dog", kind="tag")]
    assert sets_of(cvat(path, *shapes)) == {"a.jpg": {"cat"}, "b.jpg": {"dog"}}
    assert "the labels of tags and of shapes are read: 2 box, 1 tag" in capsys.readouterr().err
    utf16 = path.read_text().replace("utf-8", "utf-16").encode("utf-16")
    path.write_bytes(utf16)
    assert len(sets_of(path)) == 2


def test_cvat_subsets(tmp_path):
    parts = [("a.jpg", "Train"), ("b.jpg", "Validation"), ("c.jpg", "test")]
    path = cvat(tmp_path / "x.xml", *(image(n, "cat", subset=part) for n, part in parts))
    assert read_labels(path).splits == ["train", "val", "test"]
    cvat(path, image("a.jpg", "cat", subset="default"))
    assert read_labels(path).splits is None
    cvat(path, image("a.jpg", "cat", subset="default"), image("b.jpg", "cat", subset="train"))
    assert "1 of 2 images without a split, for example 'a.jpg'" in refusal(path)


def test_cvat_attributes(tmp_path, capsys):
    def attributes(**values):
        return "".join(f'<attribute name="{n}">{v}</attribute>' for n, v in values.items())

    path = cvat(
        tmp_path / "x.xml",
        image("a.jpg", "photo", inside=attributes(cat="true", dog="false", colour="red")),
        image("b.jpg", "photo", inside=attributes(cat="false", dog="true", colour="blue")),
    )
    said = refusal(path)
    assert "only the label 'photo', with the attributes 'cat', 'colour', 'dog'" in said
    assert "--label_columns" in said
    assert sets_of(path, label_columns=("cat", "dog")) == {"a.jpg": {"cat"}, "b.jpg": {"dog"}}
    assert sets_of(path, label_columns=("colour",)) == {"a.jpg": {"red"}, "b.jpg": {"blue"}}
    assert "no attribute 'x'" in refusal(path, label_columns=("x",))
    cvat(path, image("a.jpg", "cat", "dog", inside=attributes(size="3")))
    assert sets_of(path) == {"a.jpg": {"cat", "dog"}}
    assert "the attributes 'size' are not read" in capsys.readouterr().err


def test_cvat_files_that_are_refused(tmp_path):
    path = tmp_path / "x.xml"
    assert "CVAT for video" in refusal(cvat(path, '<track id="0" label="cat"></track>'))
    assert "has no <image>" in refusal(cvat(path))
    assert "has a <skull> in an image" in refusal(cvat(path, image("a.jpg", "x", kind="skull")))
    assert "as a label" in refusal(cvat(path, image("a.jpg", "")))
    assert "no file name" in refusal(cvat(path, image("", "cat")))
    same = [image("a.jpg", "cat"), image("a.jpg", "dog")]
    assert "with different labels" in refusal(cvat(path, *same))
    path.write_text(path.read_text()[:-9])
    assert "is not XML" in refusal(path)
    path.write_text('<!DOCTYPE annotations [<!ENTITY b "ha">]><annotations>&b;</annotations>')
    assert "has a DOCTYPE" in refusal(path)
    path.write_text("<!-- x --><other/>")
    assert "is XML" in refusal(path)


# --- VGG Image Annotator ----------------------------------------------------------------------


@pytest.mark.parametrize("project", [False, True])
def test_via_attributes(tmp_path, project):
    path = tmp_path / "via.json"
    checked = [
        via_file(name, kind={label: True for label in labels} | {"cow": False})
        for name, labels in SETS.items()
    ]
    assert sets_of(via(path, *checked, project=project)) == {n: set(s) for n, s in SETS.items()}
    regions = [
        via_file(name, [{"animal": label} for label in labels], caption="")
        for name, labels in SETS.items()
    ]
    assert sets_of(via(path, *regions, project=project)) == {n: set(s) for n, s in SETS.items()}
    both = [via_file("a.jpg", [{"animal": "cat"}], caption="a cat")]
    assert "several attributes, 'animal', 'caption'" in refusal(via(path, *both))
    assert sets_of(path, label_columns=("animal",)) == {"a.jpg": {"cat"}}
    old = via_file("a.jpg", [{"animal": "cat"}])
    old["regions"] = {"0": old["regions"][0]}
    assert sets_of(via(path, old)) == {"a.jpg": {"cat"}}
    text = via_file("a.jpg", kind="cat, dog")
    assert "--separator" in refusal(via(path, text))
    assert sets_of(path, separator=",") == {"a.jpg": {"cat", "dog"}}


def test_via_csv(tmp_path):
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes"
    rows = []
    for name, labels in SETS.items():
        for i, label in enumerate(labels or [""]):
            attributes = json.dumps({"animal": label} if label else {}).replace('"', '""')
            rows.append(f'{name},9,"{{}}",{len(labels)},{i},"{{}}","{attributes}"')
    path = tmp_path / "via_region_data.csv"
    for start in ("", "#"):
        path.write_text("\n".join([f"{start}{header},region_attributes", *rows]))
        assert sets_of(path) == {name: set(labels) for name, labels in SETS.items()}
    path.write_text(path.read_text().replace('""animal""', "animal"))
    assert "row 2, has '{animal: " in refusal(path)


def test_via_files_that_are_refused(tmp_path):
    path = tmp_path / "via.json"
    assert "no attribute with labels" in refusal(via(path, via_file("a.jpg")))
    assert "true or false" in refusal(via(path, via_file("a.jpg", kind={"cat": "x"})))
    assert "as a label" in refusal(via(path, via_file("a.jpg", kind=[7])))
    assert "no file of VIA" in refusal(via(path, via_file("a.jpg", k="x"), {"filename": "b.jpg"}))
    old = via_file("a.jpg", k="x") | {"file_attributes": []}
    assert "attributes without names" in refusal(via(path, old))
    project = {key: {} for key in ("project", "config", "attribute", "file", "view", "metadata")}
    assert "a project of VIA 3" in refusal(write_json(project, path))
    assert "needs filename and regions" in refusal(write_json({"_via_img_metadata": 7}, path))


# --- which format is it -----------------------------------------------------------------------


def test_each_export_is_matched_by_one_tool_alone(tmp_path):
    """The general formats that come after the tools may match, too."""
    paths = {
        "Label Studio": [
            write_json(tasks(), tmp_path / "a.json"),
            write_json(records(), tmp_path / "b.json"),
        ],
        "CVAT for images": [cvat(tmp_path / "c.xml", image("a.jpg", "cat"))],
        "VGG Image Annotator": [
            via(tmp_path / "d.json", via_file("a.jpg", k="x")),
            via(tmp_path / "e.json", via_file("a.jpg", k="x"), project=True),
        ],
        "FiftyOne": [write_json({"classes": [], "labels": {}}, tmp_path / "f.json")],
    }
    general = ("JSONL", "JSON records", "COCO", "CSV")
    tools = [each for each in FORMATS if each.NAME not in general]
    for name, files in paths.items():
        for path in files:
            assert [each.NAME for each in tools if each.matches(path)] == [name]


# --- damaged exports --------------------------------------------------------------------------

JUNK = [None, True, 7, -1.5, "", "x", [], ["x"], [[]], {}, {"x": "y"}, {"choices": 7}]


def places(value, path=()) -> list[tuple]:
    """The places of all values in a JSON document."""
    inside = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inside = dict(enumerate(value))
    return [path, *(p for key, v in inside.items() for p in places(v, (*path, key)))]


def damaged(content, place, junk):
    """A copy with another value at one place."""
    if not place:
        return junk
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    return copy


def exports() -> dict[str, object]:
    shapes = [{"x": 1, "rectanglelabels": ["cat"]}]
    return {
        "tasks": [task(0, [choices(["cat", "dog"])]), task(1, [*boxes("cat")])][:1],
        "min": [records()[0], {"image": "a.jpg", "id": 1, "annotator": 1, "animals": shapes}],
        "via": {"a9": via_file("a.jpg", [{"animal": "cat"}]), "b9": via_file("b.jpg")},
        "project": {"_via_img_metadata": {"a9": via_file("a.jpg", kind={"cat": True})}},
        "fiftyone": {
            "classes": ["cat", "dog", "traffic light"],
            "labels": {"a": [0, 1], "b": [{"label": 2}]},
        },
        "samples": {"samples": [sample("a.jpg", "cat", "dog")]},
    }


@pytest.mark.parametrize("name", exports())
def test_damaged_exports_are_read_or_refused(tmp_path, name):
    """Any other exception would be a traceback. A label is never made of what is no text."""
    content = exports()[name]
    path = tmp_path / f"{name}.json"
    for place in places(content):
        for junk in JUNK:
            write_json(damaged(content, place, junk), path)
            with contextlib.suppress(UsageError):
                images = read_labels(path)
                found = {label for labels in images.label_sets for label in labels}
                assert found <= {"cat", "dog", "traffic light", "x", "y"}, (place, junk)
