"""Label numbers, 0/1 lists and ids -> label names.

    [0, 2]  4  "4 0 5"          numbers of labels
    [1, 0, 1]                   a 0 or 1 for each label, in every row the same labels
    /m/01yrx                    ids, as Open Images has them

The names are in the file of `--label_names`: a name in each line, the first for 0; or lines, a
table or a json object that give the number or id of each name. Without names numbers are refused.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from labels.options import ReadOptions
from labels.text import read_text
from util.errors import UsageError
from util.log import log

ID_COLUMNS = ("labelid", "attributeid", "classid", "categoryid", "id", "mid", "index", "number")
NAME_COLUMNS = ("displayname", "labelname", "attributename", "classname", "categoryname", "name")
NAME_COLUMNS += ("label", "class", "category", "title")
NUMBERED = re.compile(r"(\d+)\s*[,;:=\t ]\s*(\S.*)")
NO_NAME = re.compile(r"[{}<>]|:$|^names:|^-\s")  # a line of YAML, of pbtxt or of code
DIGITS = re.compile(r"\d{1,9}")


class LabelNames(dict[str, str]):
    """The name of each number or id, as text. counted: the numbers are those of the lines."""

    counted = False


def name_numbers(
    rows: Sequence[list[object]], path: Path, options: ReadOptions
) -> list[list[object]]:
    """The labels of each row, with names for numbers; texts stay as they are.

    Raises UsageError if there are numbers without names, and for a number that has none.
    """
    if any(isinstance(v, (list, dict, set)) for row in rows for v in row):
        return list(rows)
    values = dict.fromkeys(v for row in rows for v in row)
    numbers = [v for v in values if _number(v) is not None]
    texts = len(numbers) < len(values) and all(isinstance(v, str) for v in numbers)
    if not numbers or texts:
        for value in values:
            if isinstance(value, (int, float)):
                what = f"{path} has {str(value)[:40]} as a label"
                raise UsageError(f"{what}: write texts, or whole numbers from 0")
        return _name_ids(rows, path, options)
    if len(numbers) < len(values):
        odd = next(v for v in values if _number(v) is None)
        raise UsageError(
            f"{path} has labels that are numbers ({numbers[0]}) and others that are not "
            f"({str(odd)[:40]!r}): write one or the other"
        )
    flags = _are_flags(rows, path)
    what = "0/1 lists" if flags else "numbers"
    example = next(row for row in rows if row)
    shown = ", ".join(str(v) for v in example[:5]) + (", …" if len(example) > 5 else "")
    if options.label_names is None:
        raise UsageError(
            f"{path} has labels that are {what} without names, as in [{shown}]: give a file with "
            "a name in each line, the first for "
            f"{'the first place' if flags else 'number 0'}, with --label_names"
        )
    names = read_label_names(options.label_names)
    if flags:
        return _name_flags(rows, names, path, options.label_names)
    found = [[_number(v) for v in row] for row in rows]
    _check_numbers({n for row in found for n in row}, names, path, options.label_names)
    number = next(n for row in found for n in row)
    log(f"{path}: labels are numbers; {options.label_names}: {number} is {names[str(number)]!r}")
    return [[names[str(n)] for n in row] for row in found]


def read_label_names(path: Path) -> LabelNames:
    """The file of --label_names: text, CSV or json. Raises UsageError."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UsageError(f"cannot read the label names {path} ({error.strerror})") from None
    pairs, counted = _pairs(text, path)
    pairs = [(number.strip(), " ".join(name.split())) for number, name in pairs]
    names = LabelNames(pairs)
    if not names:
        raise UsageError(f"{path} has no label names: write one in each line")
    if empty := [number for number, name in pairs if not name]:
        raise UsageError(f"{path} has no name for label {empty[0]}")
    if len(names) < len(pairs):
        numbers = [number for number, _ in pairs]
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise UsageError(f"{path} has two names for label {twice}")
    names.counted = counted
    return names


def check_unique(names: LabelNames, path: Path) -> None:
    """Raise UsageError if two numbers have the same name."""
    first: dict[str, str] = {}
    for number, name in names.items():
        if (other := first.setdefault(name, number)) != number:
            raise UsageError(f"{path} calls both {other} and {number} {name!r}")


def _number(value: object) -> int | None:
    """The whole number that a value is, or that a text spells; else None."""
    if isinstance(value, str):
        return int(value) if DIGITS.fullmatch(value) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and value >= 0 else None


def _are_flags(rows: Sequence[list[object]], path: Path) -> bool:
    """Whether every row has a 0 or 1 for each of two labels or more; rows may be empty.

    Raises UsageError if the rows may be numbers or 0/1 lists.
    """
    found = [[_number(v) for v in row] for row in rows if len(row)]
    lengths = {len(row) for row in found}
    repeats = [row for row in found if {*row} <= {0, 1} and len({*row}) < len(row)]
    if len(lengths) == 1 and lengths != {1} and {n for row in found for n in row} <= {0, 1}:
        if repeats:
            return True
        unclear = f"{found[0]} may be a 0/1 list or the labels 0 and 1"
    elif repeats:
        unclear = f"{repeats[0]} is a 0/1 list, but other lists are not or have another length"
    else:
        return False
    raise UsageError(f"{path}: {unclear}: write the names of labels, or numbers without repeats")


