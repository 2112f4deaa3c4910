"""Columns with a yes or no for one label each -> the labels of each row.

0 and 1, yes and no, true and false, x and blank, -1 and 1 if nothing else occurs, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress

from labels.label_numbers import name_numbers
from labels.options import ReadOptions
from labels.rows import Table
from labels.values import NO, NUMBER, OFF, YES, as_text
from util.errors import UsageError
from util.log import log


def flagged_labels(
    table: Table, columns: Sequence[str], options: ReadOptions
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The labels of each row, and all labels. Raises UsageError naming the row."""
    names = [row[0] for row in name_numbers([[_name(c)] for c in columns], table.path, options)]
    texts = {c: {value: as_text(value) for value in table.counts(c)} for c in columns}
    _check_values(table, columns, texts)
    sets: list[list[str]] = [[] for _ in range(len(table))]
    for name, column in zip(names, columns, strict=True):
        yes = {value for value, text in texts[column].items() if _is_yes(text)}
        # two C loops: most cells say no
        for i in compress(range(len(table)), map(yes.__contains__, table.cells[column])):
            sets[i].append(name)
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # one copy of each label set
    return [shared.setdefault(t, t) for t in map(tuple, sets)], names


def _name(column: str) -> str:
    return " ".join(column.split())


def _is_yes(text: str) -> bool:
    return text in YES or (text not in NO and float(text) > 0)


def _check_values(table: Table, columns: Sequence[str], texts: dict[str, dict]) -> None:
    """Raise UsageError for values that are neither yes nor no; say what others are read as."""
    kinds = {column: table.kind(column) for column in columns}
    every = {text for column in columns for text in texts[column].values()}
    for column in columns:
        for value, text in texts[column].items():
            where = f"{table.path}, row {table.row_of(column, value)}," if text else ""
            if kinds[column] == "soft" and 0 < float(text or 0) < 1:
                raise UsageError(
                    f"{where} has {text} in the column {column!r}, between 0 and 1: write 1 for "
                    "the values that you take for yes, and 0 for the others"
                )
            if text == "-1" and not every <= {"-1", "1"}:
                raise UsageError(
                    f"{where} has -1 in the column {column!r}, beside {_others(every)}: -1 may "
                    "mean no or not known: write 1 for yes and 0 for no"
                )
            if not _is_flag(text):
                raise UsageError(
                    f"{where} has {str(value)[:60]!r} in the column {column!r}: the column of one "
                    "label holds 0 or 1; call a column with all labels of an image labels"
                )
    if every == {"-1", "1"}:
        log(f"{table.path}: -1 is read as no, 1 as yes")
    counted = [column for column in columns if kinds[column] == "count"]
    if counted:
        most = max((v for v in texts[counted[0]].values() if v), key=float)
        log(f"{table.path}: counts, such as {most} in {counted[0]!r}, are read as yes, 0 as no")
    _say_blanks(table, columns, texts, every)


def _is_flag(text: str) -> bool:
    known = text in YES or text in NO
    return known or (NUMBER.fullmatch(text) is not None and float(text) >= 0)


def _others(every: set[str]) -> str:
    return " and ".join("blank cells" if text == "" else text for text in sorted(every - {"-1"}))


def _say_blanks(
    table: Table, columns: Sequence[str], texts: dict[str, dict], every: set[str]
) -> None:
    blanks: Counter[str] = Counter()
    for column in columns:
        for value, text in texts[column].items():
            blanks[column] += table.counts(column)[value] if text == "" else 0
    if number := sum(blanks.values()):
        column = max(blanks, key=lambda c: blanks[c])
        beside = "0" if every & OFF else "no"
        log(
            f"{table.path}: {number:,} blank cells are read as {beside}, most of them in {column!r}"
        )
