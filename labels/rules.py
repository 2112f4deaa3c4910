"""Rules that label sets must keep, from a text file with one rule on each line.

    puppy -> dog                  an image with a puppy has a dog, too; several: puppy -> dog, pet
    indoor x outdoor              never both; of three or more: never two of them
    at most one of: red green     the same
    one of: day night dusk        exactly one of them

A # starts a comment. Names are separated by commas where there is a comma, else by spaces. A name
with a separator in it can be put in double quotes. docs/RULES.md has more.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from labels.text import read_text
from util.errors import UsageError

IMPLIES, EXCLUSIVE, ONE_OF = "implies", "exclusive", "one of"
LIST = re.compile(r"(at most one of|one of)\s*:\s*(.*)", re.IGNORECASE)
COMMENT = re.compile(r"(?:^|\s)#.*")
QUOTED = re.compile(r'(?:(?<=[\s,:>])|^)"([^"]+)"(?=[\s,]|->|$)')
FIRST_MARK = 0xE000  # a letter for private use stands for each quoted name while a line is split
ARROW, CROSS, COMMA, SPACE = (re.compile(s) for s in (r"\s*->\s*", r"\s+x\s+", r"\s*,\s*", r"\s+"))
HOW = "write `a -> b`, `a x b`, `one of: a, b, c` or `at most one of: a, b, c`"


@dataclass(frozen=True)
class Rule:
    """One rule. labels are ranks, each once; those of IMPLIES are the cause and what follows.

    text: the rule as a rules file may have it. line: its number in the file.
    """

    kind: str
    labels: tuple[int, ...]
    text: str
    line: int

    def is_broken(self, label_sets: np.ndarray) -> np.ndarray:
        """Which of the label sets N×C bool break the rule: N bool."""
        on = label_sets[:, list(self.labels)]
        if self.kind == IMPLIES:
            return on[:, 0] & ~on[:, 1:].all(1)
        count = on.sum(1)
        return count != 1 if self.kind == ONE_OF else count > 1


def read_rules(path: Path, labels: Sequence[str]) -> list[Rule]:
    """The rules of a text file on these labels, C of them in order of rank.

    Raises UsageError for a file that cannot be read, has no rule, or has a line that is no rule,
    that has an unknown label or that can be read in two ways.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UsageError(f"cannot read the rules {path} ({error.strerror})") from None
    rules = parse_rules(text, labels, str(path))
    if not rules:
        raise UsageError(f"{path} has no rule: {HOW}")
    return rules


def parse_rules(text: str, labels: Sequence[str], source: str) -> list[Rule]:
    """The rules in a text; see `read_rules`. source: its name for error messages."""
    rank = {label: i for i, label in enumerate(labels)}
    rules = []
    text = unicodedata.normalize("NFC", text)  # as labels are
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if rule := _read_line(line, rank, number):
                rules.append(rule)
        except ValueError as error:
            raise UsageError(f"{source}, line {number}: {error}") from None
    return rules


def write_rule(kind: str, names: Sequence[str]) -> str:
    """A rule as text that `parse_rules` reads, with quotes where a name needs them."""
    names = [_quoted(name) for name in names]
    if kind == IMPLIES:
        return f"{names[0]} -> {', '.join(names[1:])}"
    if kind == EXCLUSIVE and len(names) == 2:
        return " x ".join(names)
    return f"{'one of' if kind == ONE_OF else 'at most one of'}: {', '.join(names)}"


def _quoted(name: str) -> str:
    """The name, in quotes if it could be read as more than a name."""
    is_plain = re.fullmatch(r"[^\s,:#]+( [^\s,:#]+)*", name) and "->" not in name
    return name if '"' in name or (is_plain and " x " not in f" {name} ") else f'"{name}"'


