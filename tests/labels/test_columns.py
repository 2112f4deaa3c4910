"""Which columns hold file names, splits and labels; what is not used is said, or it is asked."""

import pytest
from conftest import write_picture, write_table

from labels.options import ReadOptions
from labels.read import read_labels
from util.errors import UsageError

FILES = [f"p{i}.jpg" for i in range(8)]
SETS = ["cat dog", "dog", "cat", "cat hat", "hat dog", "cat dog hat", "hat", "cat dog"]
SETS = [tuple(x for x in ("cat", "dog", "hat") if x in each) for each in SETS]
FLAGS = [[int(label in each) for label in ("cat", "dog", "hat")] for each in SETS]


def flags(yes=1, no=0) -> list[list]:
    return [[yes if flag else no for flag in row] for row in FLAGS]


def read_rows(folder, header, rows, **options):
    return read_labels(write_table(folder, header, rows), None, ReadOptions(**options))


@pytest.mark.parametrize(
    ("yes", "no"),
    [(1, 0), ("1.0", "0.0"), ("True", "False"), ("yes", "no"), ("Y", "N"), ("t", "f"), ("x", "")]
    + [
        ("ja", "nein"),
        ("WAHR", "FALSCH"),
        ("oui", "non"),
        ("present", "absent"),
        ("X", "-"),
        ("✓", ""),
        (1, -1),
        ("1.0", "-1.0"),
        (1, ""),
    ],
)
def test_yes_and_no(tmp_path, yes, no):
    rows = [[name, *row] for name, row in zip(FILES, flags(yes, no), strict=True)]
    assert read_rows(tmp_path, ["file_name", "cat", "dog", "hat"], rows).label_sets == SETS


def test_counts_and_blanks_are_said(tmp_path, capsys):
    many = [[3 * row[0], 2 * row[1], row[2]] for row in FLAGS]
    rows = [[name, *row] for name, row in zip(FILES, many, strict=True)]
    header = ["file_name", "cat", "dog", "hat"]
    assert read_rows(tmp_path, header, rows).label_sets == SETS
    assert "counts, such as 3 in 'cat', are read as yes, 0 as no" in capsys.readouterr().err
    rows = [[name, *row] for name, row in zip(FILES, flags(), strict=True)]
    rows[1][1] = ""
    assert read_rows(tmp_path, header, rows, blank="absent").label_sets == SETS
    assert "1 blank cell is read as 0" in capsys.readouterr().err


EXTRA = {
    "id": range(8),
    "": range(8),
    "Unnamed: 0": range(8),
    "index": [0, 1] * 4,
    "width": [640] * 8,
    "fold": [0, 1] * 4,
    "score": [0.5, 1] * 4,
    "patient_id": [1, 2] * 4,
    "Sex": ["M", "F"] * 4,
    "age": range(40, 48),
    "photographer": ["Ann", "Bob"] * 4,
    "created_at": ["2024-01-01"] * 8,
    "brightness": [12.5, 99.1] * 4,
    "Unlabeled": [0] * 8,
    "views": [0, 1000] * 4,
    "num_labels": [2, 1] * 4,
    "bbox": ["1 2 3 4", "5 6 7 8"] * 4,
}


@pytest.mark.parametrize(("name", "values"), EXTRA.items(), ids=EXTRA)
@pytest.mark.parametrize("first", [True, False])
def test_columns_that_are_no_labels_are_named(tmp_path, name, values, first, capsys):
    rows, header = [], ["file_name", "cat", "dog", "hat"]
    for file, row, value in zip(FILES, flags(), values, strict=True):
        rows.append([value, file, *row] if first else [file, *row, value])
    header = [name, *header] if first else [*header, name]
    images = read_rows(tmp_path, header, rows)
    assert (images.label_sets, images.categories) == (SETS, ["cat", "dog", "hat"])
    assert f"not used: {name or 'the column without a name'}" in capsys.readouterr().err
    if name:  # the user may want it: --label_columns decides
        one = read_rows(tmp_path, header, rows, label_columns=("hat", "cat"))
        assert one.categories == ["cat", "hat"]


