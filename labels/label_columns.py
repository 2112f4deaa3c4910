"""Which columns of a table hold labels: texts, or a yes or no for one label each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from labels.column_names import ABOUT, AS_SPLIT, LABEL, LABELS, NEVER, RIVAL, TRUTH
from labels.options import ReadOptions
from labels.rows import Table, listed, named, plain
from labels.values import OFF, ON, UNKNOWN, as_text
from util.errors import UsageError
from util.log import log

Found = tuple[Sequence[str], Sequence[str], str | None]  # labels, flags, truth
NUMBERED = re.compile(r"(.*?)[\W_]*\d+")
FEW_VALUES, MOST_ODD = 20, 3  # of columns of yes and no; of them, neither yes nor no
CLASSES = "0 1 on off positive pos negative neg present absent"  # that may be labels
CLASSES = frozenset(CLASSES.split())
ODD_COLUMN = (
    "name the columns of labels with --label_columns, or delete this one if it is none; if "
)
ODD_COLUMN += "{0} means not known, say --unknown {0}"
ODD_VALUE = "say --unknown {0} if it means not known, or --separator none if {0} is a label"
FLAGS = ("flag", "sign", "count", "soft", "damaged")
CODES = [{"1", code} for code in ("7", "8", "9", "77", "88", "99")]  # of surveys, for "not known"


def find_label_columns(table: Table, others: list[str], options: ReadOptions) -> Found:
    """The columns of texts or those of one label each, and the truth column of the texts.

    Raises UsageError if there are none, or if it is not clear which they are.
    """
    kinds = {column: table.kind(column) for column in others}
    if options.label_columns:
        chosen = [named(table, name, "--label_columns") for name in options.label_columns]
        if unknown := [name for name in chosen if name not in kinds]:
            raise UsageError(f"--label_columns: {unknown[0]!r} holds no labels in {table.path}")
        return _chosen(table, chosen, kinds, options)
    _check_unnamed(table, kinds)
    open_ones = [c for c in others if not _is_never(c) and (kinds[c] != "blank" or _is_named(c))]
    clear = [c for c in open_ones if _is_clear(table, c, kinds)]
    rivals = [c for c in open_ones if c not in clear and kinds[c] == "text" and _is_rival(c)]
    if len(clear) > 1 or (clear and rivals):
        raise _several(table, [*clear, *rivals])
    if clear:
        return clear, (), _truth(table, clear, kinds)
    open_ones = [
        c for c in open_ones if not (plain(c) in ABOUT and not _is_yes_no(table, c, kinds))
    ]
    return _by_kind(table, open_ones, kinds)


def _by_kind(table: Table, open_ones: list[str], kinds: dict[str, str]) -> Found:
    """Without a column that is called labels."""
    texts = [c for c in open_ones if kinds[c] == "text" and not _is_free_text(table, c)]
    families = _families(open_ones, kinds)
    if len(families) == 1:
        family = families[0]
        others = [c for c in texts if c not in family]
        flags = [c for c in open_ones if kinds[c] == "flag" and c not in family]
        if not others and not flags:
            return family, (), None
        raise _several(table, [*family, *others, *flags])
    label = [c for c in open_ones if plain(c) in LABEL]
    if len(label) > 1:
        label = _without_codes(table, label, kinds)
    flags = [c for c in open_ones if kinds[c] in FLAGS and c not in label]
    if not label and len(texts) == 1 and len(flags) < 2:
        label = texts
    truth = _truth(table, label, kinds) if label else None
    rest = [c for c in [*texts, *flags] if c not in label and c != truth]
    if len(label) == 1:
        rest = [c for c in rest if not _is_code(table, label[0], c, kinds)]
        if not rest:
            return label, (), truth
    if label:
        raise _several(table, [*label, *rest])
    for columns in (texts, *([c] for c in texts)):
        _refuse_odd(table, columns, ODD_COLUMN)
    if flags and (len(flags) > 1 or not texts):
        _check_flags(table, flags, kinds)
        return (), flags, None
    if texts or flags:
        raise _several(table, [*texts, *flags])
    raise UsageError(
        f"{table.path} has no column of labels; its columns are {listed(table.cells)}: name them "
        "with --label_columns"
    )


def _is_named(column: str) -> bool:
    return plain(column) in LABELS or plain(column) in LABEL


def _is_clear(table: Table, column: str, kinds: dict[str, str]) -> bool:
    """Whether a column is called labels, or holds Label Studio's choices."""
    name = plain(column)
    choices = any(str(v).startswith('{"choices"') for v in table.counts(column))
    ends = name.endswith(("labels", "tags")) and kinds[column] == "text"
    return name in LABELS or ends or choices


