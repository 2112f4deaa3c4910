"""--unknown and --checked, as people give them: what is read, and what stops."""

import json
from pathlib import Path

import pytest
from conftest import write_picture
from test_read_unknown import H, read, said

from labels.options import ReadOptions
from labels.read import read_labels
from labels.search import find_labels
from util.errors import UsageError


@pytest.mark.parametrize("mark", ["NA", "nan", "None", "n/a"])
def test_blanks_of_programs_that_are_named(tmp_path, mark):
    """Both as the user says: NA is not known, a blank cell is no."""
    content = f"{H}a,1,{mark}\nb,{mark},1\nc,0,{mark}\nd,,0\ne,1,\n"
    assert read(tmp_path, content, unknown=(mark,), blank="absent") == [
        *("cat dog?", "dog cat?", "dog?", "", "cat")
    ]
    content = f"{H}a,x,{mark}\nb,,x\nc,x,\n"
    assert read(tmp_path, content, unknown=(mark,)) == ["cat dog?", "dog", "cat"]
    with pytest.raises(UsageError, match="--unknown '': say --blank unknown"):
        read(tmp_path, content, unknown=("",))


def test_a_dash_is_a_blank_cell(tmp_path):
    content = f"{H}a,yes,-\nb,no,yes\nc,-,no\n"
    with pytest.raises(UsageError, match="2 cells that are blank or - beside no and 1"):
        read(tmp_path, content)
    assert read(tmp_path, content, blank="unknown") == ["cat dog?", "dog", "cat?"]
    assert read(tmp_path, content, blank="absent") == ["cat", "dog", ""]
    assert read(tmp_path, content, unknown=("-",)) == ["cat dog?", "dog", "cat?"]
    assert read(tmp_path, f"{H}a,x,-\nb,-,x\n") == ["cat", "dog"]  # no other cell says no
    mostly = f"{H}a,yes,-\nb,-,yes\nc,no,-\nd,-,-\ne,-,no\n"
    assert read(tmp_path, mostly, blank="absent") == ["cat", "dog", "", "", ""]
    assert read(tmp_path, mostly, blank="unknown") == [
        *("cat dog?", "dog cat?", "dog?", "cat? dog?", "cat?")
    ]


@pytest.mark.parametrize("odd", ["Not checked", "weiß nicht", "maybe"])
def test_a_value_beside_yes_and_no_is_not_taken_for_a_label(tmp_path, odd):
    """Most cells hold it, so the columns look like text."""
    content = f"{H}a,Yes,{odd}\nb,{odd},Yes\nc,No,{odd}\nd,{odd},{odd}\ne,{odd},No\n"
    with pytest.raises(UsageError, match=f"'{odd}' in the column 'cat'.*with --label_columns, or"):
        read(tmp_path, content)
    columns = {"label_columns": ("cat", "dog")}
    with pytest.raises(UsageError, match=f"'{odd}' in the column 'cat', beside yes and no: say --"):
        read(tmp_path, content, **columns)
    assert "cat" not in read(tmp_path, content, separator="", **columns)[0]
    found = read(tmp_path, content, unknown=(odd,))
    assert found == ["cat dog?", "dog cat?", "dog?", "cat? dog?", "cat?"]


def test_texts_that_are_no_yes_and_no(tmp_path):
    """Other columns beside labels are left out; classes in columns that are named are labels."""
    for values in (("4a", "2", "1"), ("x", "y", "z"), ("si", "en", "de")):
        rows = "".join(f"{i},1,0,{v}\n" for i, v in enumerate(values * 2))
        content = f"file_name,cat,dog,about\n{rows}x,0,1,\n"
        assert read(tmp_path, content) == ["cat"] * 2 * len(values) + ["dog"]
    pairs = ("positive,neutral", "neutral,positive", "negative,neutral", "neutral,negative")
    rows = "".join(f"{i}.jpg,{pair}\n" for i, pair in enumerate((*pairs, "neutral,neutral")))
    content = f"ID,text,image\n{rows}"
    found = read(tmp_path, content, label_columns=("text", "image"), file_column="ID")
    assert found == ["neutral positive"] * 2 + ["negative neutral"] * 2 + ["neutral"]


