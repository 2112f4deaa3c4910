"""Where the labels of an image folder are: found in it, beside it or above it, or a stop."""

import gzip
import json
from pathlib import Path

import pytest
from conftest import coco, write_json, write_picture

from labels.read import read_labels
from labels.search import find_labels
from util.errors import UsageError

NAMES = ("p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg")
CSV = "file_name,labels\n" + "".join(f"{name},cat|dog\n" for name in NAMES)
STEMS = "image_name,tags\n" + "".join(f"{name[:-4]},cat dog\n" for name in NAMES)


def pictures(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    for number, name in enumerate(names):
        write_picture(folder / name, side=8 + number)
    return folder


def table(path: Path, text: str = CSV) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("anything.csv", CSV),
        ("train_v2.csv", STEMS),
        ("x.tsv", CSV.replace(",", "\t")),
        ("my table.csv", CSV.replace("\np", "\n/home/me/some set/p")),
        ("urls.csv", CSV.replace("\np", "\nhttps://host/P").replace(".jpg", ".jpg?size=2")),
        ("hashed.csv", CSV.replace("\np", "\n/data/upload/1/0a1b2c3d-p")),
        ("x.jsonl", "".join(f'{{"file_name": "{n}", "labels": ["cat"]}}\n' for n in NAMES)),
        ("instances.json", json.dumps(coco([("cat",)] * 4, list(NAMES)))),
        ("mapping.json", json.dumps({name: ["cat"] for name in NAMES})),
        ("labels.json", json.dumps({"classes": ["a"], "labels": {n[:-4]: [0] for n in NAMES}})),
        ("list_attr.txt", "4\ncat dog\n" + "".join(f"{n}  1 -1\n" for n in NAMES)),
        ("annotations.xml", "<annotations>" + "".join(f'<image name="{n}"/>' for n in NAMES)),
    ],
)
@pytest.mark.parametrize("at", ["set/{}", "set/images/{}", "{}", "set/annotations/{}"])
def test_the_one_file_that_lists_the_pictures(tmp_path, name, text, at):
    """Whatever its name; files of other pictures, notes and sample submissions do not count."""
    expected = table(tmp_path / "a" / at.format(name), text)
    images = pictures(tmp_path / "a/set/images/train")
    table(tmp_path / "a/set/other.csv", CSV.replace("\np", "\nq"))
    table(tmp_path / "a/set/sample_submission.csv")
    table(tmp_path / "a/set/classes.csv", "id,name\n0,cat\n1,dog\n")
    table(tmp_path / "a/set/README.txt", "The file p0.jpg\nshows a cat.\nWhat else\nis there?\n")
    table(tmp_path / "a/set/images/train.txt", "\n".join(NAMES))
    for number in range(4):
        table(images / f"p{number}.json", f'{{"image": "p{number}.jpg"}}')
    for image_path in (images.parent, images.parents[1]):
        assert find_labels(image_path, "train") == expected
    if not at.startswith("{"):
        assert find_labels(images, "train") == expected
    assert find_labels(images.parent, "val") == expected


