"""FiftyOne: labels.json and samples.json."""

import pytest
from conftest import write_json
from tool_exports import SETS, refusal, sample, sets_of

from images.find import find_images
from labels.read import read_labels

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
