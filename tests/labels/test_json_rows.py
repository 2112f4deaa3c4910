"""JSON in any of the layouts of json_rows.py: the same label sets, or a stop."""

import json

import pytest
from conftest import coco, write_json

from labels import json_rows
from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

SETS = {"a.jpg": ["cat", "red dress"], "b.jpg": ["dog"], "c.jpg": [], "d.jpg": ["cat", "dog"]}
RECORDS = [{"file_name": name, "labels": labels} for name, labels in SETS.items()]
FLAGS = {n: {x: int(x in s) for x in ("cat", "dog", "red dress")} for n, s in SETS.items()}
BY_LABEL = {x: [n for n, s in SETS.items() if x in s] for x in ("cat", "red dress", "dog")}
OBJECTS = {n: [{"label": x, "coordinates": {"x": 1}} for x in s] for n, s in SETS.items()}
COLUMNS = {
    "file_name": {str(i): name for i, name in enumerate(SETS)},
    "labels": {str(i): labels for i, labels in enumerate(SETS.values())},
}
LAYOUTS = {
    "records": RECORDS,
    "texts": [{"image": n, "tags": "|".join(s)} for n, s in SETS.items()],
    "flags": [{"image": n, **f} for n, f in FLAGS.items()],
    "nested flags": [{"image": n, "labels": f} for n, f in FLAGS.items()],
    "Hugging Face": [{"image": {"path": n, "bytes": None}, "labels": s} for n, s in SETS.items()],
    "CreateML": [{"image": n, "annotations": o} for n, o in OBJECTS.items()],
    "boxes": [{"file_name": n, "objects": {"bbox": [], "categories": s}} for n, s in SETS.items()],
    "wrapped": {"info": {"by": "me"}, "version": 1, "data": RECORDS},
    "pairs": [[name, labels] for name, labels in SETS.items()],
    "wrapped pictures": {"info": {"by": "me"}, "tags": SETS},
    "wrapped pairs": {"labels": [[name, labels] for name, labels in SETS.items()]},
    "by picture": SETS,
    "by stem": {name[0]: labels for name, labels in SETS.items()},
    "by picture, texts": {name: ", ".join(labels) for name, labels in SETS.items()},
    "by picture, fields": {n: {"labels": s, "width": 3} for n, s in SETS.items()},
    "by picture, flags": FLAGS,
    "columns": COLUMNS,
    "lists": {"file_name": list(SETS), "labels": list(SETS.values())},
    "split": {"columns": ["file_name", "labels"], "index": [0], "data": list(SETS.items())},
    "index": {str(i): record for i, record in enumerate(RECORDS)},
    "one split": {"train": RECORDS},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_label_sets(tmp_path, layout):
    path = write_json(LAYOUTS[layout], tmp_path / "labels.json")
    images = read_labels(path)
    assert images.kind == "JSON records"
    names = [name.removesuffix(".jpg") + ".jpg" for name in images.file_names]
    found = dict(zip(names, map(set, images.label_sets), strict=True))
    assert found == {name: set(labels) for name, labels in SETS.items()}
    assert images.categories == ["cat", "dog", "red dress"]
    assert images.splits == (["train"] * 4 if layout == "one split" else None)
    path.write_text(json.dumps(LAYOUTS[layout], indent=2))
    assert read_labels(path).label_sets == images.label_sets


def test_labels_that_list_their_pictures(tmp_path, capsys):
    images = read_labels(write_json(BY_LABEL, tmp_path / "labels.json"))
    assert dict(zip(images.file_names, images.label_sets, strict=True)) == {
        "a.jpg": ("cat", "red dress"),
        "d.jpg": ("cat", "dog"),
        "b.jpg": ("dog",),
    }
    assert "each label lists its pictures, for example 'cat'" in capsys.readouterr().err


def test_splits(tmp_path):
    parts = {"train": RECORDS[:2], "validation": [], "test": {"d.jpg": ["dog"]}}
    images = read_labels(write_json(parts, tmp_path / "labels.json"))
    assert images.splits == ["train", "train", "test"]
    splits = ["train", "val", "val", "test"]
    records = [r | {"split": s} for r, s in zip(RECORDS, splits, strict=True)]
    assert read_labels(write_json(records, tmp_path / "b.json")).splits == splits
    with pytest.raises(UsageError, match="an image of the split 'val' under 'train'"):
        read_labels(write_json({"train": records}, tmp_path / "labels.json"))
    with pytest.raises(UsageError, match="lists the pictures of train, but no labels"):
        read_labels(write_json({"train": ["a.jpg"], "val": ["b.jpg"]}, tmp_path / "labels.json"))


def test_a_long_file_is_recognised_by_its_beginning(tmp_path):
    for layout in (
        [{"file_name": f"{i:06d}.jpg", "labels": ["cat"]} for i in range(5000)],
        {f"{i:06d}.jpg": ["cat"] for i in range(5000)},
        {"cat": [f"{i:06d}.jpg" for i in range(9000)]},
        {"train": [{"file_name": f"{i:06d}.jpg", "labels": ["cat"]} for i in range(5000)]},
    ):
        assert set(read_labels(write_json(layout, tmp_path / "a.json")).label_sets) == {("cat",)}


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_coco_is_not_taken_for_records(tmp_path, key):
    content = coco()
    for image in content["images"]:
        image["tags"] = ["train"]
    content = {key: content.pop(key), **content}
    path = write_json(content, tmp_path / "instances.json")
    assert len(read_labels(path).categories) == 5
    captions = {"images": content["images"], "annotations": [{"image_id": 100, "caption": "a"}]}
    for image in captions["images"]:
        del image["tags"]
    assert not json_rows.matches(write_json(captions, tmp_path / "captions.json"))


@pytest.mark.parametrize(
    "labels", [[[0, 1], [2], [0]], [[1, 0, 1], [0, 0, 1], [1, 1, 0]], [0, 2, 1]]
)
def test_numbers_need_names(tmp_path, labels):
    records = [{"file_name": f"{i}.jpg", "labels": x} for i, x in enumerate(labels)]
    path = write_json(records, tmp_path / "labels.json")
    with pytest.raises(UsageError, match="--label_names"):
        read_labels(path)
    (tmp_path / "names.txt").write_text("cat\ndog\nhat\n")
    images = read_labels(path, None, ReadOptions(label_names=tmp_path / "names.txt"))
    assert "cat" in images.label_sets[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.jpg": ["cat"], "a.jpg": ["dog"]}', "'a.jpg' twice in one object"),
        ('[{"file_name": "a.jpg", "labels": ["cat"]}, 7]', "entry 2, is not an object"),
        ('[{"file_name": "a.jpg", "labels": ["cat"]}', "is not JSON"),
        ('[{"file_name": "a.jpg", "labels": ["cat"]}, {"labels": ["cat"]}]', "row 2.*file_name"),
        ('[{"file_name": "a.jpg", "labels": [["cat"]]}]', "labels"),
        ('[{"file_name": "a.jpg", "labels": [{"x": 1}]}]', "labels"),
        ('[{"file": "a.jpg", "labels": [{"name": "cat", "score": 0.1}]}]', "with score 0.1: keep"),
        (
            '[{"file": "a.jpg", "label": "cat"}, {"file": "b.jpg", "tags": "cat"}]',
            "has 'tags', oth",
        ),
        ('[{"file": "a.jpg", "label": "cat"},]', "is not JSON"),
        ('{"labels": ["cat", "dog"]}', "no column file_name"),
        (
            '{"a.jpg": {"cat": 0.9, "dog": 0.1}, "b.jpg": {"cat": 0.2, "dog": 0.8}}',
            "0.9|soft|0 or 1",
        ),
        ('{"a.jpg": ["b.jpg"], "b.jpg": ["a.jpg"]}', "'a.jpg' lists pictures"),
        ('{"columns": ["file_name", "labels"], "data": [["a.jpg"]]}', "a value for each"),
        ('{"file_name": ["a.jpg", "b.jpg"], "labels": [["cat"]]}', "different lengths"),
        ('{"model": "x", "epochs": 3}', "no column file_name"),
        ("[]", "COCO|no images"),
        ("[[[[", "JSON|COCO"),
    ],
)
def test_mistakes_stop(tmp_path, text, message):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_labels(path)