def test_zipped_and_utf_16(tmp_path):
    pictures(tmp_path / "zip/images")
    (tmp_path / "zip/x.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert find_labels(tmp_path / "zip/images", "train").name == "x.csv.gz"
    pictures(tmp_path / "excel/images")
    (tmp_path / "excel/x.txt").write_bytes(CSV.replace(",", "\t").encode("utf-16"))
    assert find_labels(tmp_path / "excel", "train").name == "x.txt"


def test_names_far_behind_in_a_large_file(tmp_path):
    images = pictures(tmp_path / "set/images")
    far = coco([("cat",)] * 4, list(NAMES))
    filling = [{"image_id": 0, "category_id": 0, "segmentation": [[0.5] * 900]}] * 3000
    write_json({"annotations": filling, "images": far["images"]}, tmp_path / "set/all.json")
    assert (tmp_path / "set/all.json").stat().st_size > 5e6
    assert find_labels(images, "train").name == "all.json"
    many = pictures(tmp_path / "rows/images", tuple(f"p{i}.jpg" for i in range(120)))
    rows = (f"q{i}.jpg,cat,{'x' * 50}\n" for i in range(50_000))
    table(tmp_path / "rows/t.csv", "file_name,labels,note\n" + "".join(rows) + CSV)
    assert find_labels(many, "train").name == "t.csv"


def test_several_files_stop_unless_a_name_decides(tmp_path):
    images = pictures(tmp_path / "set/images")
    table(tmp_path / "set/a.csv")
    table(tmp_path / "set/images/deep/b.csv")
    for image_path in (tmp_path / "set", images):
        with pytest.raises(UsageError, match=r"2 files .*a\.csv.*b\.csv.*or .*--annotations|2 fil"):
            find_labels(image_path, "train")
    (tmp_path / "set/images/deep/b.csv").unlink()
    table(tmp_path / "set/labels.csv")
    assert find_labels(images, "train").name == "labels.csv", "the name that the README gives"
    table(tmp_path / "set/labels.tsv", CSV.replace(",", "\t"))
    with pytest.raises(UsageError, match=r"2 files.*labels\.csv, .*labels\.tsv"):
        find_labels(images, "train")
    table(tmp_path / "set/labels.tsv", "id\tname\n0\tcat\n")
    assert find_labels(images, "train").name == "labels.csv"


def test_numbers_of_labels_are_no_names_of_images(tmp_path):
    """0 and 1 in a list of labels, or of epochs, look like 0.jpg and 1.jpg."""
    images = pictures(tmp_path / "set/images", ("0.jpg", "1.jpg", "2.jpg"))
    table(tmp_path / "set/labels.csv", "id,name\n0,cat\n1,dog\n")
    table(tmp_path / "set/epochs.csv", "epoch,loss\n0,1.5\n1,0.5\n2,0.4\n")
    table(tmp_path / "set/id2label.json", '{"0": "cat", "1": "dog", "2": "hat"}')
    for image_path in (images, tmp_path / "set"):
        with pytest.raises(UsageError, match=r"no labels of the images.*overlooked.*labels\.csv"):
            find_labels(image_path, "train")
    table(tmp_path / "set/train.csv", "id,tags\n0,cat|dog\n1,cat\n2,cat\n")
    assert find_labels(images, "train").name == "train.csv"
    assert find_labels(images / "1.jpg", "train").name == "train.csv"
    table(tmp_path / "set/more.csv", "file,tags\n0.jpg,cat|dog\n1.jpg,cat\n2.jpg,cat\n")
    assert find_labels(images, "train").name == "more.csv", "suffixes are surer"


def test_the_split_in_the_names_decides(tmp_path, capsys):
    images = pictures(tmp_path / "set/images")
    for split in ("train", "val", "test"):
        table(tmp_path / f"set/{split}_v2.csv")
    train = pictures(tmp_path / "set/train")
    assert find_labels(train, "train").name == "train_v2.csv"
    assert "not used: " in capsys.readouterr().err
    # of a folder of all pictures: one data set with splits
    assert find_labels(images, "train") == find_labels(images, "val") == tmp_path / "set"
    table(tmp_path / "set/test_v2.csv", "file_name\n" + "\n".join(NAMES))
    assert find_labels(images, "train") == tmp_path / "set"
    table(tmp_path / "set/val_v2.csv", "file_name\n" + "\n".join(NAMES))
    assert find_labels(tmp_path / "set", "train").name == "train_v2.csv"
    assert find_labels(tmp_path / "set", "val").name == "val_v2.csv"
    table(tmp_path / "set/more.csv")
    with pytest.raises(UsageError, match="4 files"):
        find_labels(images, "train")
    # a table in each split folder: parts of one set
    for split in ("train", "val"):
        pictures(tmp_path / "parts" / split)
        table(tmp_path / f"parts/{split}/table.csv")
    assert find_labels(tmp_path / "parts", "train") == tmp_path / "parts"
    assert find_labels(tmp_path / "parts/val", "train").parent.name == "val"


def test_known_names_beside_the_pictures(tmp_path):
    images = pictures(tmp_path / "set/train")
    line = '{{"file_name": "{}", "labels": ["cat"]}}\n'
    expected = table(images / "metadata.jsonl", "".join(map(line.format, NAMES)))
    table(tmp_path / "set/other.csv")
    assert find_labels(images, "train") == expected


def test_the_folder_above_has_the_layout(tmp_path):
    images = pictures(tmp_path / "VOC2007/JPEGImages")
    for name in NAMES:
        xml = "<annotation><object><name>cat</name></object></annotation>"
        table(tmp_path / f"VOC2007/Annotations/{name[:-4]}.xml", xml)
    for image_path in (images, images.parent, tmp_path):
        assert read_labels(find_labels(image_path, "train")).label_sets == [("cat",)] * 4


def test_nothing_found_says_what_was_overlooked(tmp_path):
    images = pictures(tmp_path / "set/images")
    table(tmp_path / "set/other.csv", CSV.replace("\np", "\nq"))
    table(tmp_path / "set/classes.csv", "id,name\n0,cat\n1,dog\n")
    with pytest.raises(UsageError) as caught:
        find_labels(images, "train")
    message = str(caught.value)
    assert "no annotations folder beside it" in message
    assert "other.csv (lists q0.jpg)" in message
    assert "classes.csv (lists no file names)" in message
    assert "--annotations" in message
    assert "\n" not in message
    with pytest.raises(UsageError, match="does not exist"):
        find_labels(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="contains no pictures"):
        find_labels(tmp_path / "empty", "train")


def test_a_single_image(tmp_path):
    images = pictures(tmp_path / "set/images")
    table(tmp_path / "set/a.csv")
    table(tmp_path / "set/b.csv", CSV.replace("p3", "q3"))
    assert find_labels(images / "p3.jpg", "train").name == "a.csv"
    with pytest.raises(UsageError, match="2 files"):
        find_labels(images / "p2.jpg", "train")


# --- a folder per label -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["images"],
        ["cat"],
        ["images", "masks"],
        ["train-jpg", "test-jpg"],
        ["images_001/images", "images_002/images"],
        ["train/images", "val/images"],
        ["train2014", "val2014"],
        ["batch_1", "batch_2"],
        ["a/b/c"],
    ],
)
def test_names_of_data_and_single_folders_are_no_labels(tmp_path, names):
    for number, name in enumerate(names):
        pictures(tmp_path / "set" / name, (f"{number}.jpg",))
    with pytest.raises(UsageError, match="no folders named as labels"):
        find_labels(tmp_path / "set", "train")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cat", "dog", "images"], "images, which by its name holds data"),
        (["cat", "dog", "train"], "train, which by its name holds data"),
        (["train/cat", "train/dog", "val/cat", "extra/x"], "train, val, which"),
        (["animal", "animal/cat", "vehicle"], r"animal has folders of its own.*cat with 1 pic"),
        (["cat/2019", "dog/2019"], "cat has folders of its own, for example 2019"),
        (["cat/train", "cat/test", "dog/train"], "cat has folders of its own"),
        (["VOC2007/JPEGImages", "VOC2012/JPEGImages"], "VOC2007 has folders of its own"),
        (["0", "1"], "labels that are numbers without names"),
    ],
)
def test_folders_with_two_readings_stop(tmp_path, names, sentence):
    for number, name in enumerate(names):
        pictures(tmp_path / "set" / name, (f"{number}.jpg",))
    with pytest.raises(UsageError, match=sentence):
        read_labels(find_labels(tmp_path / "set", "train"))


