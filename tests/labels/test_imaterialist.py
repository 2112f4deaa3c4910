"""iMaterialist: label numbers in lists, images by id or URL."""

import pytest
from conftest import write_json, write_picture

from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

IMAGES = [{"url": "https://host/one.jpg?x", "imageId": "1"}]
IMAGES += [{"url": ["https://host/two.jpg"], "imageId": "2"}]
ANNOTATIONS = [{"labelId": ["95", "66"], "imageId": "1"}, {"labelId": "66", "imageId": "2"}]
SET = {"info": {}, "license": {}, "images": IMAGES, "annotations": ANNOTATIONS}


@pytest.fixture
def names(tmp_path) -> ReadOptions:
    path = tmp_path / "label_map.csv"
    path.write_text("labelId,taskId,labelName,taskName\n95,1,red,colour\n66,2,dress,kind\n")
    return ReadOptions(label_names=path)


def test_numbers_need_names(tmp_path, names):
    path = write_json(SET, tmp_path / "train.json")
    images = read_labels(path, None, names)
    assert images.kind == "iMaterialist"
    assert images.file_names == ["1", "2"]
    assert images.label_sets == [("red", "dress"), ("dress",)]
    with pytest.raises(UsageError, match=r"labels that are numbers without names.*--label_names"):
        read_labels(path)


def test_other_years(tmp_path, names):
    annotations = [{"image_id": 1, "label_id": 66}, {"image_id": 2, "label_id": 95}]
    without_images = write_json({"annotations": annotations}, tmp_path / "a.json")
    assert read_labels(without_images, None, names).label_sets == [("dress",), ("red",)]
    images = [{"image_id": i, "url": [f"https://host/{i}.jpg"]} for i in (1, 2, 3)]
    path = write_json({"images": images, "annotations": annotations}, tmp_path / "b.json")
    images = read_labels(path, None, names)
    assert images.file_names == ["1", "2", "3"]
    assert images.label_sets == [("dress",), ("red",), ()]


def test_files_called_by_id_or_as_in_the_urls(tmp_path, names, capsys):
    path = write_json(SET, tmp_path / "train.json")
    for name in ("1.jpg", "2.jpg"):
        write_picture(tmp_path / "by_id" / name)
    assert read_labels(path, tmp_path / "by_id", names).file_names == ["1", "2"]
    write_picture(tmp_path / "by_url/one.jpg")
    assert read_labels(path, tmp_path / "by_url", names).file_names == ["one.jpg", "two.jpg"]
    assert "files are called as in the URLs, for example one" in capsys.readouterr().err
    write_picture(tmp_path / "by_url/2.jpg")
    with pytest.raises(UsageError, match=r"by imageId \(2\) and others .* URLs \(one\)"):
        read_labels(path, tmp_path / "by_url", names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "no annotations: its test set has no labels"),
        ({"annotations": [3]}, "damaged; iMaterialist needs a list annotations"),
        ({"images": [*IMAGES, IMAGES[0]]}, r"images\[2\] has the imageId 1 of another"),
        ({"images": [*IMAGES, {"url": ""}]}, r"images\[2\] has no imageId"),
        ({"images": IMAGES[:1]}, r"annotations\[1\] has the image 2, which is not in images"),
        ({"annotations": [{"imageId": "1", "labelId": None}]}, "has no labelId"),
        ({"annotations": [{"imageId": "1", "labelId": ["7"]}]}, "number 7, which has no name"),
    ],
)
def test_mistakes_stop(tmp_path, names, change, message):
    content = {k: v for k, v in {**SET, **change}.items() if v is not None}
    with pytest.raises(UsageError, match=message):
        read_labels(write_json(content, tmp_path / "train.json"), None, names)
