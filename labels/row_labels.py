"""What the rows of a table say: the labels that are on an image, and those that are unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labels.annotated import union
from labels.checked import unchecked, verified_column, verified_rows
from labels.columns import Columns
from labels.flags import flagged_labels
from labels.label_cells import cell_labels
from labels.options import ReadOptions
from labels.rows import Table
from labels.tags import without
from labels.values import NO, as_text
from util.errors import UsageError
from util.log import counted, log

Labels = list[tuple[str, ...]]


@dataclass(frozen=True)
class RowLabels:
    """For each row: its labels, and the labels of which it does not say whether they are there.

    unknown: None if there are none in any row. categories: all labels, sorted.
    """

    sets: Labels
    unknown: Labels | None
    categories: list[str]


def read_row_labels(
    table: Table, columns: Columns, names: list[str], row_per_label: bool, options: ReadOptions
) -> RowLabels:
    """names: the image of each row. Raises UsageError naming the row."""
    own: list[str] = []  # of columns with one label each
    unknown, checked = None, []
    if columns.labels:
        sets, checked = cell_labels(table, columns.labels, row_per_label, options, columns.checked)
    else:
        sets, own, unknown = flagged_labels(table, columns.flags, options)
        if columns.checked:
            checked, _ = cell_labels(table, (columns.checked,), False, options)
    categories = sorted({*own, *(x for part in (sets, checked) for s in set(part) for x in s)})
    rows = RowLabels(sets, unknown, categories)
    if columns.truth:
        return _with_truth(table, columns.truth, names, rows, options)
    if columns.labels:
        unknown = _unsaid(table, columns, names, rows, options)
    if columns.checked and options.checked:
        log(f"{table.path}: {columns.checked!r} is not used: {options.checked} says the same")
    elif columns.checked:
        is_named = bool(options.checked_column)
        others = unchecked(table, columns.checked, sets, checked, categories, is_named)
        unknown = union(others, unknown)
    return replace(rows, unknown=unknown)


def _unsaid(
    table: Table, columns: Columns, names: list[str], rows: RowLabels, options: ReadOptions
) -> Labels | None:
    """All labels that are not on the image, for rows of which nothing is known; None without any.

    Raises UsageError if a column `verified` does not say yes or no.
    """
    asked = _called_unknown(table, columns, names)
    nowhere = [False] * len(table)
    blank = nowhere if columns.checked else _not_annotated(table, columns, options)
    rows_open = [a or b for a, b in zip(asked, blank, strict=True)]
    if not any(rows_open):
        return None
    every = tuple(rows.categories)
    return without([every if is_open else () for is_open in rows_open], rows.sets)


def _called_unknown(table: Table, columns: Columns, names: list[str]) -> list[bool]:
    """Whether a row, or another row of its image, has a value of `--unknown`."""
    values = {v for c in columns.labels for v in table.counts(c) if table.calls_unknown(v)}
    if not values:
        return [False] * len(table)
    cells = zip(*(table.cells[c] for c in columns.labels), strict=True)
    called = {name for name, row in zip(names, cells, strict=True) if not values.isdisjoint(row)}
    log(f"{table.path}: {counted(len(called), 'image is', 'images are')} not known (--unknown)")
    return [name in called for name in names]


def _not_annotated(table: Table, columns: Columns, options: ReadOptions) -> list[bool]:
    """Whether a row has no label, and `--blank` or a column `verified` says that nobody looked.

    annotate.py writes such a column. Raises UsageError if it holds something else.
    """
    verified = verified_rows(table, columns.unused)
    other = None if verified or options.blank else _other_verified(table, columns.unused)
    silent = "absent" if verified is None else "unknown"
    if (options.blank or silent) == "absent" and other is None:
        return [False] * len(table)
    values = {v for c in columns.labels for v in table.counts(c)}
    # an empty list of JSON says that there is no label, unless nobody looked
    empty = {v for v in values if as_text(v) == "" or (v == () and (verified or other))}
    cells = zip(*(table.cells[c] for c in columns.labels), strict=True)
    blank = [all(cell in empty for cell in row) for row in cells]
    if other and any(blank):
        raise UsageError(
            f"{table.path} has rows without labels, and {other!r} in its column verified: are "
            "these rows known to have no label? Write yes or no there, or say it for all of them "
            "with --blank unknown or --blank absent"
        )
    if other:
        return [False] * len(table)
    seen = verified or [False] * len(table)
    nothing = [is_blank and not known for is_blank, known in zip(blank, seen, strict=True)]
    if number := sum(nothing):
        what = "without labels" + (" and not verified" if verified else "")
        one, several = f"row {what} is", f"rows {what} are"
        log(f"{table.path}: {counted(number, one, several)} not annotated; see --blank")
    return nothing


def _other_verified(table: Table, columns: Sequence[str]) -> str | None:
    """A value of a column `verified` that does not hold yes and no; None if there is none."""
    column = verified_column(columns)
    values = table.counts(column) if column else ()
    return next((str(value)[:40] for value in values if as_text(value)), None)


def _with_truth(
    table: Table, truth: str, names: list[str], rows: RowLabels, options: ReadOptions
) -> RowLabels:
    """Labels only in rows whose truth column says yes; the same unknown ones in an image's rows.

    Raises UsageError if rows disagree, or if it is not clear what a missing row means.
    """
    texts = {value: table.flag(value) for value in table.counts(truth)}
    said: dict[str, dict[str, str]] = {name: {} for name in names}  # yes, no or ?
    sets = []
    for number, name, labels, value in zip(
        table.numbers, names, rows.sets, table.cells[truth], strict=True
    ):
        text = texts[value]
        state = "?" if text == "?" else "no" if text in NO else "yes"
        for label in labels:
            if said[name].setdefault(label, state) != state:
                raise UsageError(
                    f"{table.path}, row {number}, and another row disagree whether {name} has "
                    f"{label!r}"
                )
        sets.append(labels if state == "yes" else ())
    silent = _has_gaps(table.path, rows.categories, said, options)
    unknown = {
        name: tuple(x for x in rows.categories if states.get(x, "?" if silent else "no") == "?")
        for name, states in said.items()
    }
    return RowLabels(sets, [unknown[name] for name in names], rows.categories)


def _has_gaps(
    path: Path, labels: list[str], said: dict[str, dict[str, str]], options: ReadOptions
) -> bool:
    """Whether labels without a row are unknown: not if no row says no, or if none is missing.

    Raises UsageError if it is not clear.
    """
    states = {state for by_label in said.values() for state in by_label.values()}
    gaps = sum(len(labels) - len(by_label) for by_label in said.values())
    if options.blank or "no" not in states or not gaps:
        return options.blank == "unknown"
    name = next(name for name, by_label in said.items() if len(by_label) < len(labels))
    label = next(label for label in labels if label not in said[name])
    raise UsageError(
        f"{path} says yes or no of some labels of an image, and nothing of others, as of "
        f"{label!r} on {name}: not known, or no? Say it with --blank unknown or --blank absent"
    )


def add_up(names: list[str], rows: RowLabels) -> tuple[list[str], RowLabels]:
    """One entry for each image, with the labels of all its rows.

    A label is unknown if it is unknown in all rows of the image.
    """
    sets: dict[str, dict[str, None]] = {}
    for name, labels in zip(names, rows.sets, strict=True):
        sets.setdefault(name, {}).update(dict.fromkeys(labels))
    added = RowLabels([*map(tuple, sets.values())], None, rows.categories)
    if rows.unknown:
        unknown: dict[str, tuple[str, ...]] = {}
        for name, labels in zip(names, rows.unknown, strict=True):
            others = {*labels}
            unknown[name] = tuple(x for x in unknown.get(name, labels) if x in others)
        added = replace(added, unknown=without(unknown.values(), added.sets))
    return [*sets], added