def test_unknown_in_a_column_of_labels(tmp_path, capsys):
    content = "file_name,labels\na,dog\nb,cat\nc,?\nd,dog|cat\n"
    with pytest.raises(
        UsageError, match=r"row 4, has labels '\?': write the labels that are known"
    ):
        read(tmp_path, content)
    assert read(tmp_path, content, unknown=("?",)) == ["dog", "cat", "cat? dog?", "cat dog"]
    assert "1 image is not known (--unknown)" in capsys.readouterr().err
    content = content.replace("?", "not seen")
    assert read(tmp_path, content, unknown=("not seen",))[2] == "cat? dog?"
    capsys.readouterr()
    assert read(tmp_path, content, unknown=("unclear",))[2] == "not seen"
    assert "note: no label cell of" in capsys.readouterr().err
    rows = "file_name,label\na,dog\na,?\nb,cat\nb,dog\nc,hat\n"  # of the image, not of its row
    assert read(tmp_path, rows, unknown=("?",)) == ["dog cat? hat?", "cat dog", "hat"]
    for value in ("NA", "?"):
        both = f"file_name,labels,checked_labels\na,{value},cat|dog\nb,cat,cat|dog\nc,dog,dog\n"
        assert read(tmp_path, both, unknown=(value,)) == ["cat? dog?", "cat", "dog cat?"]
    with pytest.raises(UsageError, match=r"write the labels that are known, or \? alone"):
        read(tmp_path, "file_name,labels\na,dog|?\nb,cat|dog\n", unknown=("?",))
    assert read(tmp_path, 'file_name,labels\na,"""?"""\nb,cat\n') == ["?", "cat"]  # in quotes
    several = "file_name,label_1,label_2\na,dog,?\nb,cat,dog\n"
    assert read(tmp_path, several, unknown=("?",)) == ["dog cat?", "cat dog"]


@pytest.mark.parametrize("mark", ["x", "\u2713", "yes", "1"])
def test_verified_rows(tmp_path, mark):
    content = f"file_name,labels,verified\na,dog,{mark}\nb,cat,{mark}\nc,,{mark}\nd,,\n"
    assert read(tmp_path, content) == ["dog", "cat", "", "cat? dog?"]


def test_empty_lists_that_nobody_verified(tmp_path):
    rows = [("a", ["dog"], True), ("b", ["cat"], True), ("c", [], True), ("d", [], False)]
    keys = ("file_name", "labels", "verified")
    content = "\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows)
    assert read(tmp_path, content, name="x.jsonl") == ["dog", "cat", "", "cat? dog?"]
    content = content.replace(', "verified": true', "").replace(', "verified": false', "")
    assert read(tmp_path, content, name="x.jsonl") == ["dog", "cat", "", ""]


def test_verified_with_other_values_stops(tmp_path):
    content = "file_name,labels,verified\na,dog,3 May\nb,cat,partly\nc,,3 May\nd,,\n"
    with pytest.raises(UsageError, match="rows without labels, and '3 May' in its column verified"):
        read(tmp_path, content)
    assert read(tmp_path, content, blank="absent") == ["dog", "cat", "", ""]
    assert read(tmp_path, content, blank="unknown") == ["dog", "cat", "cat? dog?", "cat? dog?"]


def checked(folder: Path, content: str) -> Path:
    (folder / "checked.csv").write_text(content)
    return folder / "checked.csv"


def test_the_file_of_checked_leaves_unknown_what_a_cell_calls_unknown(tmp_path):
    """All else that is not said means what the file says: blank cells, NA, a column, gaps."""
    path = checked(tmp_path, "image,labels\na,dog|cat\nb,dog|cat\nc,dog\n")
    content = f"{H}a,?,1\nb,1,0\nc,0,1\n"
    assert read(tmp_path, content, checked=path) == ["dog cat?", "cat", "dog cat?"]
    content = f"{H}a,-1,1\nb,1,0\nc,,1\n"
    assert read(tmp_path, content, checked=path, unknown=("-1",)) == ["dog cat?", "cat", "dog cat?"]
    for blank in ("", "NA", "-"):
        content = f"{H}a,{blank},1\nb,1,0\nc,{blank},1\n"
        assert read(tmp_path, content, checked=path) == ["dog", "cat", "dog cat?"]
    content = "file_name,labels,checked_labels\na,dog,dog\nb,cat,cat\nc,dog,dog|cat\n"
    assert read(tmp_path, content, checked=path) == ["dog", "cat", "dog cat?"]
    rows = [{"file_name": n, "labels": {"dog" if n != "b" else "cat": 1}} for n in "abc"]
    assert read(tmp_path, rows, "t.json", checked=path) == ["dog", "cat", "dog cat?"]


