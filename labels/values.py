"""What the values of a column are: yes and no, counts, other numbers or text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Set

ON = "1 true yes y on present positive pos ja wahr oui vrai si sí sim verdadero tak да 是"
OFF = "0 false no n off absent negative neg nein falsch non faux não nao falso nie нет 否"
ON, OFF = frozenset(ON.split()), frozenset(OFF.split())
LETTERS = frozenset(("t", "f"))  # yes and no only if both or the numbers 0 and 1 occur
MARKS = frozenset(("x", "\u2713", "\u2714", "\u2611", "*"))  # beside blanks; ✓ ✔ ☑
YES = ON | MARKS | {"t"}
NO = OFF | {"", "-", "-1", "f"}
MISSING = frozenset(("nan", "null", "none", "na", "n/a", "#n/a", "<na>"))  # programs' blanks
# a person could not tell, or has not looked
UNKNOWN = "? ?? unknown uncertain unsure unclear undecided unverified unchecked"
UNKNOWN = frozenset(UNKNOWN.split())
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")
MANY = 100  # a count above it is more likely a number of another kind


def is_number(value: object) -> bool:
    """Whether a cell holds a number, perhaps as text."""
    return NUMBER.fullmatch(str(value).strip().lower()) is not None


def as_text(value: object) -> str:
    """A cell for comparisons: 1 for 1.0, True is true, blank for a missing value."""
    if value is None:
        return ""
    text = str(value).strip().lower()
    if text in MISSING:
        return ""
    if text[:1] in "0123456789-+." and NUMBER.fullmatch(text):
        number = float(text)
        return str(int(number)) if abs(number) < 1e15 and number.is_integer() else text
    return text


def kind_of(counts: Mapping[str, int], unknown: Collection[str] = ()) -> str:
    """The kind of a column, from how often it has each value, as `as_text` gives it.

    blank, flag (yes and no), sign (-1 among flags), count (whole numbers from 0), soft (0 to 1),
    number, text; damaged: mostly yes and no, and a few other values. unknown: values that mean
    nothing else; beside yes and no, UNKNOWN mean this, too.
    """
    given = counts.keys() - {"", *unknown}
    if given <= UNKNOWN:
        return "blank"
    for known in (given, given - UNKNOWN, given - UNKNOWN - {"-"}):
        if kind := _yes_no_kind(known):
            return kind
    flags = sum(n for value, n in counts.items() if value in ON or value in OFF)
    mostly_flags = 2 * flags > sum(counts.values()) - counts.get("", 0)
    if all(map(NUMBER.fullmatch, given)):
        numbers = [float(value) for value in given]
        whole = all(number.is_integer() for number in numbers)
        if whole and min(numbers) >= 0 and max(numbers) <= MANY:
            return "count"
        if min(numbers) >= 0 and max(numbers) <= 1:
            return "soft"
        return "damaged" if mostly_flags and given & {"0", "1"} else "number"
    return "damaged" if mostly_flags else "text"


def _yes_no_kind(given: Set[str]) -> str | None:
    """flag, sign, or None for other values."""
    marks = given & MARKS
    if not given:
        return None
    if given <= ON | OFF or (given <= LETTERS and len(given) == 2):
        return "flag"
    if marks and given <= marks | OFF | {"-"}:
        return "flag"
    return "sign" if given <= {"-1", "0", "1"} else None
