"""Tables that we write are read back to the same names and label sets, without flags."""

import csv
import io

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labels.read import read_labels
from labels.text import folded
from labels.write import LabelCells, name_cell, write_table
from util.errors import UsageError
from util.files import BOM

SETTINGS = settings(max_examples=6000, deadline=None, suppress_health_check=list(HealthCheck))
ODD = """cat|dog;cat;dog;hot dog;dog;no mask;mask;salt and pepper;none;NA;nan;n/a;0;1;12;0.5;-1;1e3
=1+1;-dog;@home;+x;'=x;"quoted";"half;a"|"b;["a", "b"];(x);{x: 1};a,b;a/b;#tag;a:1;cat?;x2;cat x2
P(cat);0.25;true;yes;x;2020-01-01 00:00:00;train;file_name;a.jpg;|;,;猫;قطة;हिंदी;t-shirt;shirt;t
black_cat;black;cat or dog;red, white;Paris, Texas;path;hoto;split;labels;_;- cat;http://x;!;?;~"""
ODD = [label for line in ODD.split("\n") for label in line.split(";")]
SIGNS = st.text(alphabet="ab1 \"|,;'()[]=-_@#/:?", max_size=6)
LABELS = st.one_of(st.sampled_from(ODD), SIGNS.map(folded), st.text(max_size=8).map(folded)).filter(
    lambda text: text and "\0" not in text
)
ODD_NAMES = ("a.jpg", "x/b.png", " c.jpg", "=d.jpg", "'=e.jpg", '"f".jpg', "g\\h.jpg", "7", "'i")
NAMES = st.one_of(st.sampled_from(ODD_NAMES), st.text(min_size=1, max_size=8)).filter(
    lambda text: text.strip() and "\0" not in text
)


@st.composite
def tables(draw):
    """File names, label sets, and splits or None."""
    names = draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    labels = draw(st.lists(LABELS, min_size=1, max_size=6, unique=True))
    most = draw(st.sampled_from((1, 4)))
    one = st.lists(st.sampled_from(labels), max_size=most, unique=True)
    sets = [tuple(draw(one)) for _ in names]
    splits = [draw(st.sampled_from(("train", "val", "test"))) for _ in names]
    return names, sets, draw(st.sampled_from((splits, None))), labels


def read_back(path):
    found = read_labels(path)
    return found.file_names, [set(labels) for labels in found.label_sets], found.splits


@given(tables())
@example((["a"], [("x.jpg",)], None, []))
@example((["a.jpg", "b.jpg"], [("a", "b"), ("a|b",)], None, []))
@example((["a.jpg", "b.jpg"], [('"a"|"b"',), ("a", "b")], None, []))
@example((["a.jpg", "b.jpg"], [('"a"|"b"', "|"), ("a", "b")], ["train", "val"], []))
@SETTINGS
def test_a_table_is_read_back(tmp_path_factory, table):
    names, sets, splits, _ = table
    path = tmp_path_factory.mktemp("t") / "labels.corrected.csv"
    write_table(path, names, sets, splits)
    found_names, found_sets, found_splits = read_back(path)
    assert (found_names, found_sets) == (names, [set(labels) for labels in sets])
    assert found_splits == splits or splits is None  # folders may be named as splits


@given(tables())
@SETTINGS
def test_predictions_are_read_back(tmp_path_factory, table):
    """As sample.py writes them: row by row, with columns of probabilities of all labels."""
    names, sets, _, labels = table
    cells = LabelCells([*labels, *(f"class {i}" for i in range(40))])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(cells.header(probabilities=True, splits=False))
    for name, labels_of in zip(names, sets, strict=True):
        writer.writerow([name_cell(name), cells.join(labels_of), *["0.5"] * len(cells.labels)])
    path = tmp_path_factory.mktemp("t") / "predictions.csv"
    path.write_bytes((BOM + text.getvalue()).encode())
    assert read_back(path)[:2] == (names, [set(labels_of) for labels_of in sets])


def test_words_that_are_shared_are_quoted():
    """Tables look as people write them, where that is clear; what is not is in quotes."""
    cells = LabelCells(["person", "traffic light", "hot dog", "dog", "T-shirt", "7", "none", "a,b"])
    assert cells.join(["person", "traffic light", "T-shirt"]) == "person|traffic light|T-shirt"
    assert cells.join(["dog", "hot dog", "7"]) == 'dog|"hot dog"|"7"'
    assert cells.join(["none", "a,b"]) == '"none"|"a,b"'
    assert cells.join([]) == ""
    assert LabelCells(["a|b", "c"]).join(["c", "a|b"]) == '"c"|"a|b"'


def test_what_cannot_be_read_back_is_refused(tmp_path):
    for label in ("", "a\0b", "\ud800", "two  spaces", "line\nbreak", "x" * 200_000):
        with pytest.raises(UsageError):
            write_table(tmp_path / "t.csv", ["a.jpg"], [(label,)])
    for name in ("", " ", "a\0.jpg", "\udcff.jpg"):
        with pytest.raises(UsageError, match="file name"):
            write_table(tmp_path / "t.csv", [name], [("cat",)])
    with pytest.raises(UsageError, match="twice"):
        write_table(tmp_path / "t.csv", ["a.jpg", "a.jpg"], [("cat",), ()])
    labels = [f"{i:05d}" * 10 for i in range(4000)]
    with pytest.raises(UsageError, match="too long"):
        write_table(tmp_path / "t.csv", ["a.jpg"], [tuple(labels)])
    assert not [*tmp_path.iterdir()]


def test_many_rows_and_columns_are_read_back(tmp_path):
    names = [f"{i}.jpg" for i in range(5000)]
    labels = [f"label {i}" for i in range(300)]
    sets = [tuple(labels[i % 300 : i % 300 + i % 4]) for i in range(5000)]
    write_table(tmp_path / "t.csv", names, sets)
    assert read_back(tmp_path / "t.csv")[:2] == (names, [set(labels) for labels in sets])
