"""Label tables that `read_labels` reads back to the same file names and label sets.

    file_name,labels,split
    a.jpg,cat|dog,train
    b.jpg,cat|"7"|"hot dog",val         (in CSV each of these quotes is doubled)
    c.jpg,,test

If labels are unknown, a column `checked_labels` has those that are known on each image, absent ones
too, see checked.py.

Between labels is |. A label in double quotes is taken as it stands; it is quoted if it could be
read in another way: as a number, as several labels, as "no label".
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from labels.text import folded, is_text
from labels.values import MISSING, OFF, ON, UNKNOWN
from util.errors import UsageError
from util.files import BOM, csv_text, write_whole

SEPARATOR = "|"
CHECKED, VERIFIED = "checked_labels", "verified"
WORD = re.compile(r"[^\W\d_]+")
# "no label" to our reader, TRUE and FALSE to a spreadsheet
NO_WORDS = MISSING | ON | OFF | UNKNOWN
LONGEST = csv.field_size_limit()  # letters of a cell that can be read


class LabelCells:
    """How a table with these labels writes the labels of an image."""

    def __init__(self, labels: Iterable[str]) -> None:
        """labels: all labels of the table. Raises UsageError for one that cannot be read back."""
        self.labels = list(dict.fromkeys(labels))
        for label in self.labels:
            _check(label, "label")
            if folded(label) != label:
                raise UsageError(f"the label {label!r} cannot be written: write {folded(label)!r}")
        words = Counter(word for label in self.labels for word in {*WORD.findall(label)})
        every = any(SEPARATOR in label for label in self.labels)
        self.written = {
            label: _quoted(label) if every or not _is_clear(label, words) else label
            for label in self.labels
        }

    def join(self, label_set: Collection[str]) -> str:
        """The text of a cell; empty for no label. Raises UsageError if it is too long."""
        cell = SEPARATOR.join(self.written[label] for label in label_set)
        if len(cell) > LONGEST:
            raise UsageError(f"{len(label_set)} labels are too long for a cell of a table")
        return cell

    def header(
        self, probabilities: bool, splits: bool, verified: bool = False, checked: bool = False
    ) -> list[str]:
        """The names of the columns; those of probabilities are in the order of the labels."""
        names = [f"P({label})" for label in self.labels] if probabilities else []
        others = {"split": splits, CHECKED: checked, VERIFIED: verified}
        return ["file_name", "labels", *(name for name, there in others.items() if there), *names]


def write_table(
    path: Path,
    file_names: Sequence[str],
    label_sets: Sequence[Collection[str]],
    splits: Sequence[str] | None = None,
    verified: Sequence[bool] | None = None,
    checked: Sequence[Collection[str]] | None = None,
) -> None:
    """Write a table of all images, also those without labels, whole or not at all.

    splits: train, val or test for each image. verified: whether a person has confirmed its labels,
    in a column that is no label. checked: the labels of which it is known whether they are there;
    without it, all are. Raises UsageError for what cannot be read back, and RunError if
    the file cannot be written.
    """
    cells = LabelCells(label for s in (label_sets, checked or ()) for of in s for label in of)
    content = table_as_csv(cells, file_names, label_sets, splits, verified, checked)
    write_whole(path, content)


def table_as_csv(
    cells: LabelCells,
    file_names: Sequence[str],
    label_sets: Sequence[Collection[str]],
    splits: Sequence[str] | None = None,
    verified: Sequence[bool] | None = None,
    checked: Sequence[Collection[str]] | None = None,
) -> bytes:
    """The content of the file that `write_table` writes. Raises UsageError."""
    repeated = [name for name, number in Counter(file_names).items() if number > 1]
    if repeated:
        raise UsageError(f"{repeated[0]!r} is listed twice: a table has a row for each image")
    columns = [map(name_cell, file_names), map(cells.join, label_sets)]
    columns += [splits] if splits is not None else []
    columns += [map(cells.join, checked)] if checked is not None else []
    columns += [("yes" if each else "" for each in verified)] if verified is not None else []
    text = io.StringIO()
    writer = csv.writer(text)
    given = (each is not None for each in (splits, verified, checked))
    writer.writerow(cells.header(False, *given))
    writer.writerows(zip(*columns, strict=True))
    return (BOM + text.getvalue()).encode()


def name_cell(name: str) -> str:
    """The cell of a file name, which no spreadsheet runs. Raises UsageError."""
    _check(name, "file name")
    odd = name != name.strip() or "\\" in name or name[0] in "'\""
    return _quoted(name) if odd else csv_text(name)


def _check(text: str, what: str) -> None:
    if not text.strip() or "\0" in text or not is_text(text) or len(text) > LONGEST // 4:
        raise UsageError(f"the {what} {text[:60]!r} cannot be written to a table: rename it")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _is_clear(label: str, words: Counter[str]) -> bool:
    """Whether a label can be read in one way only, whatever other labels are in the table.

    words: in how many labels each word occurs. A label of several words, hot dog, is clear if no
    other label has one of them.
    """
    parts = re.split("[ _-]", label)
    if label.lower() in NO_WORDS or not all(WORD.match(part) for part in parts):
        return False
    if any(unicodedata.category(letter)[0] not in "LM" for part in parts for letter in part):
        return False
    found = WORD.findall(label)
    return len(found) == 1 or all(words[word] == 1 for word in found)