def _name_flags(
    rows: Sequence[list[object]], names: LabelNames, path: Path, source: Path
) -> list[list[object]]:
    check_unique(names, source)
    ordered = [names[number] for number in sorted(names, key=_place)]
    length = max(map(len, rows))
    if len(ordered) != length:
        raise UsageError(
            f"{path} has lists of {length} zeros and ones, but {source} has {len(ordered)} "
            "names: one is needed for each place"
        )
    log(f"{path}: labels are 0/1 lists; {source}: the first place is {ordered[0]!r}")
    return [
        [name for name, flag in zip(ordered, row, strict=True) if _number(flag)] if row else []
        for row in rows
    ]


def _place(number: str) -> tuple[int, str]:
    return (int(number) if DIGITS.fullmatch(number) else -1, number)


def _check_numbers(used: set[int], names: LabelNames, path: Path, source: Path) -> None:
    """Raise UsageError for a number without a name, and if names may count from 0 or from 1."""
    check_unique(names, source)
    lacking = sorted(n for n in used if str(n) not in names)
    if names.counted and (lacking or 0 not in used):
        if lacking:
            what = f"has label number {lacking[-1]}, but {source} has {len(names)} names, from 0"
        else:
            what = f"has no label number 0: the names in {source} may count from 0 or from 1"
        raise UsageError(f"{path} {what}; write the number before each name, as in 1,cat")
    if lacking:
        raise UsageError(f"{path} has label number {lacking[0]}, which has no name in {source}")


def _name_ids(rows: Sequence[list[object]], path: Path, options: ReadOptions) -> list[list[object]]:
    """Texts: names stay; ids that the file of names lists get their names."""
    if options.label_names is None:
        return list(rows)
    names = read_label_names(options.label_names)
    used = {v for row in rows for v in row if isinstance(v, str)}
    if names.counted or not used & names.keys():
        if unknown := used - set(names.values()):
            raise UsageError(
                f"{path} has the label {min(unknown)!r}, which is neither a number nor a name in "
                f"{options.label_names}: leave out --label_names if labels are written in full"
            )
        return list(rows)
    if lacking := used - names.keys():
        raise UsageError(f"{options.label_names} has no name for {min(lacking)!r}, in {path}")
    return [[names.get(v, v) for v in row] for row in rows]


def _pairs(text: str, path: Path) -> tuple[list[tuple[str, str]], bool]:
    """(number or id, name) of each label, and whether the numbers are counted from 0."""
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _json_pairs(text, path)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if path.suffix.lower() in (".csv", ".tsv"):
        return _table_pairs(lines, path)
    if odd := next((line for line in lines if NO_NAME.search(line)), None):
        raise UsageError(f"{path} is no list of names ({odd!r}): write a name in each line")
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return [(str(int(m[1])), m[2]) for m in numbered], False
    return _count(lines), True


def _count(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(str(i), name) for i, name in enumerate(names)]


def _json_pairs(text: str, path: Path) -> tuple[list[tuple[str, str]], bool]:
    """From ["cat"], {"0": "cat"}, {"cat": 0} or {"id2label": {"0": "cat"}}."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not json") from None
    if isinstance(data, dict):
        data = next((data[k] for k in ("id2label", "names", "classes") if k in data), data)
    if isinstance(data, list) and all(isinstance(v, str) for v in data):
        return _count(data), True
    if isinstance(data, dict) and all(isinstance(v, str) for v in data.values()):
        return list(data.items()), False
    if isinstance(data, dict) and all(type(v) is int for v in data.values()):
        return [(str(number), name) for name, number in data.items()], False
    raise UsageError(f'{path} has no label names: write ["cat", "dog"] or {{"0": "cat"}}')


def _table_pairs(lines: list[str], path: Path) -> tuple[list[tuple[str, str]], bool]:
    """From a table of numbers or ids and names, with or without a header."""
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [*csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]
    except csv.Error as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    table = [[c.strip() for c in row] for row in rows if any(c.strip() for c in row)]
    header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in table[0]] if table else []
    name = next((header.index(n) for n in NAME_COLUMNS if n in header), None)
    ids = [*ID_COLUMNS, "labelname"]  # Open Images calls the id LabelName
    number = next((header.index(n) for n in ids if n in header and header.index(n) != name), None)
    if {len(row) for row in table} == {1}:
        return _count(row[0] for row in table[name is not None :]), True
    if name is not None and number is not None:
        rows = table[1:]
    elif {len(row) for row in table} == {2}:
        rows = table
        second = all(DIGITS.fullmatch(row[1]) for row in rows)
        number, name = (1, 0) if second else (0, 1)
    if name is None or number is None or any(len(row) <= max(number, name) for row in rows):
        raise UsageError(f"{path} needs two columns, the number of each label and its name")
    pairs = [(row[number], row[name]) for row in rows]
    whole = all(DIGITS.fullmatch(n) for n, _ in pairs)
    return [(str(int(n)) if whole else n, label) for n, label in pairs], False
