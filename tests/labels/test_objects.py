"""Where objects are, as COCO json says it: boxes, polygons and masks."""

import json

import pytest
from conftest import coco, write_json

from labels.coco import read_objects
from util.errors import UsageError

POLYGON = [[0, 0, 9, 0, 9.5, 9]]
RLE = {"size": [3, 4], "counts": [1, 2, 9]}


def with_geometry(**fields) -> dict:
    """The tiny set; its first annotation has these fields, all others have a box."""
    content = coco()
    for annotation in content["annotations"]:
        annotation["bbox"] = [1, 2, 3.5, 4]
    content["annotations"][0] |= fields
    content["images"][0] |= {"width": 40, "height": 30}
    return content


def test_boxes_polygons_and_masks(tmp_path):
    path = write_json(with_geometry(segmentation=POLYGON), tmp_path / "a.json")
    objects = read_objects(path)
    assert list(objects) == [f"img_{i:02d}.jpg" for i in range(12)]
    (person,) = objects["img_00.jpg"]
    assert (person.label, person.bbox, person.iscrowd) == ("person", [1, 2, 3.5, 4], False)
    assert person.image_size == (40, 30)
    assert person.segmentation == POLYGON
    assert [o.label for o in objects["img_01.jpg"]] == ["person", "dog", "dog"]
    assert objects["img_01.jpg"][0].segmentation is None
    assert objects["img_01.jpg"][0].image_size is None
    assert objects["img_07.jpg"] == []
    path = write_json(with_geometry(segmentation=RLE, iscrowd=1, bbox=None), path)
    (crowd,) = read_objects(path)["img_00.jpg"]
    assert (crowd.segmentation, crowd.iscrowd, crowd.bbox) == (RLE, True, None)


def test_a_file_without_geometry_is_refused(tiny):
    with pytest.raises(UsageError, match=r"instances\.json has no boxes or masks"):
        read_objects(tiny.annotations)
    content = coco()
    for annotation in content["annotations"]:
        annotation |= {"bbox": [], "segmentation": []}
    with pytest.raises(UsageError, match="has no boxes or masks"):
        read_objects(write_json(content, tiny.annotations))


@pytest.mark.parametrize("bbox", [[1, 2, 3], ["1", 2, 3, 4], "box", 7, [True, 2, 3, 4]])
def test_a_wrong_box_is_refused_with_its_place(tmp_path, bbox):
    path = write_json(with_geometry(bbox=bbox), tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"a\.json.*annotations\[0\]"):
        read_objects(path)


WRONG_MASKS = [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [["x"]], {"size": [3, 4]}, 7, "mask", [1]]


@pytest.mark.parametrize("segmentation", WRONG_MASKS, ids=json.dumps)
def test_a_wrong_mask_is_refused_with_its_place(tmp_path, segmentation):
    path = write_json(with_geometry(segmentation=segmentation), tmp_path / "a.json")
    (person,) = read_objects(path)["img_00.jpg"]
    with pytest.raises(UsageError, match=r"a\.json: annotations\[0\] has a"):
        _ = person.segmentation


def test_numbers_that_are_not_json_are_refused(tmp_path):
    path = write_json(with_geometry(bbox=[float("nan"), 0, 1, 1]), tmp_path / "a.json")
    with pytest.raises(UsageError, match="is not COCO instances json"):
        read_objects(path)
