"""A table -> which labels are on which image: what CSV, JSONL, parquet and xlsx share.

One column has the file name, one may have the split. The labels are in one column, in several, or
each label has a column of its own with yes or no. Several rows of one image add up. Every error
names file and row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.column_names import FILE_NAMES, LABEL, LABELS, RATERS, SCORES
from labels.columns import Columns, find_columns, read_split
from labels.options import DEFAULTS, ReadOptions
from labels.row_labels import add_up, read_row_labels
from labels.rows import Table, plain
from labels.splitting import QUOTED
from labels.text import is_text
from labels.values import as_text
from util.errors import UsageError
from util.files import plain_cell
from util.log import log, some

Row = tuple[int, dict[str, object]]  # its number in the file, and the value of each column
OFTEN = 1.2  # rows per image, from which on a table has a row for each label


def table_from_rows(rows: Iterable[Row], path: Path) -> Table:
    """Rows as columns; a row that lacks one has None there."""
    rows = list(rows)
    names = dict.fromkeys(key for _, row in rows for key in row)
    if len(kept := [name for name in names if plain(name) in {*LABELS, *LABEL}]) > 1:
        _check_either(kept, rows, path)
    cells = {name: [_hashable(row.get(name)) for _, row in rows] for name in names}
    return Table(path, cells, [n for n, _ in rows])


def _check_either(names: list[str], rows: list[Row], path: Path) -> None:
    """Raise UsageError if each row has only one of these columns of labels, but not the same."""
    if all(sum(name in row for name in names) <= 1 for _, row in rows):
        number = next(number for number, row in rows if names[1] in row)
        raise UsageError(
            f"{path}, row {number}, has {names[1]!r}, other rows have {names[0]!r}: use one name"
        )


def images_from_table(
    table: Table, kind: str, options: ReadOptions = DEFAULTS, image_path: Path | None = None
) -> AnnotatedImages:
    """The images in order of their first rows. Raises UsageError."""
    if not len(table):
        raise UsageError(f"{table.path} lists no images: it has a header at most")
    if any(value.strip() == "" for value in options.unknown):
        raise UsageError("--unknown '': say --blank unknown if a blank cell means not known")
    table.unknown = frozenset(as_text(value) for value in options.unknown) - {""}
    table.missing_is_unknown = any(as_text(value) == "" for value in options.unknown)
    columns = find_columns(table, options, image_path)
    names = _file_names(table, columns.file)
    row_per_label = _has_row_per_label(table, names, columns)
    if row_per_label:
        _check_scores(table, columns)
    _say_unused(table, columns, options)
    rows = read_row_labels(table, columns, names, row_per_label, options)
    _check_raters(table, columns, names, rows.sets)
    splits = read_split(table, columns) if columns.split else None
    _say_columns(table, columns, splits)
    if len(set(names)) < len(names):
        splits = splits and _one_split(table, names, splits)
        names, rows = add_up(names, rows)
    unknown = rows.unknown if any(rows.unknown or ()) else None
    return AnnotatedImages(
        str(table.path), names, rows.sets, rows.categories, kind, splits, unknown=unknown
    )


def _say_unused(table: Table, columns: Columns, options: ReadOptions) -> None:
    """One line for values of --unknown that no cell has."""
    used = [*columns.labels, *columns.flags, *filter(None, [columns.truth])]
    if not options.unknown:
        return
    values = {value for column in used for value in table.counts(column)}
    texts = {as_text(value) for value in values if table.calls_unknown(value)}
    if lacking := [value for value in options.unknown if as_text(value) not in texts]:
        log(f"note: no label cell of {table.path} is {some(lacking)} (--unknown)")


def _has_row_per_label(table: Table, names: list[str], columns: Columns) -> bool:
    """Whether images have several rows with different labels: repeated rows say nothing."""
    if not columns.labels or len(names) < OFTEN * len(set(names)):
        return False
    rows = set(zip(names, *(table.cells[c] for c in columns.labels), strict=True))
    return len(rows) >= OFTEN * len(set(names))


def _check_scores(table: Table, columns: Columns) -> None:
    """Raise UsageError if a column not used may say that labels are absent."""
    for column in columns.unused:
        values = table.counts(column)
        if plain(column) in SCORES and len(values) > 1:
            raise UsageError(
                f"{table.path} has several rows of an image, and {column!r} holds "
                f"{next(iter(values))!r}: does it say whether a label is there? Keep the rows that "
                "you trust, or delete that column"
            )


def _check_raters(
    table: Table, columns: Columns, names: list[str], sets: list[tuple[str, ...]]
) -> None:
    """Raise UsageError if several people labelled an image, and not in the same way."""
    raters = [c for c in columns.unused if plain(c) in RATERS and len(table.counts(c)) > 1]
    if not raters or len(set(names)) == len(names):
        return
    said: dict[str, dict[object, set[str]]] = {}
    for name, rater, labels in zip(names, table.cells[raters[0]], sets, strict=True):
        said.setdefault(name, {}).setdefault(rater, set()).update(labels)
    for name, by in said.items():
        if any(labels != next(iter(by.values())) for labels in by.values()):
            who = some([*map(str, by)])
            raise UsageError(
                f"{table.path}: {who} in the column {raters[0]!r} disagree on the labels of "
                f"{name}: keep the rows that you trust, or delete that column to take all labels"
            )


def _file_names(table: Table, column: str) -> list[str]:
    """Windows' names get slashes. Raises UsageError for a row without a name."""
    names = [v.strip() if isinstance(v, str) else "" for v in table.cells[column]]
    joined = "".join(names)
    if "" in names or not is_text(joined):
        bad = next(i for i, name in enumerate(names) if not name or not is_text(name))
        raise UsageError(f"{table.path}, row {table.numbers[bad]}, has no {column}")
    return [*map(_file_name, names)] if re.search(r"""["'\\]""", joined) else names


