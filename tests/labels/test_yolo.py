"""YOLO folders as Ultralytics, Roboflow, Label Studio, LabelImg and CVAT write them."""

import pytest
from conftest import write_json

from images.find import find_images
from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

SETS = {"p0": [0, 1], "p1": [1, 1], "p2": [], "my photo 3": [2]}
CLASSES = ["cat", "dog", "traffic light"]
EXPECTED = {n: {CLASSES[i] for i in s} for n, s in SETS.items()}
YAML = "train: images/train\nval: images/val\nnc: 3\nnames: [cat, dog, 'traffic light']\n"


def write_set(root, images="images", labels="labels", sets=SETS):
    """Pictures and texts in two folders, or in one."""
    for folder in (images, labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, numbers in sets.items():
        (root / images / f"{name}.jpg").write_bytes(f"{images}{name}".encode())
        lines = (f"{n} 0.5 0.5 0.25 1e-1\n" for n in numbers)
        if numbers:  # no objects, no text
            (root / labels / f"{name}.txt").write_text("".join(lines))
    return root


def write(path, text):
    path.write_text(text)
    return path


def sets_of(path, image_path=None, **options) -> dict[str, set[str]]:
    images = read_labels(path, image_path, ReadOptions(**options))
    assert images.kind == "YOLO"
    stems = [f.stem for f in find_images(image_path or path, images)]
    return {n: set(s) for n, s in zip(stems, images.label_sets, strict=True)}


def refusal(path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        read_labels(path, None, ReadOptions(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES = {
    "data.yaml": "names: [cat, dog, traffic light]\nnc: 3\n",
    "dataset.yaml": "names:\n  0: cat\n  1: dog\n  2: traffic light\n",
    "classes.txt": "cat\ndog\ntraffic light\n",
    "obj.names": "cat\r\ndog\r\ntraffic light",
}


@pytest.mark.parametrize("file", NAMES)
@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("a", "a"), ("", "")])
def test_names_and_folders(tmp_path, file, images, labels, capsys):
    root = write_set(tmp_path / "set", images, labels)
    (root / file).write_text(NAMES[file])
    assert sets_of(root) == EXPECTED
    assert "1 of 4 pictures have no text: no objects" in capsys.readouterr().err
    (root / file).unlink()
    assert "with --label_names" in refusal(root)
    names = write(tmp_path / "names.txt", "\n".join(CLASSES))
    assert sets_of(root, label_names=names) == EXPECTED
    json_names = write_json({str(i): name for i, name in enumerate(CLASSES)}, tmp_path / "n.json")
    assert sets_of(root, label_names=json_names) == EXPECTED


def test_classes_beside_the_texts(tmp_path):
    root = write_set(tmp_path / "set")
    write(root / "labels/classes.txt", "\n".join(CLASSES))
    assert sets_of(root) == EXPECTED
    write(root / "classes.txt", "\n".join(reversed(CLASSES)))
    assert "name other classes: delete one of them" in refusal(root)


def test_splits(tmp_path):
    """By data.yaml or by folders; each split has a picture of the same name."""
    root = tmp_path / "set"
    for part in ("train", "val"):
        write_set(root, f"images/{part}", f"labels/{part}", {"1": [0]})
    write(root / "data.yaml", YAML)
    images = read_labels(root / "data.yaml")
    assert images.splits == ["train", "val"]
    assert images.file_names == ["images/train/1.jpg", "images/val/1.jpg"]
    assert [f.parent.name for f in find_images(root, images)] == ["train", "val"]
    write(root / "data.yaml", YAML.replace("images/train", "images/val", 1))
    assert read_labels(root).splits == ["train", "val"], "one folder for both: names of folders"
    other = tmp_path / "roboflow"
    for part in ("train", "valid", "test"):
        write_set(other, f"{part}/images", f"{part}/labels", {"1": [0]})
    yaml = YAML.replace("images/train", "../train/images").replace("images/val", "../valid/images")
    write(other / "data.yaml", yaml)
    assert read_labels(other).splits == ["test", "train", "val"]
    assert read_labels(other / "valid").label_sets == [("cat",)], "names are in the folder above"
    coco = tmp_path / "coco"
    for part in ("a2017", "b2017"):
        write_set(coco, f"images/{part}", f"labels/{part}", {"1": [0]})
    yaml = YAML.replace("images/train", "images/a2017").replace("images/val", "images/b2017")
    write(coco / "data.yaml", yaml)
    assert read_labels(coco).splits == ["train", "val"]
    write(coco / "data.yaml", yaml.replace("images/b2017", "b.txt"))
    assert "1 of 2 images without a split" in refusal(coco)


def test_yaml_of_any_name(tmp_path):
    root = write_set(tmp_path / "set")
    write(root / "coco128.yaml", YAML)
    write(root / "hyp.yaml", "lr0: 0.01\n")
    assert sets_of(root) == EXPECTED
    assert sets_of(root / "coco128.yaml", root) == EXPECTED
    write(root / "other.yaml", "names: [x, y, z]")
    assert "name other classes" in refusal(root)
    assert sets_of(root / "coco128.yaml", root) == EXPECTED
    elsewhere = write(tmp_path / "data.yaml", YAML)
    (tmp_path / "set").rename(tmp_path / "photos_of_cats")
    assert len(read_labels(elsewhere)) == 4
    alone = tmp_path / "alone"
    alone.mkdir()
    assert "has no labels/ beside it" in refusal(write(alone / "data.yaml", YAML))


def test_polygons_and_pictures_elsewhere(tmp_path):
    root = write_set(tmp_path / "set")
    write(root / "classes.txt", "\n".join(CLASSES))
    write(root / "labels/p2.txt", "2 0.1 0.1 0.2 0.2 0.3 0.3\n\n0 .5 .5 .1 .1 0.9\n")
    write(root / "results.png", "a picture beside the set")
    assert sets_of(root) == EXPECTED | {"p2": {"cat", "traffic light"}}
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "results.png").unlink()
    assert sets_of(root, tmp_path / "elsewhere") == EXPECTED | {"p2": {"cat", "traffic light"}}


def test_pictures_of_a_test_set_without_labels(tmp_path, capsys):
    root = write_set(tmp_path / "set", "images/train", "labels/train")
    write_set(root, "images/test", "labels/test", {"t1": [], "t2": []})
    write(root / "data.yaml", YAML)
    assert read_labels(root).splits == ["train"] * 4
    assert "no text fits the pictures in images/test: left out" in capsys.readouterr().err


def test_words_in_yaml_stay_words(tmp_path):
    root = write_set(tmp_path / "set", sets={"a": [0], "b": [1], "c": [2]})
    write(root / "data.yaml", "names: [no, 007, 1.0]")
    assert sets_of(root) == {"a": {"no"}, "b": {"007"}, "c": {"1.0"}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3 0.5 0.5 0.1 0.1", r"p0.txt, line 1, has the class 3, which has no name"),
        ("0 0.5 0.5 0.1 0.1\n1\n", "line 2, has '1': a class and its box"),
        ("0 0.5 0.5 0.1 0.1\ncat 0.5 0.5 0.1 0.1", "line 2, has 'cat 0.5"),
        ("0 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1", "line 2, has '-1"),
    ],
)
def test_texts_that_are_refused(tmp_path, text, sentence):
    root = write_set(tmp_path / "set")
    write(root / "classes.txt", "\n".join(CLASSES))
    write(root / "labels/p0.txt", text)
    assert sentence in refusal(root)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("names: cat", "needs names: a list of classes"),
        ("names: [cat, [dog]]", "needs names"),
        ("names: {a: cat}", "needs names"),
        ("nc: 2\nnames: [cat]", "has nc: 2, but 1 names"),
        ("names: [cat", "is not YAML"),
        ("just text", "has no data.yaml with names:"),
        ("", "has no data.yaml with names:"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, sentence):
    write(write_set(tmp_path / "set") / "data.yaml", text)
    assert sentence in refusal(tmp_path / "set")


def test_pictures_and_texts_that_do_not_fit(tmp_path):
    root = write_set(tmp_path / "set")
    write(root / "classes.txt", "\n".join(CLASSES))
    write(root / "labels/other.txt", "0 0.5 0.5 0.1 0.1")
    assert "1 texts without a picture, such as labels/other.txt" in refusal(root)
    (root / "labels/other.txt").unlink()
    write(root / "images/p0.txt", "0 0.5 0.5 0.1 0.1")
    assert "has both labels/p0.txt and images/p0.txt" in refusal(root)
    write(root / "classes.txt", "cat\n\ndog")
    assert "needs the name of a class on each line" in refusal(root)


def test_other_folders_are_not_yolo(tmp_path):
    """Texts beside pictures that are captions, and a folder per label."""
    captions = write_set(tmp_path / "captions", "", "", {"a": []})
    write(captions / "a.txt", "a cat on a mat")
    assert "is a folder without labels" in refusal(captions)
    write(captions / "a.txt", "0 1 0 0 1 1")
    assert "is a folder without labels" in refusal(captions)
    for label in ("cat", "dog"):
        write_set(tmp_path / "labels_in_folders", label, label, {"1": []})
    assert read_labels(tmp_path / "labels_in_folders").kind == "a folder per label"
