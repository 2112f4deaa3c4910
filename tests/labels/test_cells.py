"""Cells that are written as lists, and labels that show that a cell was cut at a wrong place."""

import pytest
from conftest import write_table

from labels.cells import CellError, list_in
from labels.read import read_labels
from util.errors import UsageError

LISTS = {
    "['cat', 'dog']": ["cat", "dog"],
    "['cat' 'dog']": ["cat", "dog"],
    "['cat' 'dog'\n 'hat']": ["cat", "dog", "hat"],
    "('cat',)": ["cat"],
    "(cat, dog)": ["cat", "dog"],
    "{'cat', 'dog'}": ["cat", "dog"],
    "frozenset({'cat'})": ["cat"],
    '["cat", "red dress"]': ["cat", "red dress"],
    '{"choices": ["cat", "dog"]}': ["cat", "dog"],
    '{"choices": "cat"}': ["cat"],
    '{"cat": 1, "dog": 0}': ["cat"],
    "{'cat': True, 'dog': False}": ["cat"],
    '{cat,"red, long dress"}': ["cat", "red, long dress"],
    "[cat, traffic light]": ["cat", "traffic light"],
    "[cat]": ["cat"],
    "array(['cat', 'dog'], dtype='<U3')": ["cat", "dog"],
    "[np.str_('cat'), np.str_('dog')]": ["cat", "dog"],
    """["men's shoe" 'cat']""": ["men's shoe", "cat"],
    "[0 1]": [0, 1],
    "[1. 0.]": [1.0, 0.0],
    "[]": [],
    "{}": [],
    "set()": [],
    "(unknown)": None,
    "cat (small)": None,
    "[a] and [b]": None,
}
UNCLEAR = ["[cat dog]", "['cat' 'dog', 'hat']", "['cat', None]", "[['a', 'b']]", "{'cat': 0.5}"]
UNCLEAR += ["['a' 'b' ... 'c']", '[{"x": 1}]', "{'width': 640}"]


@pytest.mark.parametrize(("text", "expected"), LISTS.items())
def test_a_cell_that_is_a_list(text, expected):
    assert list_in(text) == expected


@pytest.mark.parametrize("text", UNCLEAR)
def test_a_list_that_cannot_be_read_for_sure(text):
    with pytest.raises(CellError):
        list_in(text)


BROKEN = ["['cat", "cat']", '"cat', "{'cat'", "cat)", "(cat", "dict_keys(['cat'])", "'cat", "'cat'"]


@pytest.mark.parametrize("cell", BROKEN)
def test_a_bracket_or_quote_that_does_not_fit(tmp_path, cell):
    path = write_table(tmp_path, ["file_name", "labels"], [("a.jpg", "dog"), ("b.jpg", cell)])
    with pytest.raises(UsageError, match=r"row 3, has labels .*(bracket or quote|list)"):
        read_labels(path)


def test_lists_beside_single_labels(tmp_path, capsys):
    rows = [("a.jpg", '{"choices": ["cat", "dog"]}'), ("b.jpg", "red dress"), ("c.jpg", "None")]
    path = write_table(tmp_path, ["file_name", "labels"], rows)
    assert read_labels(path).label_sets == [("cat", "dog"), ("red dress",), ()]
    assert "1 cells such as 'None' are read as no label" in capsys.readouterr().err
    path = write_table(tmp_path, ["file_name", "labels"], [*rows, ("d.jpg", "cat, hat")])
    with pytest.raises(UsageError, match=r"other cells are lists.*--separator none"):
        read_labels(path)


def test_labels_that_brackets_and_quotes_belong_to(tmp_path):
    rows = [("a.jpg", "crane (bird)|men's shoe"), ("b.jpg", '"5"" pipe"|crane (bird)')]
    path = write_table(tmp_path, ["file_name", "labels"], rows)
    sets = [("crane (bird)", "men's shoe"), ('5" pipe', "crane (bird)")]
    assert read_labels(path).label_sets == sets
