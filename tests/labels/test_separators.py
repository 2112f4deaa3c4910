"""What separates labels in a cell: judged over the column, said with an example, or asked."""

import pytest
from conftest import write_table

from labels.options import ReadOptions, options_from
from labels.read import read_labels
from util.errors import UsageError

SETS = ["cat dog", "dog", "cat", "cat hat", "hat dog", "cat dog hat", "hat", "dog cat"]
SETS = [tuple(each.split()) for each in SETS]
TWO_WORDS = ["red dress", "blue hat", "blue dress", "red hat", "red shoe", "blue shoe"]


def read_cells(folder, cells, separator=None, names=None):
    names = names or [f"{i}.jpg" for i in range(len(cells))]
    path = write_table(folder, ["file_name", "labels"], zip(names, cells, strict=True))
    return read_labels(path, None, ReadOptions(separator=separator)).label_sets


@pytest.mark.parametrize(
    "between", ["|", ";", ",", ", ", "; ", " ", "\n", " / ", "/", " and ", "#", " + ", "&", " & "]
)
def test_separators_are_found_and_said(tmp_path, between, capsys):
    assert read_cells(tmp_path, [between.join(each) for each in SETS]) == SETS
    printed = capsys.readouterr().err
    assert "labels are separated by" in printed
    assert "is read as" in printed
    assert "--separator" in printed


def test_hashtags(tmp_path):
    assert read_cells(tmp_path, [" ".join(f"#{x}" for x in each) for each in SETS]) == SETS


def test_two_separators(tmp_path, capsys):
    cells = ["cat, dog", "dog", "cat", "cat; hat", "hat, dog", "cat; dog; hat", "hat", "dog; cat"]
    assert read_cells(tmp_path, cells) == SETS
    assert "separated by ';' and ','" in capsys.readouterr().err
    lists = ["cat, dog and hat", "dog", "cat and dog", "hat, dog", "hat"]
    assert read_cells(tmp_path, lists)[0] == ("cat", "dog", "hat")
    with pytest.raises(UsageError, match=r"--separator ';' if 'dog, wild' is one label"):
        read_cells(tmp_path, ["cat; dog", "dog, wild; cat", "hat"])


UNCLEAR = {
    "species": ["tench, Tinca tinca", "goldfish, Carassius auratus", "kite, Milvus", "owl"],
    "colours": TWO_WORDS,
    "paths": ["animal>cat", "animal>dog", "animal"],
    "slashes": ["animal/cat", "animal/dog", "animal"],
    "a single either": ["cat/dog", "cat", "dog"],
    "sentences": ["a dog on a sofa", "a cat on a sofa", "a dog", "a cat in the box", "the dog"],
    "or": ["cat or dog", "cat", "dog", "owl"],
    "und": ["Katze und Hund", "Katze", "Hund"],
    "backslash": ["cat\\dog", "cat", "dog"],
    "dashes": ["cat - dog", "dog", "cat", "dog - hat", "hat"],
    "decimals": ["iso 1,8", "iso 2,8", "iso 4,0"],
    "one comma": ["bird, crane", *"abcdefghijkl"],
    "a sign in a word": ["C++", "cat", "dog", "C++ cat", "cat C++", "C++ cat dog", "cat C++ dog"],
    "hyphens": ["cat-dog", "dog-cat", "cat", "dog"],
}


@pytest.mark.parametrize("cells", UNCLEAR.values(), ids=UNCLEAR)
def test_two_readings_stop_and_the_flag_decides(tmp_path, cells):
    with pytest.raises(UsageError, match=r"use --separator none if .* is one label, --separator"):
        read_cells(tmp_path, cells)
    assert read_cells(tmp_path, cells, "") == [(cell,) for cell in cells]


def test_one_label_with_spaces(tmp_path, capsys):
    cells = ["traffic light", "stop sign", "bear", "teddy bear", "fire hydrant", "parking meter"]
    assert read_cells(tmp_path, cells) == [(cell,) for cell in cells]
    assert "each cell is read as one label" in capsys.readouterr().err


def test_a_row_for_each_label(tmp_path, capsys):
    names = [f"{i // 2}.jpg" for i in range(6)]
    sets = [tuple(TWO_WORDS[i : i + 2]) for i in (0, 2, 4)]
    assert read_cells(tmp_path, TWO_WORDS, None, names) == sets
    assert "each cell is read as one label (a row for each label)" in capsys.readouterr().err
    cells = ["cat|dog", "hat", "cat", "dog", "hat|cat", "dog"]
    with pytest.raises(UsageError, match=r"several rows of an image.*--separator none"):
        read_cells(tmp_path, cells, None, names)
    assert read_cells(tmp_path, cells, "|", names)[0] == ("cat", "dog", "hat")


def test_a_separator_that_does_not_occur(tmp_path):
    with pytest.raises(UsageError, match=r"no cell of .* has ';'.*'cat\|dog' has '\|'"):
        read_cells(tmp_path, ["cat|dog", "dog"], ";")


def test_the_flag_s_words():
    for word, separator in {
        "space": " ",
        "newline": "\n",
        r"\t": "\t",
        "none": "",
        "::": "::",
    }.items():
        assert options_from({"separator": word}).separator == separator
    assert options_from({}) == ReadOptions()