SPLITS = {
    "is_valid": ([False, True], ["train", "val"]),
    "Is_Test": ([0, 1], ["train", "test"]),
    "partition": ([0, 1, 2], ["train", "val", "test"]),
    "split": (["TRAINING", "Validation"], ["train", "val"]),
    "subset": (["dev", "test"], ["val", "test"]),
    "fold": (["train", "val"], ["train", "val"]),
}


@pytest.mark.parametrize(("name", "values", "splits"), [(k, *v) for k, v in SPLITS.items()])
def test_columns_that_are_splits(tmp_path, name, values, splits):
    n = len(values)
    rows = [[f, *r, values[i % n]] for i, (f, r) in enumerate(zip(FILES, flags(), strict=True))]
    images = read_rows(tmp_path, ["file_name", "cat", "dog", "hat", name], rows)
    assert images.splits == [splits[i % n] for i in range(8)]
    assert images.categories == ["cat", "dog", "hat"]
    none = read_rows(
        tmp_path, ["file_name", "cat", "dog", "hat", name], rows, split_column="none",
        label_columns=("cat", "dog", "hat"),
    )  # fmt: skip
    assert none.splits is None


STOPS = {
    "soft values": ("cat,dog", ["0.9,0", "0,1"], "has 0.9 in the column 'cat', between 0 and 1"),
    "-1 beside 0": ("cat,dog", ["-1,0", "0,1"], r"-1 in .* 'cat', beside 0 and 1.*--unknown 0\)"),
    "-1 and blank": ("cat,dog", ["-1,", "1,1"], "-1 in .* 'cat', beside blank cells.*--blank"),
    "blanks, 0 and 1": ("cat,dog", ["1,0", ",0"], "1 blank cell beside 0 and 1, most.*'cat'"),
    "a count alone": ("cat,dog,hat", ["1,0,7", "0,1,0"], "has '7' in the column 'hat'"),
    "an odd mark": ("cat,dog", ["~,0", "0,1", "1,1"], "has '~' in the column 'cat'.*--unknown"),
    "a date, 0 and 1": ("cat,dog,date", ["1,0,1", "0,1,0"], "0 and 1 in 'date', too"),
    "valid, 0 and 1": ("cat,dog,valid", ["1,0,1", "0,1,0"], "0 and 1 in 'valid', too"),
    "numbers as names": ("0,1", ["1,0", "0,1"], "numbers without names.*--label_names"),
    "label numbers": ("label", ["3", "1"], "numbers without names.*--label_names"),
    "numbers and spaces": ("target", ["3 1", "1 2"], "numbers without names.*--label_names"),
    "two texts": ("colour,shape", ["red,round", "blue,long"], "'colour', 'shape'.*--label_columns"),
    "label and text": ("label,shape", ["cat,round", "dog,long"], "'label', 'shape'"),
    "label and 0/1": ("label,striped", ["cat,1", "dog,0"], "'label', 'striped'"),
    "two plurals": ("labels,tags", ["cat,x", "dog,y"], "'labels', 'tags'"),
    "two splits": ("labels,split,is_valid", ["cat,train,1", "dog,val,0"], "--split_column"),
    "no labels": ("width,height", ["640,480", "48,40"], "no column of labels.*--label_columns"),
    "partition 0 and 3": ("labels,split", ["cat,0", "dog,3"], "has split '0'|has split '3'"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "cells", "sentence"), STOPS.values(), ids=STOPS)
def test_what_is_not_clear_stops(tmp_path, header, cells, sentence):
    rows = [[f"{i}.jpg", *cell.split(",")] for i, cell in enumerate(cells)]
    with pytest.raises(UsageError, match=sentence):
        read_rows(tmp_path, ["file_name", *header.split(",")], rows)


@pytest.mark.parametrize(
    "header",
    [
        "label_1,label_2,label_3",
        "label,label2,label3",
        "Tag 1,Tag 2,Tag 3",
        "object0,object1,object2",
    ],
)
def test_numbered_columns_add_up(tmp_path, header):
    rows = [[name, *row, *[""] * (3 - len(row))] for name, row in zip(FILES, SETS, strict=True)]
    assert read_rows(tmp_path, ["image", *header.split(",")], rows).label_sets == SETS


