"""Drawn data sets: reproducible, complete, and with exactly the annotated labels."""

import contextlib
import hashlib
import json
import os
import sys

import make_scenes
import numpy as np
import pytest
from conftest import call, coco, run, write_json
from drawing import painting
from drawing.catalogue import DRAWINGS
from make_scenes import CATEGORY_IDS
from PIL import Image
from processes import run_cold
from pycocotools.coco import COCO

from labels.coco import read_annotations
from util.errors import UsageError

ALL_LABELS = tuple(DRAWINGS)


def digests(folder) -> dict[str, str]:
    """File below `folder` -> hash of its content."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A small default set."""
    folder = tmp_path_factory.mktemp("scenes")
    flags = ("--num_train", 24, "--num_val", 8, "--image_size", 48, "--num_workers", 2)
    call(make_scenes, "--output_dir", folder, *flags)
    return folder


def test_the_default_set_is_complete(scenes):
    for part, count in (("train", 24), ("val", 8)):
        path = scenes / f"annotations/instances_{part}.json"
        images = read_annotations(path)
        files = sorted(p.name for p in (scenes / "images" / part).iterdir())
        assert sorted(images.file_names) == files
        assert len(files) == count
        for name in files:
            with Image.open(scenes / "images" / part / name) as image:
                assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "JPEG")
    assert len(images.categories) == len(make_scenes.default_sizes())


def test_pycocotools_reads_it(scenes):
    with contextlib.redirect_stdout(sys.stderr):
        api = COCO(scenes / "annotations/instances_train.json")
    assert len(api.getImgIds()) == 24
    boxes = api.loadAnns(api.getAnnIds())
    assert boxes
    assert len({box["id"] for box in boxes}) == len(boxes)
    for box in boxes:
        x, y, width, height = box["bbox"]
        assert 0 <= x < x + width <= 48
        assert 0 <= y < y + height <= 48
        assert 0 < box["area"] <= width * height
        assert box["iscrowd"] == 0
    names = {c["id"]: c["name"] for c in api.loadCats(api.getCatIds())}
    assert all(CATEGORY_IDS[name] == number for number, name in names.items())


def test_boxes_are_where_objects_are_visible(tmp_path, monkeypatch):
    """Compared with the pixels that each object changed and no later one covered."""
    draw, drawn, owner = painting.draw, [], np.zeros((96, 96), int)

    def watched(image, name, *others):
        before = image.copy()
        mask = draw(image, name, *others)
        drawn.append(name)
        owner[(image != before).any(axis=2)] = len(drawn)
        return mask

    monkeypatch.setattr(painting, "draw", watched)
    sizes = make_scenes.default_sizes()
    split = make_scenes.Split(tmp_path / "a.json", tmp_path, "scene", 48, sizes, (0, 0))
    hidden = 0
    for index in range(30):
        drawn.clear()
        owner[:] = 0
        found = make_scenes.make_image((index, None), split)
        expected = {}
        for number, name in enumerate(drawn, start=1):
            rows, columns = np.nonzero(owner == number)
            if name in DRAWINGS and len(rows):
                x, y = columns.min() / 2, rows.min() / 2  # 2×2 drawn pixels make one
                box = (x, y, (columns.max() + 1) / 2 - x, (rows.max() + 1) / 2 - y)
                expected[CATEGORY_IDS[name], box] = len(rows) / 4
        for item in found:
            assert expected.pop((item["category_id"], tuple(item["bbox"]))) == item["area"]
        hidden += len(expected)
    assert hidden, "objects of which hardly anything is visible get no box"