def _file_name(cell: str) -> str:
    """A name in double quotes is taken as it stands, see write.py."""
    if (quoted := QUOTED.fullmatch(cell)) and quoted[1].strip():
        return quoted[1].replace('""', '"')
    return plain_cell(cell.replace("\\", "/"))


def _say_columns(table: Table, columns: Columns, splits: list[str] | None) -> None:
    """One line, if anything is not used or the columns were not found by their usual names."""
    labels = columns.labels or columns.flags
    usual = columns.split is None or plain(columns.split) == "split"
    usual = (
        usual
        and plain(columns.file) in [*FILE_NAMES][:8]
        and (columns.flags or plain(labels[0]) in LABELS)
    )
    # `verified` says which rows without labels count
    unused = [name for name in columns.unused if not columns.labels or plain(name) != "verified"]
    if not unused and usual and len(columns.labels) < 2:
        return
    what = "labels in" if columns.labels else f"a column for each of {len(labels)} labels:"
    split = ""
    if columns.split:
        pairs = dict(zip(table.cells[columns.split], splits, strict=True))
        said = ", ".join(f"{value} is {part}" for value, part in pairs.items())
        split = f", splits in {columns.split!r}: {said}"
    unused = some([name or "the column without a name" for name in unused], shown=12)
    log(
        f"{table.path}: file names in {columns.file!r}, {what} {some([*map(repr, labels)])}{split}"
        f"; not used: {unused or 'nothing'}"
    )


def _one_split(table: Table, names: list[str], splits: list[str]) -> list[str]:
    """The split of each image, in order of their first rows. Raises UsageError if rows disagree."""
    split_of: dict[str, str] = {}
    for number, name, split in zip(table.numbers, names, splits, strict=True):
        if split_of.setdefault(name, split) != split:
            raise UsageError(
                f"{table.path}, row {number}, puts {name} in {split}, another row in "
                f"{split_of[name]}"
            )
    return [*split_of.values()]


def _hashable(value: object) -> object:
    """Lists of JSON as tuples, dictionaries as their text; in a list these are no labels."""
    if isinstance(value, list):
        return tuple((str(v),) if isinstance(v, dict) else _hashable(v) for v in value)
    return str(value) if isinstance(value, dict) else value
