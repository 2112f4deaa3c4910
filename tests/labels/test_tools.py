"""Exports of labelling tools: Label Studio, CVAT, VGG Image Annotator and FiftyOne."""

import contextlib
import json

import pytest
from conftest import write_json

from images.find import find_images
from labels.options import ReadOptions
from labels.read import FORMATS, read_labels
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


# --- Label Studio -----------------------------------------------------------------------------


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


def test_label_studio_tasks(tmp_path, capsys):
    for i in range(4):
        (tmp_path / f"p{i}.jpg").write_bytes(b"")
    path = write_json(tasks(), tmp_path / "export.json")
    images = read_labels(path)
    assert images.kind == "Label Studio"
    assert [set(s) for s in images.label_sets] == [set(s) for s in SETS.values()]
    assert [p.name for p in find_images(tmp_path, images)] == list(SETS)
    assert images.categories == ["cat", "dog", "traffic light"]

    content = tasks()
    content[0]["annotations"].append({"id": 9, "result": [], "was_cancelled": True})
    content.append(task(4))  # not annotated
    content.append({**task(5), "predictions": [{"result": [choices(["cat"])]}]})
    assert len(sets_of(write_json(content, path))) == 4
    assert "2 of 6 tasks have no annotation and are left out" in capsys.readouterr().err

    content = [task(0, boxes("cat", "cat", "dog")), task(1, [*boxes("dog"), comment()])]
    assert list(sets_of(write_json(content, path)).values()) == [{"cat", "dog"}, {"dog"}]


def comment() -> dict:
    return {"from_name": "c", "to_name": "i", "type": "textarea", "value": {"text": ["x"]}}


def test_label_studio_control_tags(tmp_path):
    content = [task(0, [choices(["cat"]), choices(["sharp"], "quality"), *boxes("dog")])]
    path = write_json(content, tmp_path / "export.json")
    said = refusal(path)
    assert "control tags, 'animals', 'box', 'quality'" in said
    assert "--label_columns" in said
    assert list(sets_of(path, label_columns=("animals",)).values()) == [{"cat"}]
    assert list(sets_of(path, label_columns=("animals", "box")).values()) == [{"cat", "dog"}]
    assert "no control tag 'animal'" in refusal(path, label_columns=("animal",))


def test_label_studio_annotations_that_differ(tmp_path):
    content = [task(0, [choices(["cat"])], [choices(["dog"])])]
    path = write_json(content, tmp_path / "export.json")
    assert "task 0 has annotations with different labels" in refusal(path)
    content[0]["annotations"][1]["ground_truth"] = True
    assert list(sets_of(write_json(content, path)).values()) == [{"dog"}]
    same = [task(0, [choices(["cat", "dog"])], [choices(["dog", "cat"])])]
    assert list(sets_of(write_json(same, path)).values()) == [{"cat", "dog"}]
    twice = [task(0, [choices(["cat"])], name="a.jpg"), task(1, [choices(["dog"])], name="a.jpg")]
    assert "task 1 and task 0 are the same image, 'a.jpg'" in refusal(write_json(twice, path))


WRONG_TASKS = {
    "no annotation": ([task(0)], "no task with an annotation"),
    "no result": ([task(0) | {"annotations": [{"id": 1}]}], "without the list result"),
    "taxonomy": (
        [task(0, [choices([]) | {"type": "taxonomy", "value": {"taxonomy": [["a", "b"]]}}])],
        "result of type 'taxonomy'",
    ),
    "no value": ([task(0, [{"type": "choices", "from_name": "x"}])], "without type, from_name"),
    "no list": ([task(0, [choices("cat")])], "without the list 'choices'"),
    "number": ([task(0, [choices([7])])], "has '7' as a label"),
    "empty": ([task(0, [choices([" "])])], "as a label: it must be a text"),
    "mixed": ([*tasks(), {"image": "a.jpg"}], "entry 5, is no task"),
    "text in between": ([*tasks(), "a"], "entry 5, is no task"),
    "no picture": ([task(0, [choices(["a"])], name="sound.wav") | {}], "image"),
    "two pictures": (
        [task(0, [choices(["a"])]) | {"data": {"left": "a.jpg", "right": "b.jpg"}}],
        "several fields with pictures: left, right; name the field with --file_column",
    ),
    "no file": ([task(0, [choices(["a"])]) | {"data": {"n": 1}}], "no picture's name"),
}


@pytest.mark.parametrize(("content", "sentence"), WRONG_TASKS.values(), ids=WRONG_TASKS)
def test_label_studio_tasks_that_are_refused(tmp_path, content, sentence):
    path = write_json(content, tmp_path / "export.json")
    if sentence == "image":  # the only field, called image: its name is not a picture's
        assert list(sets_of(path)) == ["sound.wav"]
    else:
        assert sentence in refusal(path)


def records() -> list[dict]:
    found = []
    for i, (name, labels) in enumerate(SETS.items()):
        record = {"image": f"/data/local-files/?d=x/{name}", "id": i, "annotator": 1}
        if labels:
            record["animals"] = labels[0] if len(labels) == 1 else {"choices": labels}
        found.append(record)
    return found


