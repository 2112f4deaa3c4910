"""A label file in each split folder: Roboflow, Hugging Face's imagefolder, COCO in parts."""

import json
from pathlib import Path

import pytest
from conftest import coco, write_json, write_picture

from images.find import find_images
from labels.read import read_labels
from labels.search import find_labels
from util.errors import UsageError

SETS = {"train": ["cat dog", "dog", "cat", ""], "valid": ["cat", "dog"], "test": ["dog", "cat dog"]}
SPLITS = ["test"] * 2 + ["train"] * 4 + ["val"] * 2
LABELS = [("dog",), ("cat", "dog"), ("cat", "dog"), ("dog",), ("cat",), (), ("cat",), ("dog",)]


def write_roboflow(root: Path, unlabeled: str = "Unlabeled") -> Path:
    for split, sets in SETS.items():
        rows = [f"filename, cat, dog, {unlabeled}"]
        for i, labels in enumerate(sets):
            name = f"{split}{i}_jpg.rf.0a1b.jpg"
            write_picture(root / split / name, seed=i)
            rows.append(
                f"{name}, {int('cat' in labels)}, {int('dog' in labels)}, {int(not labels)}"
            )
        (root / split / "_classes.csv").write_text("\n".join(rows))
    return root


def write_metadata(root: Path, suffix: str) -> Path:
    """All pictures have the same names in each split."""
    for split, sets in SETS.items():
        for i in range(len(sets)):
            write_picture(root / split / f"{i}.jpg", seed=i)
        rows = [{"file_name": f"{i}.jpg", "labels": x.split()} for i, x in enumerate(sets)]
        text = "\n".join(map(json.dumps, rows))
        if suffix == "csv":
            text = "\n".join(["file_name,labels", *(f"{i}.jpg,{x}" for i, x in enumerate(sets))])
        (root / split / f"metadata.{suffix}").write_text(text)
    return root


def check(root: Path) -> None:
    images = read_labels(root, root)
    assert [tuple(sorted(x)) for x in images.label_sets] == LABELS
    assert images.splits == SPLITS
    assert images.categories == ["cat", "dog"]
    files = find_images(root, images)
    assert [file.parent.name for file in files] == ["test"] * 2 + ["train"] * 4 + ["valid"] * 2
    assert len(set(files)) == 8


