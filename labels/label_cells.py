"""Cells with the labels of an image, as text or lists -> labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labels.cells import CellError, list_in
from labels.doubts import check_meaning
from labels.label_numbers import name_numbers
from labels.options import ReadOptions
from labels.rows import Table
from labels.separators import STRONG, find_separators
from labels.splitting import Separators
from labels.text import is_text
from labels.values import MISSING, NUMBER
from util.errors import UsageError
from util.files import plain_cell
from util.log import log

LIST_START = re.compile(r"""[\[({]\s*['"]|['"]\s*[\])}]""")  # within a label: a list in disguise
SUSPECT = re.compile(r"""[\[\](){}'"]|00:00:00""")
DATE = re.compile(r"\d{4}-\d\d-\d\d 00:00:00")
PAIRS = (("[", "]"), ("(", ")"), ("{", "}"))


def cell_labels(
    table: Table,
    columns: Sequence[str],
    row_per_label: bool,
    options: ReadOptions,
    checked: str | None = None,
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The labels in each row's cells, each once, and those in its cell of the column `checked`.

    That column has the separators of the others. Raises UsageError naming the row.
    """
    every = [*columns, *([checked] if checked else [])]
    labels = _labels_of_values(table, every, row_per_label and len(every) == 1, options)
    of_checked = [labels[value] for value in table.cells[checked]] if checked else []
    if len(columns) == 1:
        return [labels[value] for value in table.cells[columns[0]]], of_checked
    rows = zip(*(table.cells[c] for c in columns), strict=True)
    found = [tuple(dict.fromkeys(label for v in row for label in labels[v])) for row in rows]
    return found, of_checked


def _labels_of_values(
    table: Table, columns: Sequence[str], is_long: bool, options: ReadOptions
) -> dict[object, tuple[str, ...]]:
    """The labels of each value. is_long: a row for each label, in one column."""
    values = list(dict.fromkeys(value for c in columns for value in table.counts(c)))
    known = [value for value in values if not table.calls_unknown(value)]
    lists = _lists(table, columns, known)
    texts = [v for v in known if isinstance(v, str) and v not in lists and v.strip()]
    texts = _without_missing(table, columns, texts)
    separators = _separators(table, columns, texts, lists, is_long, options)
    literal: set[str] = set()  # labels in quotes are meant as they stand
    for text in texts:
        if SUSPECT.search(text):
            parts = separators.split(text)
            literal.update(part for part, quoted in parts if quoted)
            lists[text] = [
                part if quoted else _checked(part, text, table, columns) for part, quoted in parts
            ]
        else:
            lists[text] = separators.names(text)
    spelling: dict[object, object] = {}  # one copy of each label
    found = [_folded(lists.get(value, ()), value, table, columns, spelling) for value in values]
    open_ones = [label for value, label in spelling.items() if value not in literal]
    _refuse_question_marks({*open_ones}, found, values, table, columns)
    if options.separator is None:
        texts_of = {label for label in open_ones if isinstance(label, str)}
        check_meaning(texts_of, table.path, any(len(each) > 1 for each in found))
    if options.label_names or any(map(_is_number, open_ones)):
        _check_kinds(found, values, table, columns)
        found = name_numbers(_whole(found, table), table.path, options)
    return {v: tuple(dict.fromkeys(each)) for v, each in zip(values, found, strict=True)}


def _lists(table: Table, columns: Sequence[str], values: list) -> dict[object, list]:
    """The values of cells that are lists, or single numbers."""
    starts = [v for v in values if isinstance(v, str) and v.strip()[-1:] in ("]", ")", "}")]
    spaces = any("," in text for text in starts)
    found = {}
    for text in starts:
        try:
            if (inner := list_in(text, spaces)) is not None:
                found[text] = inner
        except CellError as error:
            raise UsageError(f"{_where(text, table, columns)}: {error}") from None
    for value in values:
        if isinstance(value, tuple):
            found[value] = list(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[value] = [value] if value == value else []
        elif value is not None and not isinstance(value, str):
            raise UsageError(f"{_where(value, table, columns)}: write texts, as in cat|dog")
    return found


def _separators(
    table: Table,
    columns: Sequence[str],
    texts: list[str],
    lists: dict[object, list],
    is_long: bool,
    options: ReadOptions,
) -> Separators:
    if not any(isinstance(value, (str, tuple)) for value in lists) or options.separator is not None:
        return find_separators(texts, table.path, columns[0], options.separator, is_long)
    for text in texts:  # beside lists, a text is one label
        if any(separator in text for separator in STRONG):
            example = next(value for value in lists if isinstance(value, (str, tuple)))
            raise UsageError(
                f"{_where(text, table, columns)}, and other cells are lists, such as "
                f"{str(example)[:40]!r}: one label or several? --separator none means one"
            )
    return Separators()


def _without_missing(table: Table, columns: Sequence[str], texts: list[str]) -> list[str]:
    missing = {text for text in texts if text.strip().lower() in MISSING}
    if missing:
        number = sum(table.counts(c)[text] for c in columns for text in missing)
        log(f"{table.path}: {number:,} cells such as {min(missing)!r} are read as no label")
    return [text for text in texts if text not in missing]


def _checked(label: str, cell: str, table: Table, columns: Sequence[str]) -> str:
    """The label, unless a bracket or quote in it says that the cell was cut at a wrong place."""
    if (name := plain_cell(label)) != label:
        return name
    ends = label[:1] + label[-1:]
    if DATE.fullmatch(label):
        raise UsageError(
            f"{_where(cell, table, columns)}: a spreadsheet made a date of it: write the labels as "
            "text"
        )
    wrong = any(label.count(a) != label.count(b) for a, b in PAIRS) or label.count('"') % 2
    wrong = wrong or (ends.count("'") == 1 and label.count("'") % 2) or LIST_START.search(label)
    wrong = wrong or (ends == "''" and len(label) > 1)
    if wrong:
        raise UsageError(
            f"{_where(cell, table, columns)}: the label {label[:40]!r} has a bracket or quote that "
            "does not fit; correct the cell, or put the label in double quotes"
        )
    return label


def _folded(
    values: Sequence, cell: object, table: Table, columns: Sequence[str], spelling: dict
) -> list:
    """Labels without white space around them; numbers as they are. Adds labels to `spelling`."""
    for value in values:
        if value not in spelling:
            number = isinstance(value, (int, float))
            if not number and not (isinstance(value, str) and is_text(value)):
                raise UsageError(f"{_where(cell, table, columns)}: write texts, as in cat|dog")
            spelling[value] = value if number else " ".join(value.split())
    return [label for value in values if (label := spelling[value]) != ""]


def _refuse_question_marks(
    labels: set[object], found: list[list], values: list, table: Table, columns: Sequence[str]
) -> None:
    """Raise UsageError if one of these labels, not in quotes, is ?."""
    marks = {label for label in labels if isinstance(label, str) and {*label} == {"?"}}
    for each, cell in zip(found, values, strict=True) if marks else ():
        if not marks.isdisjoint(each):
            raise UsageError(
                f"{_where(cell, table, columns)}: write the labels that are known, or ? alone and "
                "say --unknown ? if nothing else is known of this image"
            )


def _check_kinds(found: list[list], values: list, table: Table, columns: Sequence[str]) -> None:
    """Raise UsageError for a cell with numbers and texts."""
    for labels, cell in zip(found, values, strict=True):
        if len({isinstance(label, str) for label in labels}) > 1:
            raise UsageError(f"{_where(cell, table, columns)}: write texts, as in cat|dog")


def _is_number(label: object) -> bool:
    return not isinstance(label, str) or NUMBER.fullmatch(label) is not None


def _whole(found: list[list], table: Table) -> list[list]:
    """Numbers as texts become whole numbers: 3.0 is 3. Raises UsageError for other numbers."""
    texts = {v for labels in found for v in labels if isinstance(v, str)}
    if not texts or not all(map(NUMBER.fullmatch, texts)):
        return found
    numbers = {text: float(text) for text in texts}
    if odd := [t for t, n in numbers.items() if n < 0 or not n.is_integer()]:
        raise UsageError(
            f"{table.path} has numbers for labels, such as {min(odd)}: name the columns of labels "
            "with --label_columns"
        )
    return [[str(int(numbers[v])) if isinstance(v, str) else v for v in each] for each in found]


def _where(value: object, table: Table, columns: Sequence[str]) -> str:
    column = next(c for c in columns if value in table.counts(c))
    return f"{table.path}, row {table.row_of(column, value)}, has labels {str(value)[:60]!r}"
