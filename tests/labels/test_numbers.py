"""Label numbers, 0/1 lists and ids get the names of --label_names, or stop."""

from pathlib import Path

import pytest

from labels.label_numbers import name_numbers, read_label_names
from labels.options import ReadOptions
from util.errors import UsageError

LINES = "cat\ndog\nhat\n"


def named(rows, folder: Path, names: str | None = None, suffix: str = "txt"):
    """What name_numbers gives for these rows and a file of names."""
    options = ReadOptions()
    if names is not None:
        path = folder / f"names.{suffix}"
        path.write_text(names)
        options = ReadOptions(label_names=path)
    return name_numbers(rows, Path("labels.json"), options)


@pytest.mark.parametrize(
    ("rows", "names", "suffix", "right"),
    [
        ([[0, 2], [1], []], LINES, "txt", [["cat", "hat"], ["dog"], []]),
        ([["0", "2"], ["1"]], LINES, "txt", [["cat", "hat"], ["dog"]]),
        ([[0.0, 2.0]], LINES, "txt", [["cat", "hat"]]),
        ([[1, 0, 1], [0, 0, 0]], LINES, "txt", [["cat", "hat"], []]),
        ([[1, 0, 1], [], [0, 0, 1]], LINES, "txt", [["cat", "hat"], [], ["hat"]]),
        ([[1, 1]], "cat\ndog", "txt", [["cat", "dog"]]),
        ([[2, 2, 0], [1]], LINES, "txt", [["hat", "hat", "cat"], ["dog"]]),
        ([[True, False, False]], LINES, "txt", [["cat"]]),
        ([["1", "0", "1"], ["0", "1", "0"]], LINES, "txt", [["cat", "hat"], ["dog"]]),
        ([[1, 3], [2]], "1 cat\n2 dog\n3: red hat", "txt", [["cat", "red hat"], ["dog"]]),
        ([[1, 3]], "id,name\n1,cat\n02,dog\n3,hat", "csv", [["cat", "hat"]]),
        ([[1]], "cat,0\ndog,1", "csv", [["dog"]]),
        ([[1], [0]], "name\ncat\ndog", "csv", [["dog"], ["cat"]]),
        ([[66]], "labelId,taskId,labelName\n66,2,dress", "csv", [["dress"]]),
        ([["/m/1"]], "LabelName,DisplayName\n/m/1,Cat", "csv", [["Cat"]]),
        ([["/m/1"]], '/m/1,"Cat, big"\n/m/2,Dog', "csv", [["Cat, big"]]),
        ([[0]], '["cat"]', "json", [["cat"]]),
        ([[7]], '{"id2label": {"7": "cat"}}', "json", [["cat"]]),
        ([[7]], '{"cat": 7}', "json", [["cat"]]),
        ([["cat"], ["dog"]], LINES, "txt", [["cat"], ["dog"]]),
    ],
)
def test_numbers_get_names(tmp_path, rows, names, suffix, right):
    assert named(rows, tmp_path, names, suffix) == right


def test_texts_stay_as_they_are(tmp_path, capsys):
    for rows in ([["cat"], ["dog", "2021"]], [[], []], [["4x4", "7"]]):
        assert named(rows, tmp_path) == rows
    assert capsys.readouterr().err == ""


def test_what_was_done_is_said_with_an_example(tmp_path, capsys):
    named([[2], [0]], tmp_path, LINES)
    assert "labels.json: labels are numbers; " in (printed := capsys.readouterr().err)
    assert "names.txt: 2 is 'hat'" in printed
    named([[0, 1, 0]], tmp_path, LINES)
    assert "names.txt: the first place is 'cat'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ([[0, 1], [2]], None, r"are numbers without names, as in \[0, 1\].*--label_names"),
        ([["4", "0"]], None, "--label_names"),
        ([[1, 0, 1], [0, 0, 1]], None, "are 0/1 lists without names.*--label_names"),
        ([[0, "cat"]], None, r"numbers \(0\) and others that are not \('cat'\)"),
        ([[0, 0.5]], None, r"others that are not \('0.5'\)"),
        ([[0, -1]], None, r"others that are not \('-1'\)"),
        ([[1, 3], [0]], LINES, "label number 3, but .* has 3 names, from 0"),
        ([[1, 2]], LINES, "may count from 0 or from 1; write the number before each name"),
        ([[1, 4]], "1 cat\n2 dog", "label number 4, which has no name"),
        ([[1, 0], [0, 1]], LINES, r"\[1, 0\] may be a 0/1 list or the labels 0 and 1"),
        ([[1, 0, 1], [0, 1]], LINES, r"\[1, 0, 1\] is a 0/1 list, but other lists are not"),
        ([[1, 0, 1], [0, 2, 1]], LINES, r"\[1, 0, 1\] is a 0/1 list, but other lists are not"),
        ([[1, 0], [0, 0]], LINES, "lists of 2 zeros and ones, but .* has 3 names"),
        ([[0]], "cat\ncat", "calls both 0 and 1 'cat'"),
        ([[0]], "0 cat\n0 dog", "two names for label 0"),
        ([[0]], "cat\n\ndog", "no name for label 1"),
        ([[0]], "", "no label names"),
        ([[0]], '{"a": [1]}', "no label names: write"),
        ([[0]], "{", "is not json"),
        ([[0]], "path: ../set\nnames:\n  0: cat", r"is no list of names \('names:'\)"),
        ([[0]], "names: [cat, dog]", "is no list of names"),
        ([[0]], "- cat\n- dog", "is no list of names"),
        ([[0]], "item {\n id: 1\n name: 'cat'\n}", "is no list of names"),
        ([["cow"], ["cat"]], LINES, "the label 'cow', which is neither a number nor a name"),
    ],
)
def test_what_is_unclear_stops(tmp_path, rows, names, message):
    with pytest.raises(UsageError, match=message):
        named(rows, tmp_path, names)


def test_files_of_names_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the label names .*nothing\.txt"):
        read_label_names(tmp_path / "nothing.txt")
    (tmp_path / "wide.csv").write_text("a,b,c\n1,2,3")
    with pytest.raises(UsageError, match="needs two columns"):
        read_label_names(tmp_path / "wide.csv")


@pytest.mark.parametrize("odd", [-1, 0.5, 10**400 * -1, float("inf"), float("nan")])
def test_numbers_that_number_nothing(tmp_path, odd):
    for rows in ([[odd]], [["cat"], [odd]], [["cat", "7", odd]]):
        with pytest.raises(UsageError, match="as a label: write texts, or whole numbers from 0"):
            named(rows, tmp_path, LINES)
