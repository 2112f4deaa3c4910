"""Columns with a yes or no for one label each -> the labels of each row.

0 and 1, yes and no, true and false, x and blank, -1 and 1 if nothing else occurs, and counts. A
cell may also say that it is not known: ?, unknown, nan, and what `--unknown` names. What a blank
cell means is clear only if no cell says no: `--blank` decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from itertools import compress

from labels.label_numbers import name_numbers
from labels.options import ReadOptions
from labels.rows import Table
from labels.values import NO, NUMBER, OFF, YES
from util.errors import UsageError
from util.log import counted, log

Texts = dict[str, dict[object, str]]  # by column and value, see `_text`
Labels = list[tuple[str, ...]]


def flagged_labels(
    table: Table, columns: Sequence[str], options: ReadOptions
) -> tuple[Labels, list[str], Labels | None]:
    """The labels of each row, all labels, and those that are unknown in each row, if any are.

    Raises UsageError naming the row.
    """
    names = [row[0] for row in name_numbers([[_name(c)] for c in columns], table.path, options)]
    texts = {c: {value: _text(table, value) for value in table.counts(c)} for c in columns}
    if {text for of in texts.values() for text in of.values()} & NO - {"", "-"}:
        # beside another no, people write - into empty cells
        texts = {c: {v: "" if t == "-" else t for v, t in of.items()} for c, of in texts.items()}
    _check_values(table, columns, texts, options)
    unclear = _unclear(table, columns, texts, options)
    yes = {c: {v for v, text in texts[c].items() if _is_yes(text)} for c in columns}
    unknown = {c: {v for v, text in texts[c].items() if text in unclear} for c in columns}
    sets = _rows_with(table, names, yes)
    return sets, names, _rows_with(table, names, unknown) if any(unknown.values()) else None


def _name(column: str) -> str:
    return " ".join(column.split())


def _text(table: Table, value: object) -> str:
    """As `Table.flag`, but nan for a blank that a program wrote: nan, NA, null."""
    text = table.flag(value)
    return "nan" if text == "" and value is not None and str(value).strip() else text


def _is_yes(text: str) -> bool:
    return text in YES or (NUMBER.fullmatch(text) is not None and float(text) > 0)


def _rows_with(table: Table, names: list[str], values: dict[str, Container[object]]) -> Labels:
    """For each row the names of the columns in which it has one of these values."""
    sets: list[list[str]] = [[] for _ in range(len(table))]
    for name, (column, wanted) in zip(names, values.items(), strict=True):
        # two C loops: most cells say no
        for i in compress(range(len(table)), map(wanted.__contains__, table.cells[column])):
            sets[i].append(name)
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # one copy of each set
    return [shared.setdefault(t, t) for t in map(tuple, sets)]


def _check_values(table: Table, columns: Sequence[str], texts: Texts, options: ReadOptions) -> None:
    """Raise UsageError for values that are neither yes nor no; say what others are read as."""
    kinds = {column: table.kind(column) for column in columns}
    every = {text for column in columns for text in texts[column].values()} - {"?"}
    every = {"" if text == "nan" else text for text in every}
    signs = {"-1", "1", ""} if options.blank else {"-1", "1"}
    for column in columns:
        for value, text in texts[column].items():
            where = f"{table.path}, row {table.row_of(column, value)}," if text else ""
            if kinds[column] == "soft" and NUMBER.fullmatch(text) and 0 < float(text) < 1:
                raise UsageError(
                    f"{where} has {text} in the column {column!r}, between 0 and 1: write 1 for "
                    "the values that you take for yes, and 0 for the others"
                )
            if text == "-1" and not every <= signs:
                raise UsageError(f"{where} has -1 in the column {column!r}, {_two_signs(every)}")
            if not _is_flag(text):
                raise UsageError(
                    f"{where} has {str(value)[:60]!r} in the column {column!r}: the column of one "
                    "label holds 0 or 1, and ? or --unknown VALUE if it is not known; call a "
                    "column with all labels of an image labels"
                )
    if "-1" in every:
        log(f"{table.path}: -1 is read as no, 1 as yes")
    counts = [column for column in columns if kinds[column] == "count"]
    if counts:
        most = max((v for v in texts[counts[0]].values() if NUMBER.fullmatch(v)), key=float)
        log(f"{table.path}: counts, such as {most} in {counts[0]!r}, are read as yes, 0 as no")


def _is_flag(text: str) -> bool:
    known = text in YES or text in NO or text in ("?", "nan")
    return known or (NUMBER.fullmatch(text) is not None and float(text) >= 0)


def _two_signs(every: set[str]) -> str:
    """What -1 may mean beside other values than 1, and the flags that decide."""
    others = sorted(every - {"-1"})
    beside = " and ".join("blank cells" if text == "" else text for text in others)
    if every & OFF:  # CheXpert's -1 is not known; in WIDER Attribute it is no, and 0 not known
        return (
            f"beside {beside}: -1 may mean not known (--unknown -1), or no, and 0 not known "
            "(--unknown 0)"
        )
    return (
        f"beside {beside}: -1 may mean not known (--unknown -1) or no (then say with --blank "
        "unknown or --blank absent what a blank cell means)"
    )


def _unclear(table: Table, columns: Sequence[str], texts: Texts, options: ReadOptions) -> set[str]:
    """The texts that mean unknown; says what these and blank cells are read as.

    If no cell says no, a blank cell does. If one does, programs' blanks (nan, NA) are unknown, and
    what an empty cell means is not clear: raises UsageError if the user does not say it.
    """
    found: dict[str, Counter[str]] = {text: Counter() for text in ("?", "nan", "")}  # by column
    for column in columns:
        for value, text in texts[column].items():
            if text in found:
                found[text][column] += table.counts(column)[value]
    every = {text for column in columns for text in texts[column].values()}
    dashes = any(value == "-" and text == "" for c in columns for value, text in texts[c].items())
    blank = ("blank cell", "blank cells")
    if dashes:
        blank = ("cell that is blank or -", "cells that are blank or -")
    says_no = sorted(every & NO - {""})
    unclear = {"?"}
    if options.silence_is_unknown(says_no):
        unclear |= {"", "nan"}
    if (empty := found[""]) and says_no and options.blank is None:
        column = max(empty, key=lambda c: empty[c])
        raise UsageError(
            f"{table.path} has {counted(empty.total(), *blank)} beside {says_no[-1]} and 1, "
            f"most of them in {column!r}: not known, or no? Say it with --blank unknown or "
            "--blank absent"
        )
    no = "0" if every & OFF else "no"
    for what, wanted in (("not known", unclear), (no, found.keys() - unclear)):
        cells = sum((found[text] for text in sorted(wanted)), Counter())
        if number := cells.total():
            column = max(cells, key=lambda c: cells[c])
            kind = "blank cell" if not dashes and not cells - found[""] else "cell"
            one, several = f"{kind} is read as", f"{kind}s are read as"
            asked = what == "not known" and found["nan"] and options.blank is None
            hint = "; with --blank absent nan and the like are no" if asked else ""
            cells_read = counted(number, one, several)
            log(f"{table.path}: {cells_read} {what}, most of them in {column!r}{hint}")
    return unclear