def test_roboflow(tmp_path):
    check(write_roboflow(tmp_path))
    assert find_labels(tmp_path, "train") == tmp_path
    part = read_labels(tmp_path / "train/_classes.csv", tmp_path / "train")
    assert part.categories == ["cat", "dog"]
    assert part.splits is None


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_hugging_face_imagefolder(tmp_path, suffix, capsys):
    root = write_metadata(tmp_path / "mine/data", suffix)
    if suffix == "csv":  # too few cells to see what separates: spaces are said, or it stops
        for file in root.glob("*/metadata.csv"):
            file.write_text(file.read_text().replace("cat dog", "cat|dog"))
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        for file in root.glob("*/metadata.parquet"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    check(root)
    images = read_labels(tmp_path / "mine")
    assert images.splits == SPLITS
    assert images.file_names[0] == "data/test/0.jpg"


def test_coco_in_each_split_folder(tmp_path):
    for split in ("train", "valid"):
        write_json(coco(), tmp_path / split / "_annotations.coco.json")
    images = read_labels(tmp_path)
    assert images.splits == ["train"] * 12 + ["val"] * 12
    assert images.file_names[12] == "valid/img_00.jpg"
    assert images.label_sets[:12] == images.label_sets[12:]


@pytest.mark.parametrize("name", ["_annotations.csv", "_annotations.createml.json", "via.json"])
def test_other_exports_in_each_split_folder(tmp_path, name):
    box = {"name": "rect", "x": 1, "y": 1, "width": 2, "height": 2}
    for split, labels in (("train", ["cat", "dog"]), ("valid", ["dog"])):
        rows = [f"a.jpg,9,9,{x},1,1,2,2" for x in labels]
        regions = [{"shape_attributes": box, "region_attributes": {"kind": x}} for x in labels]
        picture = {"filename": "a.jpg", "size": 9, "file_attributes": {}, "regions": regions}
        named = {"image": "a.jpg", "annotations": [{"label": x} for x in labels]}
        contents = {
            "_annotations.csv": "\n".join(
                ["filename,width,height,class,xmin,ymin,xmax,ymax", *rows]
            ),
            "_annotations.createml.json": json.dumps([named]),
            "via.json": json.dumps({"a.jpg9": picture}),
        }
        (tmp_path / split).mkdir()
        (tmp_path / split / name).write_text(contents[name])
    images = read_labels(tmp_path)
    assert images.file_names == ["train/a.jpg", "valid/a.jpg"]
    assert images.label_sets == [("cat", "dog"), ("dog",)]
    assert images.splits == ["train", "val"]


def test_the_folders_of_one_table_are_its_splits(tmp_path, capsys):
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,label\ntrain/a.jpg,cat\nvalidation/b.jpg,dog\ntest/c.jpg,cat\n")
    assert read_labels(path).splits == ["train", "val", "test"]
    printed = capsys.readouterr().err
    assert "the folders of the files are their splits: test, train, validation" in printed
    path.write_text("file_name,label\ntrain/a.jpg,cat\ntrain/b.jpg,dog\n")
    assert read_labels(path).splits is None
    path.write_text("file_name,label\ntrain/a.jpg,cat\nb.jpg,dog\ntest/c.jpg,dog\n")
    assert read_labels(path).splits is None


def test_a_split_without_labels_is_left_out(tmp_path, capsys):
    write_roboflow(tmp_path)
    (tmp_path / "test/_classes.csv").unlink()
    assert len(read_labels(tmp_path)) == 6
    assert f"{tmp_path}/test has no file of labels: it is left out" in capsys.readouterr().err


def test_names_from_elsewhere_get_no_folder(tmp_path):
    (tmp_path / "train").mkdir()
    names = ["a.jpg", "/home/me/b.jpg", "https://host/c.jpg", "C:/me/d.jpg"]
    rows = [json.dumps({"file_name": name, "labels": ["cat"]}) for name in names]
    (tmp_path / "train/metadata.jsonl").write_text("\n".join(rows))
    assert read_labels(tmp_path).file_names == ["train/a.jpg", *names[1:]]


def test_mistakes_stop(tmp_path):
    table = write_roboflow(tmp_path) / "valid/_classes.csv"
    text = table.read_text()
    table.write_text(text.replace("filename, cat, dog", "filename, cat, cow"))
    with pytest.raises(UsageError, match=r"only one of .* has the column 'cow'"):
        read_labels(tmp_path)
    table.write_text(text.replace(", 1, 0", ", maybe, 0", 1))
    with pytest.raises(UsageError, match=r"row 2 of valid/_classes\.csv"):
        read_labels(tmp_path)
    table.write_text(text)
    (tmp_path / "valid/metadata.jsonl").write_text('{"file_name": "a.jpg"}')
    with pytest.raises(UsageError, match=r"valid contains _classes.csv, metadata.jsonl: name one"):
        read_labels(tmp_path)


def test_a_label_file_beside_the_split_folders_stops(tmp_path):
    write_roboflow(tmp_path)
    (tmp_path / "about.json").write_text('{"licence": "none"}')
    assert len(read_labels(tmp_path)) == 8
    (tmp_path / "all.csv").write_text("file_name,labels\ntest/test0_jpg.rf.0a1b.jpg,cow\n")
    with pytest.raises(UsageError, match=r"all\.csv, and test contains _classes\.csv: name one"):
        read_labels(tmp_path)
    assert read_labels(tmp_path / "all.csv").categories == ["cow"]


def test_a_split_column_that_differs_from_the_folder_stops(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/labels.csv").write_text(
        "file_name,labels,split\na.jpg,cat,test\nb.jpg,dog,train\n"
    )
    with pytest.raises(UsageError, match=r"train/labels.csv, row 2, has the split 'test'"):
        read_labels(tmp_path)
