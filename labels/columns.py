"""What the columns of a table mean: file names, splits, labels, or nothing to us.

Names count first, then what is in a column. Everything that is not used is named in one line; if
two readings are plausible, UsageError names both, and the flag that decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from labels.checked import find_checked_column
from labels.column_names import AS_SPLIT, FILE_NAMES, IS_SPLIT, SPLIT, URLS
from labels.label_columns import find_label_columns
from labels.options import ReadOptions
from labels.rows import Table, listed, named, plain
from labels.text import PICTURE, SPLITS
from labels.values import ON, as_text
from util.errors import UsageError
from util.files import is_picture, walk
from util.names import key, stem

PROBABILITY = re.compile(r"P\(.+\)", re.DOTALL)  # a column of sample.py: P(cat)


@dataclass(frozen=True)
class Columns:
    """Either `labels` (texts, they add up) or `flags` (one label each) is given.

    truth: whether the row's label is on the image. is_split: what yes in the split column means.
    checked: the labels that somebody looked for.
    """

    file: str
    split: str | None = None
    is_split: str | None = None
    labels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    truth: str | None = None
    checked: str | None = None
    unused: tuple[str, ...] = ()


def find_columns(table: Table, options: ReadOptions, image_path: Path | None = None) -> Columns:
    """Raises UsageError."""
    if own := _own_columns(table, options):
        return own
    file = find_file_column(table, options, image_path)
    split, is_split = _find_split_column(table, options, file)
    others = [name for name in table.cells if name not in (file, split)]
    if not others:
        raise UsageError(
            f"{table.path} has no column of labels: add a column labels, or one column for each "
            "label"
        )
    checked = find_checked_column(table, others, options)
    candidates = [name for name in others if name != checked]
    labels, flags, truth = find_label_columns(table, candidates, options)
    used = {*labels, *flags, truth, checked}
    unused = tuple(name for name in others if name not in used)
    return Columns(file, split, is_split, tuple(labels), tuple(flags), truth, checked, unused)


def _own_columns(table: Table, options: ReadOptions) -> Columns | None:
    """The columns of a table that write.py or sample.py wrote; None for other tables."""
    if options.file_column or options.label_columns or options.split_column:
        return None
    names = [*table.cells]
    split = "split" if names[2:3] == ["split"] else None
    rest = tuple(names[3 if split else 2 :])
    if names[:2] != ["file_name", "labels"] or not all(map(PROBABILITY.fullmatch, rest)):
        return None
    return Columns("file_name", split, None, ("labels",), unused=rest)


def find_file_column(table: Table, options: ReadOptions, image_path: Path | None = None) -> str:
    """The column of file names, by its name, what is in it, and the files in `image_path`.

    Raises UsageError.
    """
    if options.file_column:
        return named(table, options.file_column, "--file_column")
    names = {}
    for column in table.cells:
        names.setdefault(plain(column), column)
    known = [names[name] for name in FILE_NAMES if name in names]
    pictures = [column for column in table.cells if _has_pictures(table, column)]
    both = [column for column in known if column in pictures]
    if both and plain(both[0]) in URLS:  # a column of another name may be meant
        both += [column for column in pictures if column not in both]
    if len(both) > 1 and not _same_files(table, both):
        raise UsageError(
            f"{table.path} has file names in {listed(both)}: choose one with --file_column"
        )
    if both:
        return both[0]
    if len(pictures) == 1:
        return pictures[0]
    if pictures:
        raise UsageError(
            f"{table.path} has file names in {listed(pictures)}: choose one with --file_column"
        )
    if known:
        return known[0]
    stems = _with_stems(table, image_path) if image_path and image_path.is_dir() else []
    if len(stems) == 1:
        return stems[0]
    raise UsageError(
        f"{table.path} has no column file_name; its columns are {listed(table.cells)}: name the "
        "one with the names of the image files with --file_column"
    )


def _has_pictures(table: Table, column: str) -> bool:
    """Whether the values are names of picture files, but for a few."""
    values = [v for v in table.cells[column][:1000] if v not in (None, "")]
    if not values or not all(isinstance(v, str) for v in values):
        return False
    found = sum(bool(PICTURE.search(v.partition("?")[0]) or PICTURE.search(v)) for v in values)
    return found > 0.9 * len(values)


def _with_stems(table: Table, folder: Path) -> list[str]:
    """The columns that have another value in most rows, nearly all of them names of pictures."""
    names = {key(stem(e.name)) for _, files in walk(folder) for e in files if is_picture(e.name)}
    found = []
    for column, cells in table.cells.items():
        values = {v for v in cells[:1000] if isinstance(v, str)}
        listed_ones = sum(key(value) in names for value in values)
        if listed_ones > 0.9 * len(values) and 2 * len(values) > len(cells[:1000]):
            found.append(column)
    return found


def _same_files(table: Table, columns: list[str]) -> bool:
    """Whether columns such as image and image_url end in the same names."""
    tails = [
        [re.split(r"[\\/]", str(v).partition("?")[0])[-1] for v in table.cells[column]]
        for column in columns
    ]
    return all(tail == tails[0] for tail in tails)


def _find_split_column(
    table: Table, options: ReadOptions, file: str
) -> tuple[str | None, str | None]:
    """The column with the splits; for one such as is_valid also what its yes means."""
    if options.split_column:
        if options.split_column == "none" and "none" not in table.cells:
            return None, None
        column = named(table, options.split_column, "--split_column")
        return column, IS_SPLIT.get(plain(column))
    chosen = {named(table, name, "--label_columns") for name in options.label_columns}
    found = []
    for column in table.cells:
        name = plain(column)
        if column == file or column in chosen:
            continue
        usual = name in SPLIT or name in AS_SPLIT or name == "fold"
        is_one = name in IS_SPLIT and table.kind(column) == "flag"
        if name == "split" or is_one or (usual and _has_splits(table, column)):
            found.append(column)
    if len(found) > 1:
        raise UsageError(
            f"{table.path} has splits in {listed(found)}: choose one with --split_column"
        )
    if not found:
        return None, None
    return found[0], IS_SPLIT.get(plain(found[0]))


def _has_splits(table: Table, column: str) -> bool:
    values = {as_text(v) for v in table.counts(column)}
    numbers = plain(column) in ("partition", "set", "subset") and "0" in values
    return bool(values & SPLITS.keys()) or (numbers and values <= {"0", "1", "2"})


def read_split(table: Table, columns: Columns) -> list[str]:
    """train, val or test for each row. Raises UsageError naming the row."""
    column = columns.split
    counts = table.counts(column)
    texts = {value: as_text(value) for value in counts}
    if columns.is_split:
        other = "train" if columns.is_split != "train" else "val"
        meaning = {v: columns.is_split if t in ON else other for v, t in texts.items()}
    elif {*texts.values()} == {"0", "1", "2"}:
        parts = {"0": "train", "1": "val", "2": "test"}  # as in CelebA
        meaning = {v: parts[t] for v, t in texts.items()}
    else:
        meaning = {v: SPLITS.get(t) for v, t in texts.items()}
    for value, split in meaning.items():
        if split is None:
            raise UsageError(
                f"{table.path}, row {table.row_of(column, value)}, has {column} {value!r}: write "
                "train, val or test, in every row or in none, or use --split_column none"
            )
    return [meaning[value] for value in table.cells[column]]