def test_same_seed_same_files_however_many_workers(scenes, tmp_path):
    flags = ("--num_train", 24, "--num_val", 8, "--image_size", 48)
    call(make_scenes, "--output_dir", tmp_path / "one", *flags, "--num_workers", 1)
    assert digests(tmp_path / "one") == digests(scenes)
    call(make_scenes, "--output_dir", tmp_path / "two", *flags, "--seed", 1)
    ours, theirs = digests(scenes), digests(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    assert not set(ours.values()) & set(theirs.values())


def test_all_images_differ(scenes):
    found = digests(scenes / "images")
    assert len(set(found.values())) == len(found) == 32


def test_the_hash_seed_does_not_matter(scenes, tmp_path):
    """The order of a set differs between processes; the images must not."""
    flags = ("--num_train", 24, "--num_val", 8, "--image_size", 48, "--num_workers", 1)
    assert "PYTHONHASHSEED" not in os.environ
    result = run_cold("data/make_scenes.py", "--output_dir", tmp_path, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert digests(tmp_path) == digests(scenes)
    train, val = result.stdout.splitlines()
    assert train.startswith("train: 24 images, ")
    assert val.startswith("val: 8 images, ")


def test_a_smaller_set_has_the_first_images(scenes, tmp_path):
    """Image n depends on the seed and n only."""
    flags = ("--num_train", 3, "--num_val", 1, "--image_size", 48, "--num_workers", 1)
    call(make_scenes, "--output_dir", tmp_path, *flags)
    ours, few = digests(scenes / "images"), digests(tmp_path / "images")
    assert few.items() <= ours.items()


def label_sets(path) -> list[tuple[str, ...]]:
    """The label sets of an instances file, sorted."""
    return sorted(tuple(sorted(labels)) for labels in read_annotations(path).label_sets)


def test_given_label_sets_are_drawn_exactly(shared, tmp_path):
    """300 real label sets, at an image size where objects hide each other."""
    content = json.loads((shared / "coco2014-labels/instances_val2014.json").read_text())
    content["images"] = content["images"][:300]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    source = write_json(content, tmp_path / "some_val.json")
    output = tmp_path / "out"
    call(make_scenes, "--labels", source, "--output_dir", output, "--image_size", 32)
    drawn = output / "annotations/some_val.json"
    assert label_sets(drawn) == label_sets(source)
    names = read_annotations(drawn).file_names
    assert sorted(names) == sorted(p.name for p in (output / "images/some_val").iterdir())


def test_every_label_can_be_drawn(tmp_path):
    """Each of the 80 alone, and with others."""
    n = len(ALL_LABELS)
    groups = [tuple(ALL_LABELS[(i + 7 * j) % n] for j in range(12)) for i in range(0, n, 8)]
    sets = [(label,) for label in ALL_LABELS] + groups
    source = write_json(coco(sets, categories=CATEGORY_IDS), tmp_path / "all.json")
    flags = ("--labels", source, "--output_dir", tmp_path / "out", "--image_size", 96)
    call(make_scenes, *flags)
    assert label_sets(tmp_path / "out/annotations/all.json") == label_sets(source)


def test_too_many_labels_for_one_image(tmp_path):
    """A worker's error ends the run with its message: terminating a Pool can deadlock."""
    sets = [(label,) for label in ALL_LABELS] + [ALL_LABELS]
    source = write_json(coco(sets, categories=CATEGORY_IDS), tmp_path / "all.json")
    flags = ("--labels", source, "--output_dir", "out", "--image_size", 32, "--num_workers", 2)
    result = run("data/make_scenes.py", *flags, cwd=tmp_path, timeout=60)
    assert result.returncode in (1, 2)
    assert "error: no room to show" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out/annotations/all.json").exists()


def test_some_of_the_given_label_sets(tmp_path):
    """--num_images of the labelled images are drawn; unlabelled ones do not count."""
    sets = [("person",), (), ("dog", "cat"), ("zebra",)]
    source = write_json(coco(sets), tmp_path / "four.json")
    flags = ("--output_dir", tmp_path / "out", "--image_size", 32, "--num_workers", 1)
    call(make_scenes, "--labels", source, *flags, "--num_images", 2)
    found = label_sets(tmp_path / "out/annotations/four.json")
    assert len(found) == 2
    assert set(found) <= {("person",), ("cat", "dog"), ("zebra",)}
    with pytest.raises(UsageError, match="3 labelled images, not 4"):
        call(make_scenes, "--labels", source, *flags, "--num_images", 4)


def bad_category() -> dict:
    content = coco()
    content["categories"][0]["name"] = "unicorn"
    return content


def bad_annotation() -> dict:
    content = coco()
    content["annotations"][0]["category_id"] = 99
    return content


BAD_LABELS = {
    "no json": (None, "not an MS-COCO instances file"),
    "list": ([], "not an MS-COCO instances file"),
    "number": (3, "not an MS-COCO instances file"),
    "empty": ({}, "not an MS-COCO instances file"),
    "text images": ({"images": "ab", "annotations": [], "categories": []}, "not an MS-COCO"),
    "unhashable": ({"images": [{"id": []}], "annotations": [], "categories": []}, "not an MS"),
    "no labels": ({"images": [{"id": 1}], "annotations": [], "categories": []}, "no image has"),
    "no drawing": (bad_category(), "no drawing of 'unicorn'"),
    "unknown category": (bad_annotation(), "KeyError: 99"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_label_files(tmp_path, content, sentence):
    path = tmp_path / "labels.json"
    path.write_text("{" if content is None else json.dumps(content))
    with pytest.raises(UsageError, match=sentence) as caught:
        call(make_scenes, "--labels", path, "--output_dir", tmp_path / "out")
    assert "labels.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_bad_input(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        call(make_scenes, "--labels", tmp_path / "none.json", "--output_dir", tmp_path)
    with pytest.raises(UsageError, match="--num_images is for --labels"):
        call(make_scenes, "--num_images", 3, "--output_dir", tmp_path)
    inside = write_json(coco(), tmp_path / "annotations/labels.json")
    with pytest.raises(UsageError, match="would be overwritten"):
        call(make_scenes, "--labels", inside, "--output_dir", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        call(make_scenes, "--output_dir", tmp_path / "file")


@pytest.mark.parametrize(
    "flags", [("--image_size", "31"), ("--num_train", "0"), ("--seed", "-1"), ("--num_val", "x")]
)
def test_invalid_numbers(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        call(make_scenes, *flags)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: argument {flags[0]}: ")
    assert err.count("\n") == 1


def test_errors_are_one_line(tmp_path):
    result = run("data/make_scenes.py", "--labels", "none.json", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: none.json: no such file")
