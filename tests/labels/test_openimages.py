"""Open Images: rows of labels that are present or absent, and the names of their ids."""

from pathlib import Path

import pytest

from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

HEADER = "ImageID,Source,LabelName,Confidence\n"
ROWS = "a1,verification,/m/01,1\na1,verification,/m/02,0\nb2,crowd,/m/02,1\nc3,crowd,/m/01,0\n"
NAMES = '/m/01,Cat\n/m/02,"Dog, big"\n/m/03,Hat\n'


def write(folder: Path, split: str, rows: str = ROWS, header: str = HEADER) -> Path:
    path = folder / f"{split}-annotations-human-imagelabels.csv"
    path.write_text(header + rows)
    return path


@pytest.mark.parametrize("where", [".", "..", "../.."])
def test_names_are_found_beside_the_file_or_above_it(tmp_path, capsys, where):
    folder = tmp_path / "one/two"
    folder.mkdir(parents=True)
    path = write(folder, "train")
    (folder / where / "oidv7-class-descriptions.csv").write_text("LabelName,DisplayName\n" + NAMES)
    images = read_labels(path)
    assert images.file_names == ["a1", "b2", "c3"]
    assert images.label_sets == [("Cat",), ("Dog, big",), ()]
    assert images.categories == ["Cat", "Dog, big"]
    printed = capsys.readouterr().err
    assert "class-descriptions.csv names the labels: /m/01 is 'Cat'" in printed
    assert "2 rows of Confidence 0 are absent labels" in printed


def test_a_folder_gives_splits(tmp_path):
    (tmp_path / "class-descriptions.csv").write_text(NAMES)
    write(tmp_path, "train")
    write(tmp_path, "validation", "d4,crowd,/m/03,1\n")
    images = read_labels(tmp_path)
    assert images.splits == ["train"] * 3 + ["val"]
    assert images.label_sets[3] == ("Hat",)
    write(tmp_path, "test", "a1,crowd,/m/03,1\n")
    with pytest.raises(UsageError, match="the image a1 is in"):
        read_labels(tmp_path)
    (tmp_path / "test-annotations-bbox.csv").write_text("ImageID,LabelName\ne5,/m/01\n")
    with pytest.raises(UsageError, match=r"test-annotations-bbox\.csv.*name the one with --annot"):
        read_labels(tmp_path)


def test_names_by_flag_boxes_and_labels_in_full(tmp_path, capsys):
    names = tmp_path / "names.csv"
    names.write_text("/m/01,Cat\n/m/02,Cat\n")
    images = read_labels(write(tmp_path, "train"), None, ReadOptions(label_names=names))
    assert images.label_sets == [("Cat",), ("Cat",), ()]
    assert "ids of one name are one label: Cat" in capsys.readouterr().err
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("ImageID,LabelName,XMin\na1,Cat,0.1\na1,Cat,0.2\na1,Dog,0.2\n")
    assert read_labels(boxes).label_sets == [("Cat", "Dog")]


def test_a_table_with_a_column_of_its_own_is_an_ordinary_table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("ImageID,LabelName,split\na1,Cat,train\na2,Dog,test\n")
    assert read_labels(path).splits == ["train", "test"]
    path.write_text("ImageID,LabelName,Confidence,present\na1,Cat,1,0\na2,Dog,1,1\n")
    with pytest.raises(UsageError):
        read_labels(path)


def test_both_present_and_absent_counts_as_present_and_is_said(tmp_path, capsys):
    (tmp_path / "class-descriptions.csv").write_text(NAMES)
    path = write(tmp_path, "train", "a1,verification,/m/01,0\na1,crowd,/m/01,1\n")
    assert read_labels(path).label_sets == [("Cat",)]
    assert "1 label has 1 and 0: it counts as 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (ROWS, None, "labels that are ids, as /m/01: give their names.*--label_names"),
        (ROWS, "/m/01,Cat\n", "no name for the label /m/02"),
        ("a1,machine,/m/01,0.7\n", NAMES, "row 2, has Confidence '0.7': only 0 and 1"),
        ("a1,machine,/m/01,\n", NAMES, "row 2, has Confidence ''"),
        ("a1,machine,/m/01\n", NAMES, "row 2, has 3 cells, its header 4"),
        (",machine,/m/01,1\n", NAMES, "row 2, has no ImageID"),
        ('a1,"machine,/m/01,1\n', NAMES, "row 2, cannot be read"),
        ("", NAMES, "lists no images"),
    ],
)
def test_mistakes_stop(tmp_path, rows, names, message):
    path = write(tmp_path, "train", rows)
    if names:
        (tmp_path / "class-descriptions.csv").write_text(names)
    with pytest.raises(UsageError, match=message):
        read_labels(path)
