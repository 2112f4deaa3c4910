"""Which labels somebody looked for on an image: all others that are not on it are unknown.

    file_name,labels,checked_labels
    a.jpg,cat,cat|dog                   a cat, no dog; whether there is a hat is unknown
    b.jpg,,                             nobody looked

The column is found by its name if it holds labels of the table, or named by `--checked_column`. For
formats without rows, `--checked` is a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from labels.annotated import all_but
from labels.column_names import CHECKED
from labels.options import ReadOptions
from labels.rows import Table, named, plain
from labels.values import YES, as_text
from util.errors import UsageError
from util.log import counted, log

Sets = Sequence[tuple[str, ...]]
OURS = "checkedlabels"  # as write.py calls the column
PARTS = re.compile(r"[^\w\s-]+")  # roughly: between the labels of a cell


def find_checked_column(table: Table, columns: list[str], options: ReadOptions) -> str | None:
    """The column that --checked_column names, else one of these with a usual name and with labels.

    Raises UsageError if there is no column of the name, or if it is one of --label_columns.
    """
    if options.checked_column == "none" and "none" not in table.cells:
        return None
    chosen = {named(table, name, "--label_columns") for name in options.label_columns}
    if options.checked_column:
        column = named(table, options.checked_column, "--checked_column")
        if column in chosen or column not in columns:
            raise UsageError(f"--checked_column: {column!r} holds something else in {table.path}")
        return column
    usual = [c for c in columns if plain(c) in CHECKED and c not in chosen]
    return next((c for c in usual if _has_labels(table, c, columns)), None)


def _has_labels(table: Table, column: str, columns: list[str]) -> bool:
    """Whether at least half of the words in a column are labels of others, or their names.

    A column beside others that is called checked_labels has labels.
    """
    if plain(column) == OURS:
        return table.kind(column) in ("text", "blank") and len(columns) > 1
    if table.kind(column) != "text":
        return False
    others = [name for name in columns if name != column]
    known = {*map(plain, others)}
    known |= {part for name in others for value in table.counts(name) for part in _parts(value)}
    own = {part for value in table.counts(column) for part in _parts(value)}
    return 2 * len(own & known) >= len(own) > 0


def _parts(value: object) -> set[str]:
    texts = value if isinstance(value, tuple) else PARTS.split("" if value is None else str(value))
    return {plain(str(text)) for text in texts} - {""}


def unchecked(
    table: Table, column: str, sets: Sets, checked: Sets, labels: Sequence[str], is_named: bool
) -> list[tuple[str, ...]]:
    """For each row those of the labels that nobody looked for, and that are not on the image.

    sets, checked: the labels of each row, and those that were looked for. is_named: the user named
    the column. Raises UsageError if it may hold the labels themselves.
    """
    pairs = zip(sets, checked, strict=True)
    absent = sum(bool({*looked_for} - {*of}) for of, looked_for in pairs)
    if not absent and not is_named and plain(column) != OURS:
        raise UsageError(
            f"{table.path}: every label in {column!r} is on its image: does it name the labels "
            f"that somebody looked for (--checked_column {column}), or is it another column of "
            "labels (--checked_column none)?"
        )
    found = all_but(labels, sets, checked)
    verified = verified_rows(table, table.cells) or [False] * len(table)
    blank = (not looked_for for looked_for in checked)
    whole = [seen and empty for seen, empty in zip(verified, blank, strict=True)]
    found = [() if known else rest for known, rest in zip(whole, found, strict=True)]
    if number := sum(map(len, found)):
        log(
            f"{table.path}: {column!r} names the labels that were looked for: "
            f"{counted(number, 'other label is', 'other labels are')} unknown"
        )
    return found


def verified_column(columns: Iterable[str]) -> str | None:
    """The column `verified` among these, as annotate.py writes it."""
    return next((name for name in columns if plain(name) == "verified"), None)


def verified_rows(table: Table, columns: Iterable[str]) -> list[bool] | None:
    """Whether a column `verified` among these says yes, for each row; None without such a column.

    annotate.py writes it: yes for photos whose labels a person has confirmed.
    """
    column = verified_column(columns)
    if column is None or table.kind(column) not in ("flag", "blank"):
        return None
    return [as_text(cell) in YES for cell in table.cells[column]]
