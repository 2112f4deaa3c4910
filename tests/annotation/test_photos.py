"""The photos of a folder, and what is known of them."""

import os

import pytest
from conftest import write_picture, write_table

from annotation.order import Issue, Rating
from annotation.photos import (
    Annotations,
    list_photos,
    read_annotations,
    read_issues,
    read_label_list,
    without_corrected,
)
from annotation.store import Answer, Store
from labels.label_numbers import read_label_names
from labels.options import DEFAULTS
from labels.read import read_labels
from util.errors import UsageError

HEADER = ("file_name", "label", "annotation", "probability", "marginal")


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "sub/a.jpg", "=1.jpg", ".hidden.jpg"):
        write_picture(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("no photo")
    return tmp_path / "photos"


def test_names_are_relative_and_in_order(photos):
    names, paths = list_photos(photos)
    assert names == ["=1.jpg", "b.jpg", "sub/a.jpg"]
    assert paths == [photos / name for name in names]


def test_names_that_no_table_can_hold_are_left_out(photos, capsys):
    try:
        os.rename(os.fsencode(photos / "b.jpg"), os.fsencode(photos) + b"/\xff.jpg")
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert list_photos(photos)[0] == ["=1.jpg", "sub/a.jpg"]
    assert "no table can hold the name" in capsys.readouterr().err


def test_annotations_name_photos_as_in_training(photos, tmp_path, capsys):
    rows = [("A.JPG", "cat|dog", "val"), ("'=1.jpg", "", "train"), ("gone.jpg", "cat", "train")]
    table = write_table(tmp_path, ("file_name", "labels", "split"), rows)
    read = read_annotations(table, photos, DEFAULTS, list_photos(photos)[0])
    assert read.answers == {
        "sub/a.jpg": Answer(("cat", "dog"), False, "val"),
        "=1.jpg": Answer((), False, "train"),
    }
    assert read.number_of == {"A.JPG": 2, "=1.jpg": 0}
    said = capsys.readouterr().err
    assert "1 of the 3 images" in said
    assert "get the split train" in said


def test_issues_are_about_the_names_of_the_annotations(photos, tmp_path, capsys):
    rows = [("A.JPG", "cat"), ("'=1.jpg", "dog")]
    table = write_table(tmp_path, ("file_name", "labels"), rows)
    names = list_photos(photos)[0]
    read = read_annotations(table, photos, DEFAULTS, names)
    issues = [
        ("A.JPG", "'-1", "missing", 0.3, 0.5),
        ("A.JPG", "cat", "surplus", 0.1, 0.5),
        ("'=1.jpg", "dog", "surplus", 0.2, 0.5),
        ("other.jpg", "dog", "surplus", 0.2, 0.5),
    ]
    found = read_issues(write_table(tmp_path, HEADER, issues, "i.csv"), names, read)
    assert found == {
        0: Rating(-2, (Issue("dog", "surplus", 0.2, -2),)),
        2: Rating(0, (Issue("-1", "missing", 0.3, 0), Issue("cat", "surplus", 0.1, -1))),
    }, "in the order of the file"
    assert "1 row of" in capsys.readouterr().err
    store = Store(tmp_path / "o.csv", read.answers)
    assert without_corrected(found, names, store) == found
    store.answer("=1.jpg", [], store.version("=1.jpg"))
    store.answer("sub/a.jpg", ["-1", "cat"], store.version("sub/a.jpg"))
    assert without_corrected(found, names, store) == {
        2: Rating(-1, (Issue("cat", "surplus", 0.1, -1),))
    }
    assert "note: 2 issues do not fit the annotations: corrected" in capsys.readouterr().err
    store.close()


@pytest.mark.parametrize(
    "row",
    [
        ("b.jpg", "cat", "perhaps", 0.5, 0),
        ("b.jpg", "cat", "surplus", 1.5, 0),
        ("b.jpg", "cat", "surplus", "nan", 0),
        ("b.jpg", "cat"),
    ],
)
def test_damaged_issues(photos, tmp_path, row):
    table = write_table(tmp_path, ("file_name", "labels"), [("b.jpg", "cat")])
    names = list_photos(photos)[0]
    read = read_annotations(table, photos, DEFAULTS, names)
    with pytest.raises(UsageError, match=r"i\.csv, row 2, is damaged"):
        read_issues(write_table(tmp_path, HEADER, [row], "i.csv"), names, read)


def test_a_list_of_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n\r\n hot  dog \ncat\nétang".encode())
    assert read_label_list(path) == ["cat", "hot dog", "étang"]
    path.write_text("cat\x00dog")
    with pytest.raises(UsageError):
        read_label_list(path)


@pytest.mark.parametrize("broken", ["a\rb", "x" * 200_000])
def test_tables_that_csv_cannot_read_are_one_sentence(tmp_path, broken):
    """A line end in a cell without quotes, and a cell longer than Python's csv takes."""
    path = tmp_path / "broken.csv"
    path.write_bytes(f"{','.join(HEADER)}\n{broken},1,1,1,1\n".encode())
    with pytest.raises(UsageError, match=r"broken\.csv.*is damaged"):
        read_issues(path, ["a.jpg"], Annotations("t.csv", {}, {}))
    with pytest.raises(UsageError, match=r"broken\.csv"):
        read_label_names(path)
    path.write_bytes(f"{broken},1,1,1\nc,d,e,f\n".encode())
    with pytest.raises(UsageError, match=r"broken\.csv"):
        read_labels(path)