def _is_rival(column: str) -> bool:
    """Whether a name says that the column holds labels, too: primary_label, ground_truth."""
    return RIVAL.fullmatch(plain(column)) is not None


def _is_yes_no(table: Table, column: str, kinds: dict[str, str]) -> bool:
    return kinds[column] == "flag" and len(table.counts(column)) > 1


def _chosen(table: Table, chosen: list[str], kinds: dict[str, str], options: ReadOptions) -> Found:
    texts = [c for c in chosen if kinds[c] in ("text", "number") or _is_numbers(c, kinds)]
    if texts and options.separator is None:
        _refuse_odd(table, chosen, ODD_VALUE)
    if texts and len(texts) < len(chosen):
        flag = next(c for c in chosen if c not in texts and kinds[c] != "blank")
        raise UsageError(
            f"--label_columns: {texts[0]!r} holds text and {flag!r} {kinds[flag]}s in "
            f"{table.path}: choose columns of one kind"
        )
    if texts:
        return chosen, (), _truth(table, chosen, kinds)
    return (), chosen, None


def _odd_value(table: Table, columns: Sequence[str]) -> tuple[str, object] | None:
    """A column and a value in it that is neither yes nor no, if these columns hold both, and few
    other values: not known, maybe. None for other columns.
    """
    if any(len(table.counts(c)) > FEW_VALUES for c in columns):
        return None
    nothing = {"", "-", *UNKNOWN, *table.unknown}
    texts = [{*map(as_text, table.counts(c))} - nothing for c in columns]
    every = set().union(*texts)
    odd = every - ON - OFF
    both = every & (ON - CLASSES) and every & (OFF - CLASSES)
    if not both or not 0 < len(odd) <= MOST_ODD or not all(each & (ON | OFF) for each in texts):
        return None
    return next((c, v) for c in columns for v in table.counts(c) if as_text(v) in odd)


def _refuse_odd(table: Table, columns: Sequence[str], what: str) -> None:
    """Raise UsageError if these columns hold yes and no, and a few other values. what: to do."""
    if odd := _odd_value(table, columns):
        column, value = odd
        shown = repr(str(value)[:40])
        raise UsageError(
            f"{table.path}, row {table.row_of(column, value)}, has {shown} in the column "
            f"{column!r}, beside yes and no: {what.format(shown)}"
        )


def _is_numbers(column: str, kinds: dict[str, str]) -> bool:
    """Whether a column that is called label holds numbers of labels."""
    return plain(column) in (*LABELS, *LABEL) and kinds[column] in ("count", "flag")


def _is_never(column: str) -> bool:
    name = plain(column)
    ends = column.strip().lower().replace(" ", "_").endswith("_id") or column.endswith("Id")
    return name in NEVER or name.startswith("unnamed") or not name or ends


def _check_unnamed(table: Table, kinds: dict[str, str]) -> None:
    """Columns without a name are the row numbers that pandas writes, or an error."""
    for column in kinds:
        if column.strip() == "" and kinds[column] in FLAGS and len(table) > 2:
            values = [str(v) for v in table.cells[column]]
            counted = [str(i) for i in range(len(values) + 1)]
            if values not in (counted[:-1], counted[1:]) and kinds[column] == "flag":
                raise UsageError(f"{table.path} has a column without a name that holds 0 and 1")


def _families(columns: list[str], kinds: dict[str, str]) -> list[list[str]]:
    """Columns such as label, label2 or tag_1, tag_2 that hold texts."""
    groups = defaultdict(list)
    for column in columns:
        match = NUMBERED.fullmatch(column.strip())
        groups[plain(match[1] if match else column)].append(column)
    found = [g for base, g in groups.items() if len(g) > 1 and base]
    return [g for g in found if all(kinds[c] == "text" for c in g)]


