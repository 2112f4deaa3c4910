"""Table: the rows of a file as columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from labels.values import UNKNOWN, as_text, is_number, kind_of
from util.errors import UsageError
from util.log import some

MANY = 1000  # different values


def plain(name: str) -> str:
    """A column's name without upper case, spaces and signs: "Image Index" is imageindex."""
    return re.sub(r"[\W_]+", "", name.lower())


@dataclass
class Table:
    """Columns of equal length.

    numbers: each row's number in the file. unknown: values that the user calls unknown, as
    `as_text` gives them; missing_is_unknown: so are the blanks that programs write, such as NA.
    """

    path: Path
    cells: dict[str, list]
    numbers: Sequence[int]
    unknown: frozenset[str] = frozenset()
    missing_is_unknown: bool = False
    _counts: dict[str, Counter] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def counts(self, column: str) -> Counter:
        """How often each value occurs; lists are tuples."""
        if column not in self._counts:
            self._counts[column] = Counter(self.cells[column])
        return self._counts[column]

    def kind(self, column: str) -> str:
        """See `kind_of`; text for lists."""
        counts: Counter[str] = Counter()
        values = self.counts(column)
        if len(values) > MANY:  # of many texts a few are enough: those that may be yes or no
            some_values = list(islice(values, MANY))
            if not any(isinstance(v, (int, float)) or is_number(v) for v in some_values):
                values = Counter(dict(values.most_common(MANY)))
        for value, count in values.items():
            if isinstance(value, tuple):
                return "text"
            counts[as_text(value)] += count
        return kind_of(counts, self.unknown)

    def calls_unknown(self, value: object) -> bool:
        """Whether a cell has a value that the user calls unknown."""
        text = as_text(value)
        if text == "":
            return self.missing_is_unknown and value is not None and str(value).strip() != ""
        return text in self.unknown

    def flag(self, value: object) -> str:
        """`as_text` of a cell with a yes or no, and ? for all that means unknown."""
        text = as_text(value)
        return "?" if text in UNKNOWN or self.calls_unknown(value) else text

    def row_of(self, column: str, value: object) -> int:
        """The number of the first row with this value."""
        return self.numbers[self.cells[column].index(value)]


def named(table: Table, name: str, flag: str) -> str:
    """The column that a flag names. Raises UsageError if there is none."""
    if name in table.cells:
        return name
    same = [column for column in table.cells if plain(column) == plain(name)]
    if len(same) != 1:
        raise UsageError(
            f"{table.path} has no column {name!r} ({flag}); its columns are {listed(table.cells)}"
        )
    return same[0]


def listed(names: Iterable[str]) -> str:
    """Names in a message; not too many."""
    return some([*map(str, names)], shown=8)
