"""COCO files that are no instances json: LVIS, panoptic, captions, ids that are texts."""

import json

import pytest
from conftest import coco, write_json

from images.find import find_images
from labels.coco import read_annotations, read_objects
from util.errors import UsageError


def refusal(content, path) -> str:
    with pytest.raises(UsageError) as caught:
        read_annotations(write_json(content, path))
    return str(caught.value)


def texts(content: dict) -> dict:
    """The same with ids that are texts."""
    for part, keys in (
        ("images", ["id"]),
        ("categories", ["id"]),
        ("annotations", ["image_id", "category_id"]),
    ):
        for entry in content[part]:
            entry |= {key: f"x{entry[key]}" for key in keys}
    return content


def test_ids_that_are_texts(tmp_path, tiny):
    expected = read_annotations(tiny.annotations)
    images = read_annotations(write_json(texts(coco()), tmp_path / "x.json"))
    order = [images.file_names.index(name) for name in expected.file_names]
    assert [set(images.label_sets[i]) for i in order] == [set(s) for s in expected.label_sets]
    assert images.categories == expected.categories
    content = texts(coco())
    content["annotations"][3]["image_id"] = "lost"
    assert "annotations[3] has image_id 'lost', which is not in images" in refusal(
        content, tmp_path / "x.json"
    )
    content["annotations"][3]["image_id"] = 7
    assert "expected int, got str" in refusal(content, tmp_path / "x.json")
    content = texts(coco())
    content["images"][1]["id"] = content["images"][0]["id"]
    assert "two entries of images have the same id" in refusal(content, tmp_path / "x.json")


def lvis() -> dict:
    content = coco()
    for image in content["images"]:
        url = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image |= {"coco_url": url, "neg_category_ids": [1], "not_exhaustive_category_ids": []}
    for annotation in content["annotations"]:
        annotation |= {"bbox": [1, 2, 3, 4], "segmentation": [[0, 0, 9, 0, 9, 9]]}
    return content


def test_lvis(tmp_path, tiny, capsys):
    expected = read_annotations(tiny.annotations)
    path = write_json(lvis(), tmp_path / "lvis_v1_train.json")
    images = read_annotations(path)
    assert images.label_sets == expected.label_sets
    assert images.file_names[0] == "train2017/img_00.jpg"
    assert find_images(tiny.images, images) == find_images(tiny.images, expected)
    assert "neg_category_ids are unknown; --blank absent" in capsys.readouterr().err
    (person,) = read_objects(path)["train2017/img_00.jpg"]
    assert (person.bbox, person.segmentation) == ([1, 2, 3, 4], [[0, 0, 9, 0, 9, 9]])
    content = lvis()
    content["images"][1]["coco_url"] = "http://x/"
    assert "missing required field file_name" in refusal(content, path)


def test_panoptic(tmp_path, tiny):
    expected = read_annotations(tiny.annotations)
    content = coco()
    segments: dict[int, list] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        segments[annotation["image_id"]].append(
            {"id": 7, "category_id": annotation["category_id"], "bbox": [0, 0, 2, 2]}
        )
    content["annotations"] = [
        {"image_id": i, "file_name": f"{i}.png", "segments_info": s} for i, s in segments.items()
    ]
    path = write_json(content, tmp_path / "panoptic_train.json")
    images = read_annotations(path)
    assert [set(s) for s in images.label_sets] == [set(s) for s in expected.label_sets]
    assert read_objects(path)["img_00.jpg"][0].bbox == [0, 0, 2, 2]
    content["annotations"][0]["segments_info"] = [{"id": 7}]
    assert "missing required field category_id" in refusal(content, path)
    content["annotations"][0]["segments_info"] = [{"category_id": 99}]
    assert "category_id 99, which is not in categories" in refusal(content, path)


@pytest.mark.parametrize(
    ("name", "better"),
    [("captions_val2014.json", "instances_val2014.json"), ("x.json", "instances_….json")],
)
def test_captions_name_the_file_to_use(tmp_path, name, better):
    content = coco()
    del content["categories"]
    content["annotations"] = [{"image_id": 100, "id": 1, "caption": "a cat"}]
    path = tmp_path / name
    assert refusal(content, path).endswith(f"has captions, no categories: use {better}")
    content["categories"] = []
    assert "missing required field category_id" in refusal(content, path)
    content["annotations"] = []
    del content["categories"]
    assert "needs the lists" in refusal(content, path)


def test_a_label_of_none_is_refused(tmp_path):
    content = coco()
    content["annotations"][2]["category_id"] = None
    assert "annotations[2].category_id" in refusal(content, tmp_path / "x.json")
    path = tmp_path / "x.json"
    path.write_text(json.dumps(texts(coco())).replace('"x1"', "null"))
    assert "x.json is not COCO instances json" in refusal(json.loads(path.read_text()), path)