def _is_free_text(table: Table, column: str) -> bool:
    """Texts that never come back, as comments do not."""
    counts = table.counts(column)
    return len(table) >= 20 and len(counts) > 0.9 * len(table) and plain(column) not in LABEL


def _without_codes(table: Table, columns: list[str], kinds: dict[str, str]) -> list[str]:
    """Of label and label_name, where one has a number for each name of the other: the names."""
    texts = [c for c in columns if kinds[c] == "text"]
    if len(texts) == 1 and all(c in texts or _is_code(table, texts[0], c, kinds) for c in columns):
        return texts
    raise _several(table, columns)


def _is_code(table: Table, label: str, column: str, kinds: dict[str, str]) -> bool:
    """Whether a column has one number for each value of the label column."""
    if kinds[label] != "text" or kinds[column] not in ("count", "number", "flag"):
        return False
    pairs = set(zip(table.cells[label], table.cells[column], strict=True))
    sizes = len(pairs), len(table.counts(label)), len(table.counts(column))
    return len(set(sizes)) == 1 and sizes[0] > 2


def _truth(table: Table, labels: Sequence[str], kinds: dict[str, str]) -> str | None:
    """The column that says whether the row's label is on the image. Raises UsageError."""
    found = [c for c in kinds if plain(c) in TRUTH and c not in labels and kinds[c] != "blank"]
    if not found or len(labels) != 1:
        return None
    column = found[0]
    if len(found) == 1 and kinds[column] == "flag":
        if any(table.flag(value) == "" for value in table.counts(column)):
            raise UsageError(f"{table.path} has blank cells in {column!r}: write 0, 1 or ?")
        log(f"{table.path}: rows with 0 in the column {column!r} mean that the label is absent")
        return column
    if len(found) == 1 and kinds[column] in ("number", "text") and plain(column) == "confidence":
        return None
    what = f"{column!r} holds {next(iter(table.counts(column)))!r}"
    raise UsageError(
        f"{table.path}: {what}, beside the labels in {labels[0]!r}: does it say how sure a label "
        "is? Keep the rows that you trust, with 0 or 1 or ?, or delete that column"
    )


def _check_flags(table: Table, flags: list[str], kinds: dict[str, str]) -> None:
    """Raise UsageError if some of these columns may hold no labels."""
    damaged = next((c for c in flags if kinds[c] == "damaged"), None)
    counted = [c for c in flags if kinds[c] == "count"]
    doubtful = [c for c in flags if plain(c) in (*ABOUT, *AS_SPLIT)]
    doubtful += [c for c in flags if plain(c) == "train" and _yes(table, c) > len(table) / 2]
    asked = [c for c in flags if c.lower().startswith(("is_", "has_"))]  # is_blurry beside cat, dog
    doubtful += asked if 2 * len(asked) < len(flags) else []
    codes = [c for c in counted if _texts(table, c) - {"0", ""} in CODES]
    few = len(counted) * 2 < len(flags) or len(counted) == len(flags) or codes
    if counted and damaged is None and (few or any("0" not in _texts(table, c) for c in counted)):
        column = (codes or counted)[0]
        value = max(table.counts(column), key=lambda v: float(v or 0))
        raise UsageError(
            f"{table.path}, row {table.row_of(column, value)}, has {str(value)!r} in the column "
            f"{column!r}, and others hold 0 or 1: a count, an error or no label? Name the columns "
            f"of labels with --label_columns, or say with --unknown {value} that it is not known"
        )
    if doubtful:
        raise UsageError(
            f"{table.path} has 0 and 1 in {doubtful[0]!r}, too: is it a label? Name the columns of "
            "labels with --label_columns"
        )


def _yes(table: Table, column: str) -> int:
    """How many rows have yes."""
    return sum(count for value, count in table.counts(column).items() if as_text(value) in ON)


def _texts(table: Table, column: str) -> set[str]:
    return {str(v).strip() for v in table.counts(column)}


def _several(table: Table, columns: Sequence[str]) -> UsageError:
    return UsageError(
        f"{table.path} may have its labels in {listed([repr(c) for c in columns])}: name the "
        "columns of labels with --label_columns"
    )