def _read_line(line: str, rank: dict[str, int], number: int) -> Rule | None:
    """The rule of a line; None for an empty one. Raises ValueError."""
    quoted: list[str] = []

    def mark(found: re.Match) -> str:
        quoted.append(found[1])
        return chr(FIRST_MARK + len(quoted) - 1)

    whole = QUOTED.sub(mark, line.strip())
    line = COMMENT.sub("", whole).strip()
    names = {**rank, **{chr(FIRST_MARK + i): rank.get(name) for i, name in enumerate(quoted)}}
    known = {name for name, label in names.items() if label is not None}
    lines = [line, whole] if line != whole else [line]  # a name may have a # in it
    found = itertools.chain.from_iterable(_readings(each, known) for each in lines)
    readings = list(itertools.islice(dict.fromkeys(found), 2))

    def plain(name: str) -> str:
        for i, text in enumerate(quoted):
            name = name.replace(chr(FIRST_MARK + i), text)
        return name

    if not line:
        if readings:
            rule = write_rule(readings[0][0], [*map(plain, readings[0][1])])
            raise ValueError(f"this can mean `{rule}` or be a comment: put a name with # in quotes")
        return None
    if len(readings) == 2:
        first, second = (write_rule(kind, [*map(plain, parts)]) for kind, parts in readings)
        hint = "separate the names with commas, or put them in double quotes"
        raise ValueError(f"this can mean `{first}` or `{second}`: {hint}")
    if not readings:
        raise ValueError(_explain([plain(name) for name in _simplest(line)], rank))
    kind, parts = readings[0]
    labels = tuple(names[part] for part in parts)
    text = write_rule(kind, [plain(part) for part in parts])
    if quoted:  # the quotes may be needed: names may be parts of others
        text = line if readings[0] in _readings(line, known) else whole
        for i, name in enumerate(quoted):
            text = text.replace(chr(FIRST_MARK + i), f'"{name}"')
    if len(labels) < 2:
        raise ValueError(f"`{text}` needs two labels or more")
    if len(set(labels)) < len(labels):
        raise ValueError(f"`{text}` names a label twice")
    return Rule(kind, labels, text, number)


def _readings(line: str, known: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All that a line can mean with known names: the kind of the rule, and the names."""
    if found := LIST.fullmatch(line):
        kind = ONE_OF if found[1].lower() == "one of" else EXCLUSIVE
        separator = COMMA if "," in found[2] else SPACE
        yield from ((kind, names) for names in _split(found[2], separator, known))
    for arrow in ARROW.finditer(line):
        cause, effects = line[: arrow.start()], line[arrow.end() :]
        if cause in known:
            yield from ((IMPLIES, (cause, *names)) for names in _split(effects, COMMA, known))
    for names in _split(line, CROSS, known):
        if len(names) > 1:
            yield EXCLUSIVE, names


def _split(text: str, separator: re.Pattern, known: set[str]) -> list[tuple[str, ...]]:
    """Ways to split a text at some of its separators into known names: two at most."""
    spans = [found.span() for found in separator.finditer(text)]
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    longest = max((len(separator.findall(name)) for name in known), default=0) + 1
    ways: list[list[tuple[str, ...]]] = [[] for _ in starts] + [[()]]  # to split what begins there
    for i in reversed(range(len(starts))):
        for j in range(i, min(i + longest, len(ends))):
            if (name := text[starts[i] : ends[j]]) in known:
                ways[i] += [(name, *rest) for rest in ways[j + 1]]
        del ways[i][2:]
    return ways[0]


def _simplest(line: str) -> list[str]:
    """The names of a line that is not understood, split wherever possible; empty if nowhere."""
    if found := LIST.fullmatch(line):
        return (COMMA if "," in found[2] else SPACE).split(found[2])
    if len(parts := ARROW.split(line)) == 2:
        return [parts[0], *COMMA.split(parts[1])]
    return parts if len(parts := CROSS.split(line)) > 1 else []


def _explain(names: list[str], rank: dict[str, int]) -> str:
    """Why a line is no rule."""
    unknown = [name for name in names if name and name not in rank]
    if not unknown:
        return f"this is no rule: {HOW}"
    close = [label for label in rank if label.casefold() == unknown[0].casefold()]
    close = close or get_close_matches(unknown[0], rank, n=3)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"the model does not know the label {unknown[0]!r}{hint}"