def test_label_studio_min(tmp_path, capsys):
    path = write_json(records(), tmp_path / "min.json")
    assert list(sets_of(path).values()) == [set(s) for s in SETS.values()]
    with_data = [r | {"source": f"camera {i}"} for i, r in enumerate(records())]
    assert list(sets_of(write_json(with_data, path)).values()) == [set(s) for s in SETS.values()]
    assert "labels are in animals; not used: source" in capsys.readouterr().err
    two = [r | {"quality": "good"} for r in records()]
    assert "several fields, 'animals', 'quality'" in refusal(write_json(two, path))
    assert sets_of(path, label_columns=("animals",)) == sets_of(write_json(records(), path))
    shapes = [{"x": 1, "rectanglelabels": ["cat"]}, {"x": 2, "rectanglelabels": ["dog"]}]
    content = [{"image": "a.jpg", "id": 1, "annotator": 2, "box": shapes}]
    assert sets_of(write_json(content, path)) == {"a.jpg": {"cat", "dog"}}
    content[0]["box"] = [{"x": 1}]
    assert "no field with labels" in refusal(write_json(content, path))
    content[0]["box"] = [*shapes, {"x": 1}]
    assert "choices or labels are read" in refusal(write_json(content, path))
    twice = [records()[0], records()[0] | {"animals": "cat"}]
    assert "are the same image" in refusal(write_json(twice, path))
    again = [records()[0], records()[0]]
    assert len(sets_of(write_json(again, path))) == 1


# --- CVAT for images --------------------------------------------------------------------------


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


def via_file(name, regions=(), **attributes) -> dict:
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    regions = [{"shape_attributes": shape, "region_attributes": r} for r in regions]
    return {"filename": name, "size": 9, "regions": regions, "file_attributes": attributes}


def via(path, *files, project=False):
    content = {f"{file['filename']}9": file for file in files}
    if project:
        content = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": {}}
    return write_json(content, path)


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


# --- FiftyOne ---------------------------------------------------------------------------------

CLASSES = ["cat", "dog", "traffic light"]


@pytest.mark.parametrize(
    "labels",
    [
        {"p0": [0, 1], "p1": 1, "p2": [], "p3": 2},
        {"p0": ["cat", "dog"], "p1": "dog", "p2": [], "p3": ["traffic light"]},
        {
            "p0": [{"label": 0, "confidence": 0.5}, {"label": 1}],
            "p1": {"label": 1},
            "p2": [],
            "p3": [{"label": 2, "bounding_box": [0, 0, 1, 1]}] * 2,
        },
    ],
)
def test_fiftyone(tmp_path, labels, capsys):
    (tmp_path / "data").mkdir()
    for name in SETS:
        (tmp_path / "data" / name).write_bytes(b"")
    write_json({"classes": CLASSES, "labels": labels | {"p9": None}}, tmp_path / "labels.json")
    for path in (tmp_path / "labels.json", tmp_path):
        images = read_labels(path)
        assert images.kind == "FiftyOne"
        assert [set(s) for s in images.label_sets] == [set(s) for s in SETS.values()]
        assert [p.name for p in find_images(tmp_path, images)] == list(SETS)
    assert "1 of 5 images have no label (null): left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"classes": CLASSES, "labels": {"a": 3}}, "'a', has the label 3, of 3 classes"),
        ({"classes": CLASSES, "labels": {"a": -1}}, "has the label -1"),
        ({"classes": CLASSES, "labels": {"a": "cow"}}, "has the label 'cow'"),
        ({"classes": CLASSES, "labels": {"a": True}}, "has the label 'True'"),
        ({"classes": CLASSES, "labels": {"a": [None]}}, "has the label 'None'"),
        ({"classes": CLASSES, "labels": {"a": {"x": 1}}}, "write a number or name"),
        ({"classes": [7], "labels": {"a": 0}}, "as a label: it must be a text"),
        ({"classes": None, "labels": {"a": 0}}, "of 0 classes"),
        ({"classes": CLASSES}, "needs the list classes and"),
    ],
)
def test_fiftyone_files_that_are_refused(tmp_path, content, sentence):
    assert sentence in refusal(write_json(content, tmp_path / "labels.json"))


def sample(name, *labels, split="train", field="ground_truth", **more) -> dict:
    found = {"_cls": "Classifications", "classifications": [{"label": x} for x in labels]}
    return {"filepath": f"data/{name}", "tags": [split, "x"], "metadata": None, field: found} | more


def test_fiftyone_samples(tmp_path):
    path = tmp_path / "samples.json"
    content = [sample(name, *labels) for name, labels in SETS.items()]
    content.append({"filepath": "data/p9.jpg", "tags": [], "ground_truth": None})
    write_json({"samples": content}, path)
    assert sets_of(path) == {f"data/{name}": set(labels) for name, labels in SETS.items()}
    assert read_labels(path).splits == ["train"] * 4
    boxes = {"_cls": "Detections", "detections": [{"label": "dog", "bounding_box": []}] * 2}
    two = [sample("a.jpg", "cat", predictions=boxes), sample("b.jpg", "dog", split="test")]
    write_json({"samples": two}, path)
    assert "several fields, 'ground_truth', 'predictions'" in refusal(path)
    assert sets_of(path, label_columns=("ground_truth",))["data/a.jpg"] == {"cat"}
    assert sets_of(path, label_columns=("predictions",)) == {"data/a.jpg": {"dog"}}
    one = sample("a.jpg", ground_truth={"_cls": "Classification", "label": "cat"})
    assert sets_of(write_json({"samples": [one]}, path)) == {"data/a.jpg": {"cat"}}
    one["ground_truth"]["label"] = None
    assert "as a label" in refusal(write_json({"samples": [one]}, path))
    mask = sample("a.jpg", ground_truth={"_cls": "Segmentation", "mask": ""})
    assert "no field with labels" in refusal(write_json({"samples": [mask]}, path))
    mixed = {"samples": [sample("b.jpg", "cat"), mask]}
    assert "has \"{'_cls': 'Segmentation'" in refusal(write_json(mixed, path))
    mixed = {"samples": [sample("b.jpg", "cat"), 7]}
    assert "needs the list samples" in refusal(write_json(mixed, path))


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
        "fiftyone": {"classes": CLASSES, "labels": {"a": [0, 1], "b": [{"label": 2}]}},
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