def test_what_systems_leave_is_ignored_and_other_files_are_counted(tmp_path, capsys):
    root = tmp_path / "photos"
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            pictures(root / split / label, (f"{split}_{label}.jfif", "._a.jpg"))
    pictures(root / "__MACOSX/train/bird", ("._x.jpg", "x.jpg"))
    pictures(root / "train/.hidden", ("y.jpg",))
    for name in ("train/cat/a.JXL", "train/dog/b.jxl", "val/dog/c.txt", "train/Thumbs.db"):
        (root / name).write_bytes(b"x")
    (root / "models/2024").mkdir(parents=True)
    (root / "models/best.pt").write_bytes(b"x")
    images = read_labels(find_labels(root, "train"))
    assert images.categories == ["cat", "dog"]
    assert images.splits == ["train"] * 2 + ["val"] * 2, images.file_names
    said = capsys.readouterr().err
    assert "the labels are the names of folders, cat, dog" in said
    assert "2 .jxl files left out: convert them to JPEG; 1 .pt file left out; 1 .txt" in said
    assert "Thumbs" not in said


def test_a_folder_around_the_label_folders(tmp_path):
    for label in ("cat", "dog"):
        pictures(tmp_path / "archive/PetImages" / label, (f"{label}.jpg",))
    images = read_labels(find_labels(tmp_path, "train"))
    assert images.file_names == ["archive/PetImages/cat/cat.jpg", "archive/PetImages/dog/dog.jpg"]
    assert images.label_sets == [("cat",), ("dog",)]


