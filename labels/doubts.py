"""Labels that say more than which label is there: cat:2, cat 0.9, cat?, cat x2, -cat, not cat."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from util.errors import UsageError

NUMBER = r"-?\d+(\.\d+)?%?"
# a word, then a number behind : or =, a number in brackets, or several numbers as of a box
SCORED = re.compile(rf"(?=.*[^\W\d_]).*\S\s*([:=]\s*{NUMBER}|\({NUMBER}\)|(\s+{NUMBER}){{2,}})")
BULLET = re.compile(r"[-*•–▪·]\s+\S")
# cat? or cat (?), cat., cat x2
MARKED = re.compile(r"(\S.*?)\s*([?.!*]+|\(\?\)|\(?[x×]\s?\d+\)?)", re.IGNORECASE)
NEGATED = re.compile(r"(?:[-!~]\s*|(?:no|not|non|without)[\s-]\s*)(\S.*)", re.IGNORECASE)


def check_meaning(labels: Collection[str], path: Path, several: bool) -> None:
    """Raise UsageError if most labels end in numbers, or if one marks or denies another.

    several: some images have several labels. If none has, mask and no mask are two classes.
    """
    scored = [label for label in labels if SCORED.fullmatch(label)]
    if 2 * len(scored) > len(labels):
        raise UsageError(
            f"{path} has labels such as {min(scored)!r}, with numbers that may be counts, scores "
            "or boxes: write the labels only; if they are right, confirm with --separator"
        )
    bullets = [label for label in labels if BULLET.match(label)]
    if bullets and len(bullets) == len(labels):
        raise UsageError(
            f"{path} has labels such as {min(bullets)!r}: delete the signs before the labels; if "
            "they belong to them, confirm with --separator"
        )
    for label in sorted(labels):
        marked = MARKED.fullmatch(label)
        if marked and marked[1] in labels:
            raise UsageError(
                f"{path} has the labels {marked[1]!r} and {label!r}: does {marked[2]!r} mean a "
                "doubt or a number? Write one name for both; if both are labels, confirm with "
                "--separator"
            )
    for label in sorted(labels) if several else ():
        denied = NEGATED.fullmatch(label)
        if denied and denied[1] in labels:
            raise UsageError(
                f"{path} has the labels {denied[1]!r} and {label!r}: does the second say that the "
                "first is absent? Leave it out then; if both are labels, confirm with --separator"
            )