def test_the_file_of_checked_is_merged_as_the_labels(tmp_path):
    path = checked(tmp_path, "image,labels\na,Dog|cat\nb,Dog|cat\n")
    merge = tmp_path / "merge.csv"
    merge.write_text("from,to\nDog,dog\n")
    content = "file_name,labels\na,Dog\nb,cat\n"
    assert read(tmp_path, content, checked=path, merge=merge) == ["dog", "cat"]


def test_the_file_of_checked_may_name_other_images(tmp_path, capsys):
    """One file for training and validation images."""
    path = checked(tmp_path, "image,labels\na,dog|cat\nv1,dog\nv2,dog\n")
    assert read(tmp_path, f"{H}a,0,1\nb,1,0\n", checked=path) == ["dog", "cat dog?"]
    assert "names 2 images that are not in" in capsys.readouterr().err
    with pytest.raises(UsageError, match="names 'a', and no image of"):
        read(tmp_path, f"{H}c,0,1\n", checked=path)


def test_the_file_of_checked_spells_labels_as_the_table(tmp_path):
    path = checked(tmp_path, "image,labels\na,Dog|cat\n")
    with pytest.raises(UsageError, match=r"has the label 'Dog', .* has 'dog': write it in one way"):
        read(tmp_path, f"{H}a,0,1\nb,1,0\n", checked=path)


@pytest.mark.parametrize("place", ["", "animals"])
def test_the_file_of_checked_is_not_taken_for_the_labels(tmp_path, place):
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(3)]
    for seed, name in enumerate(names):
        write_picture(tmp_path / "animals" / name, seed=seed)
    rows = [f"{name},cat|dog" for name in names]
    path = checked(tmp_path / place, "\n".join(["image,labels", *rows, ""]))
    options = ReadOptions(checked=path)
    found = find_labels(tmp_path / "animals", "train", options.files())
    assert found == tmp_path / "animals"
    assert {*said(read_labels(found, found, options))} == {"cat", "dog"}
    assert find_labels(tmp_path / "animals", "train") == path


def test_a_table_of_labels_is_no_file_of_checked(tmp_path):
    """What it says of each label would be lost: only its column of labels would be read."""
    table = "file_name,labels,checked_labels\na.png,cat,cat|dog\nb.png,,dog\nc.png,dog,\n"
    path = checked(tmp_path, table)
    for seed, name in enumerate("abc"):
        write_picture(tmp_path / "photos" / f"{name}.png", seed=seed)
    with pytest.raises(
        UsageError, match=r"\(--checked\) says of some labels that they are unknown"
    ):
        read_labels(path, None, ReadOptions(checked=path))
    with pytest.raises(UsageError, match=r"; another flag names .*checked\.csv; name the labels"):
        find_labels(tmp_path / "photos", "train", [path])


def test_yes_and_no_in_json(tmp_path):
    rows = [
        {"file_name": "a", "labels": {"cat": 1, "dog": None, "hat": 0}},
        {"file_name": "b", "labels": {"cat": "no", "dog": "yes", "hat": "?"}},
        {"file_name": "c", "labels": {"cat": True, "dog": True, "hat": True}},
    ]
    assert read(tmp_path, rows, "t.json") == ["cat dog?", "dog hat?", "cat dog hat"]
    two = [{**row, "tags": {"sun": 1, "rain": 0}} for row in rows]
    columns = ("labels", "tags")
    assert read(tmp_path, two, "t.json", label_columns=columns)[0] == "cat sun dog?"
    rows[0]["labels"]["dog"] = 0.5
    with pytest.raises(UsageError, match="it is a dictionary"):
        read(tmp_path, rows, "t.json")