def test_a_table_for_each_split_is_one_data_set(tmp_path):
    pictures(tmp_path / "photos")
    for split, part in (("train", NAMES[:2]), ("valid", NAMES[2:3]), ("test", NAMES[3:])):
        table(
            tmp_path / f"{split}.csv",
            "file_name,labels\n" + "".join(f"{n},cat|dog\n" for n in part),
        )
    read = read_labels(find_labels(tmp_path / "photos", "train"))
    assert read.splits == ["train", "train", "val", "test"]
    table(tmp_path / "test.csv", f"file_name\n{NAMES[3]}\n")  # Kaggle's, without labels
    assert read_labels(find_labels(tmp_path, "train")).splits == ["train", "train", "val"]
    table(tmp_path / "val.csv")  # beside valid.csv: which of them?
    assert find_labels(tmp_path, "train").name == "train.csv"


def test_tables_for_splits_name_pictures_of_their_own_folder(tmp_path):
    for split in ("train", "test"):
        pictures(tmp_path / split)
        table(tmp_path / f"{split}.csv")
    read = read_labels(find_labels(tmp_path, "train"))
    assert read.file_names[0::4] == ["train/p0.jpg", "test/p0.jpg"]
    table(tmp_path / "test.csv", CSV.replace("labels", "label_names"))
    assert find_labels(tmp_path / "test", "val").name == "test.csv"
    pictures(tmp_path / "all")
    both = table(tmp_path / "sets/train.csv").parent
    table(both / "val.csv")
    with pytest.raises(UsageError, match=r"row 2 of val\.csv, puts p0\.jpg in val"):
        read_labels(both)


def test_corrected_labels_are_used_only_if_they_are_alone_or_named(tmp_path, capsys):
    """Beside other labels, labels.corrected.csv is not taken: one line says that it is there."""
    images = pictures(tmp_path / "set/images")
    corrected = table(tmp_path / "set/labels.corrected.csv")
    assert find_labels(images, "train") == corrected
    assert "not used" not in capsys.readouterr().err
    table(tmp_path / "set/photos.csv")
    with pytest.raises(UsageError, match=r"2 files .*labels\.corrected\.csv.*name the one with"):
        find_labels(images, "train")
    table(tmp_path / "set/labels.csv")
    again = table(images / "labels.corrected (1).csv")
    capsys.readouterr()
    assert find_labels(images, "train").name == "labels.csv"
    said = capsys.readouterr().err
    assert said.count("not used") == 1
    assert str(corrected) in said
    assert str(again) in said
    assert "--annotations" in said


def test_corrected_labels_beside_a_data_set(tmp_path, capsys):
    header = "filename,cat,dog\n"
    for split, name in zip(("train", "valid"), NAMES, strict=False):
        pictures(tmp_path / "set" / split, (name,))
        table(tmp_path / "set" / split / "_classes.csv", f"{header}{name},1,0\n")
    table(tmp_path / "set/labels.corrected.csv")
    assert find_labels(tmp_path / "set", "train") == tmp_path / "set"
    assert capsys.readouterr().err.count("labels.corrected.csv") == 1
    content = coco([("cat",)] * 4, list(NAMES))
    write_json(content, tmp_path / "coco/annotations/instances.json")
    table(tmp_path / "coco/labels.corrected.csv")
    with pytest.raises(UsageError, match=r"2 files .*labels\.corrected\.csv.*instances"):
        find_labels(pictures(tmp_path / "coco/images"), "train")


def test_predictions_are_no_labels(tmp_path):
    """sample.py may write them into the folder of the photos."""
    images = pictures(tmp_path / "set/images")
    table(images / "tagged/predictions.csv")
    with pytest.raises(UsageError, match="no labels of the images"):
        find_labels(images, "train")
