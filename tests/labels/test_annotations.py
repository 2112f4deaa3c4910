"""From annotation files to targets: every kind of mistake, and where files are found."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import LABEL_SETS, RANKED, REPO, coco, write_json, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loader import load_data_set
from images.decode import load_image
from images.find import find_images
from labels import read
from labels.annotated import AnnotatedImages
from labels.coco import read_annotations
from labels.read import read_labels
from labels.search import find_labels
from labels.targets import encode_targets
from labels.vocabulary import Vocabulary, count_labels
from util.errors import UsageError

# --- annotations ------------------------------------------------------------------------------


def changed(part: str, at: int, **fields) -> dict:
    content = coco()
    content[part][at] = {**content[part][at], **fields}
    return content


def without(part: str, at: int, key: str) -> dict:
    content = coco()
    del content[part][at][key]
    return content


BAD_ANNOTATIONS = {
    "[]": ([], "needs the lists"),
    "{}": ({}, "needs the lists"),
    "null": (None, "needs the lists"),
    "no annotations": ({"images": [], "categories": []}, "needs the lists"),
    "list of numbers": ({"images": [1], "annotations": [], "categories": []}, r"images\[0\]"),
    "dictionary": ({"images": {}, "annotations": [], "categories": []}, "needs the lists"),
    "no images": ({"images": [], "annotations": [], "categories": []}, "lists no images"),
    "image id": (without("images", 2, "id"), r"missing required field id at images\[2\]"),
    "file name": (
        without("images", 1, "file_name"),
        r"missing required field file_name at images\[1\]",
    ),
    "file name 7": (
        changed("images", 1, file_name=7),
        r"expected str, got int at images\[1\]\.file_name",
    ),
    "id text": (changed("images", 0, id="100"), r"expected int, got str at images\[0\]\.id"),
    "id true": (changed("images", 0, id=True), r"expected int, got bool at images\[0\]\.id"),
    "name": (without("categories", 0, "name"), r"missing required field name at categories\[0\]"),
    "image_id": (
        without("annotations", 3, "image_id"),
        r"missing required field image_id at annotations\[3\]",
    ),
    "category text": (
        changed("annotations", 3, category_id="1"),
        r"at annotations\[3\]\.category_id",
    ),
    "same image id": (changed("images", 0, id=101), "entries of images have the same id"),
    "same category id": (changed("categories", 0, id=1), "entries of categories have the same id"),
    "category": (changed("annotations", 4, category_id=99), r"annotations\[4\].*category_id 99"),
    "image": (changed("annotations", 4, image_id=9), r"annotations\[4\] has image_id 9"),
    "no name": (changed("images", 5, file_name=""), r"images\[5\].*names no file"),
    "folder": (changed("images", 5, file_name="a/.."), r"images\[5\].*names no file"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_annotations_that_are_not_coco(tmp_path, content, sentence):
    path = write_json(content, tmp_path / "bad.json")
    with pytest.raises(UsageError, match=sentence) as caught:
        read_annotations(path)
    assert "bad.json" in str(caught.value)


def test_names_of_other_places_are_looked_for_in_the_folder(tiny):
    """Nothing outside is found: see also test_find.py."""
    write_picture(tiny.folder / "a.jpg")
    for name in ("../a.jpg", "b/../../../a.jpg", "..\\a.jpg", "/etc/passwd"):
        content = changed("images", 5, file_name=name)
        images = read_annotations(write_json(content, tiny.annotations))
        with pytest.raises(UsageError, match="1 of the 12 images of"):
            find_images(tiny.images, images)
    content = changed("images", 5, file_name="D:\\their data\\img_05.jpg")
    images = read_annotations(write_json(content, tiny.annotations))
    assert find_images(tiny.images, images)[5] == tiny.images / "img_05.jpg"


def test_annotations_that_are_not_json(tmp_path):
    path = tmp_path / "bad.json"
    for content in (b"", b"hello", b'{"images": [', b"\xff\xfe\x00", b"[" * 200_000):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.json is not COCO instances json"):
            read_annotations(path)
    with pytest.raises(UsageError, match="No such file"):
        read_annotations(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="Is a directory"):
        read_annotations(tmp_path)


def test_annotations_are_read(tiny, capsys):
    images = read_annotations(tiny.annotations)
    assert images.file_names == [f"img_{i:02d}.jpg" for i in range(12)]
    assert [set(labels) for labels in images.label_sets] == [set(labels) for labels in LABEL_SETS]
    assert all(len(set(labels)) == len(labels) for labels in images.label_sets), "two boxes, once"
    assert images.categories == sorted(RANKED)
    assert len(images.labelled()) == 11
    assert capsys.readouterr().out == "", "stdout is for data"


def test_a_label_with_half_a_character(tmp_path):
    """JSON allows a lone surrogate, but it cannot be printed or written to a file."""
    path = tmp_path / "odd.json"
    path.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": '
        '"\\ud800"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1}]}'
    )
    with pytest.raises(UsageError, match=r"the name of categories\[0\] has half a character"):
        read_annotations(path)


def test_numbers_and_characters_of_python_json_are_read(tmp_path):
    """Python writes NaN. The last of two equal keys counts. Unused fields may contain anything."""
    path = tmp_path / "odd.json"
    path.write_text(
        '{"images": [{"id": 9, "id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name":'
        '"cat"}], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [NaN, Infinity],'
        '"segmentation": {"counts": [1, 2], "size": [3, 4]}}], '
        '"info": {"images": 7, "description": "\\ud800"}}'
    )
    assert read_annotations(path).label_sets == [("cat",)]
    path.write_text(
        path.read_text().replace('"id": 9, ', "").replace('"id": 1, "f', '"id": NaN, "f')
    )
    with pytest.raises(UsageError, match=r"images\[0\]\.id"):
        read_annotations(path)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\:\0"), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(NAMES, min_size=1, max_size=5, unique=True),
    st.lists(NAMES, min_size=5, max_size=5, unique=True),
    st.data(),
)
def test_any_names_are_read(tmp_path, file_names, labels, data):
    """Ids may be negative or huge."""
    ids = data.draw(st.lists(st.integers(), min_size=5, max_size=5, unique=True))
    content = {
        "images": [{"id": -i, "file_name": f"{name}x"} for i, name in enumerate(file_names)],
        "categories": [{"id": i, "name": n} for i, n in zip(ids, labels, strict=True)],
        "annotations": [
            {"image_id": -i, "category_id": data.draw(st.sampled_from(ids)), "bbox": [0, 0, 1, 1]}
            for i in range(len(file_names))
            for _ in range(2)
        ],
    }
    images = read_annotations(write_json(content, tmp_path / "any.json"))
    name_of = dict(zip(ids, labels, strict=True))
    assert images.file_names == [f"{name}x" for name in reversed(file_names)]
    for i, found in enumerate(reversed(images.label_sets)):
        expected = [
            name_of[a["category_id"]] for a in content["annotations"] if a["image_id"] == -i
        ]
        assert found == tuple(dict.fromkeys(expected)), "in the order of the annotations"
    assert images.categories == sorted(labels)


def test_reading_leaves_no_files_and_imports_little(tiny):
    """A folder of annotations stays as it is, and pycocotools would import matplotlib."""
    script = (
        "import sys; from pathlib import Path; from labels.read import read_labels;"
        f"print(len(read_labels(Path({str(tiny.annotations)!r}))),"
        "{'pycocotools', 'matplotlib', 'nltk'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "12 set()"
    assert os.listdir(tiny.annotations.parent) == ["instances.json"]


def test_a_new_format_is_one_module(tmp_path, monkeypatch, capsys):
    """All that read_labels needs of a format: NAME, matches and read."""
    new = SimpleNamespace(
        NAME="my format",
        matches=lambda path: path.suffix == ".mine",
        read=lambda path, image_path, options: AnnotatedImages(
            str(path), ["a.jpg"], [("cat",)], ["cat"], "my format"
        ),
    )
    monkeypatch.setattr(read, "FORMATS", (new, *read.FORMATS))
    (tmp_path / "x.mine").write_bytes(b"")
    assert read_labels(tmp_path / "x.mine").label_sets == [("cat",)]
    assert "x.mine: my format, 1 image, 1 label" in capsys.readouterr().err


def test_real_coco_files(shared):
    folder = shared / "coco-sample"
    for part in ("train2014", "val2014"):
        images = read_annotations(folder / f"annotations/instances_{part}.json")
        for image_path in (folder / "images", folder / "images" / part):
            paths = find_images(image_path, images)
            assert len(paths) == len(images) > 200
        assert load_image(paths[0]).mode == "RGB"


# --- where files are found --------------------------------------------------------------------


def test_images_are_found_in_the_folder_and_below(tmp_path):
    names = ["a.jpg", "b.jpg", "sub/c.jpg", "d.jpg"]
    images = read_annotations(write_json(coco([("cat",)] * 4, names), tmp_path / "x.json"))
    expected = [tmp_path / "i" / n for n in ("a.jpg", "val2014/b.jpg", "sub/c.jpg", "z/d.jpg")]
    for path in expected:
        write_picture(path)
    assert find_images(tmp_path / "i", images) == expected
    expected[1].unlink()
    expected[3].unlink()
    with pytest.raises(UsageError, match=r"^2 of the 4 images of .*x\.json .*for example b\.jpg;"):
        find_images(tmp_path / "i", images)
    with pytest.raises(UsageError, match="does not exist"):
        find_images(tmp_path / "nowhere", images)


def test_annotations_are_found(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    folder = tiny.annotations.parent
    image = tiny.images / "img_03.jpg"

    def found(path, prefer="train"):
        return find_labels(path.relative_to(tiny.folder), prefer).name

    assert found(tiny.images) == found(image) == "instances.json"
    write_json(coco([("cat",)], ["img_01.jpg"]), folder / "instances_train2014.json")
    write_json(coco([("cat",)], ["img_02.jpg"]), folder / "instances_val2014.json")
    write_json(coco([("cat",)], ["third.jpg"]), folder / "instances_test2014.json")
    write_json({"annotations": []}, folder / "captions_val2014.json")
    assert found(image) == "instances.json", "the only one that lists the image"
    with pytest.raises(UsageError, match=r"^3 files.*instances\.json, .*train2014.*val2014\.json"):
        found(tiny.images)
    write_json(coco(), folder / "keypoints.json")
    assert found(image) == "instances.json", "other files of the same images do not count"
    write_json(coco(), folder / "instances_copy.json")
    with pytest.raises(UsageError, match=r"instances_copy\.json.*name the one with --annotations"):
        find_labels(image, "train")
    for name in ("instances", "instances_copy"):
        (folder / f"{name}.json").unlink()
    assert found(tiny.images) == "instances_train2014.json"
    assert found(tiny.images, "val") == "instances_val2014.json"
    elsewhere = write_picture(tiny.folder / "else/where/images/a.jpg").parent
    (elsewhere.parent / "notes.csv").write_text("file_name,labels\nb.jpg,cat\n")
    sentence = r"no annotations folder beside.*overlooked: \S*notes\.csv \(lists b\.jpg\)"
    with pytest.raises(UsageError, match=sentence):
        find_labels(elsewhere, "train")


def test_unlabelled_images_are_dropped_unless_kept(tiny, capsys):
    images, paths = load_data_set(tiny.images, read_annotations(tiny.annotations))
    assert len(images) == len(paths) == 11
    assert "11 images with labels, 1 without (not used)" in capsys.readouterr().err
    images, paths = load_data_set(
        tiny.images, read_annotations(tiny.annotations), keep_unlabelled=True
    )
    assert len(images) == len(paths) == 12
    assert images.label_sets[7] == ()
    images, _ = load_data_set(tiny.images, read_annotations(tiny.annotations), limit=3)
    assert images.file_names == ["img_00.jpg", "img_01.jpg", "img_02.jpg"]


def test_a_set_without_labels(tiny):
    path = write_json(coco([()] * 12), tiny.folder / "none.json")
    with pytest.raises(UsageError, match="no labelled images"):
        load_data_set(tiny.images, read_annotations(path))


def test_single_images(tiny):
    images, paths = load_data_set(tiny.images / "img_02.jpg", read_annotations(tiny.annotations))
    assert paths == [tiny.images / "img_02.jpg"]
    assert [set(labels) for labels in images.label_sets] == [{"person", "dog", "cat"}]
    stranger = write_picture(tiny.folder / "stranger.jpg")
    for path in (stranger, tiny.images / "img_07.jpg"):
        with pytest.raises(UsageError, match="has no annotation in"):
            load_data_set(path, read_annotations(tiny.annotations))


# --- targets ----------------------------------------------------------------------------------


def test_targets_are_in_order_of_rank(tiny):
    images = read_annotations(tiny.annotations)
    targets = encode_targets(images, count_labels(images.label_sets, images.categories))
    assert targets.dtype == bool
    for row, labels in zip(targets, LABEL_SETS, strict=True):
        assert row.tolist() == [label in labels for label in RANKED]


def test_dropped_labels_are_ignored_and_unknown_ones_refused(tiny, capsys):
    images = read_annotations(tiny.annotations)
    rare = count_labels(images.label_sets, images.categories, min_count=4)
    targets = encode_targets(images, rare)
    assert targets.sum(0).tolist() == [7, 4, 4]
    assert (
        "2 labels are left out as too rare for the vocabulary: zebra, apple"
        in capsys.readouterr().err
    )
    with pytest.raises(UsageError, match="'zebra', which the vocabulary lacks"):
        encode_targets(images, Vocabulary(rare.labels, rare.counts, rare.num_images))