def test_named_columns_add_up(tmp_path):
    rows = [[name, *row, *[""] * (3 - len(row))] for name, row in zip(FILES, SETS, strict=True)]
    header = ["image", "category", "subcategory", "colour"]
    with pytest.raises(UsageError, match="'category', 'subcategory', 'colour'"):
        read_rows(tmp_path, header, rows)
    read = read_rows(tmp_path, header, rows, label_columns=tuple(header[1:]))
    assert read.label_sets == SETS
    with pytest.raises(
        UsageError, match=r"no column 'colours' \(--label_columns\).*its columns are"
    ):
        read_rows(tmp_path, header, rows, label_columns=("colours",))


def long_rows(yes=1, no=0) -> list[list]:
    return [
        [name, label, yes if label in row else no]
        for name, row in zip(FILES, SETS, strict=True)
        for label in ("cat", "dog", "hat")
    ]


@pytest.mark.parametrize("truth", ["Confidence", "value", "present", "is_present"])
@pytest.mark.parametrize(("yes", "no"), [(1, 0), ("1.0", "0.0"), ("True", "False"), ("yes", "no")])
def test_long_tables_with_a_truth_column(tmp_path, truth, yes, no, capsys):
    read = read_rows(tmp_path, ["image", "label", truth], long_rows(yes, no))
    assert [tuple(sorted(s)) for s in read.label_sets] == SETS
    assert f"0 in the column {truth!r} mean that the label is absent" in capsys.readouterr().err


def test_a_truth_column_that_is_not_clear(tmp_path):
    header = ["image", "label", "confidence"]
    for values, sentence in (
        ((0.7, 0), "how sure"),
        ((1, ""), "blank cells"),
        ((1, -1), "how sure"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read_rows(tmp_path, header, long_rows(*values))
    with pytest.raises(
        UsageError, match=r"row 26, and another row disagree whether p0.jpg has 'cat'"
    ):
        read_rows(tmp_path, header, [*long_rows(), ["p0.jpg", "cat", 0]])


def test_file_columns_are_found_by_content(tmp_path):
    for header in ("Image Index", "ImageID", "whatever"):
        read = read_rows(tmp_path, ["n", header, "Finding Labels"], [[1, "a.jpg", "x|y"]])
        assert read.file_names == ["a.jpg"]
    rows = [["a.jpg", "b.png", "cat"], ["c.jpg", "d.png", "dog"]]
    with pytest.raises(UsageError, match=r"file names in left, right: .*--file_column"):
        read_rows(tmp_path, ["left", "right", "labels"], rows)
    read = read_rows(tmp_path, ["left", "right", "labels"], rows, file_column="right")
    assert read.file_names == ["b.png", "d.png"]
    assert read_rows(tmp_path, ["image", "mask", "labels"], rows).file_names[0] == "a.jpg"
    read = read_rows(tmp_path, ["image_name", "tags"], [["train_0", "haze"], ["train_1", "sea"]])
    assert read.file_names == ["train_0", "train_1"]


def test_a_column_of_names_without_suffix_is_found_by_the_pictures(tmp_path):
    for stem in ("1.2.840.7", "1.2.840.8", "5", "6"):
        write_picture(tmp_path / f"im/{stem}.png", side=8)
    rows = [["7", "1.2.840.7", 1, 0], ["8", "1.2.840.8", 0, 1]]
    path = tmp_path / "t.csv"
    header = "patient_id,StudyInstanceUID,cat,dog\n"
    path.write_text(header + "".join(",".join(map(str, row)) + "\n" for row in rows))
    assert read_labels(path, tmp_path / "im").file_names == ["1.2.840.7", "1.2.840.8"]
    with pytest.raises(UsageError, match="--file_column"):
        read_labels(path)
    path.write_text("case,scan,labels\n5,6,cat\n6,5,dog\n")  # both columns may be names
    with pytest.raises(UsageError, match="--file_column"):
        read_labels(path, tmp_path / "im")
