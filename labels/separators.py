"""What separates the labels in a column's cells, judged by what it leaves over the whole column.

| ; , and line breaks hardly occur within labels: they separate, unless a comma leaves parts that
never come back ("tench, Tinca tinca"). Spaces, / # + & > and the word "and" occur in labels, too:
they separate only if what they leave comes back in many combinations. If both readings are
plausible, UsageError names both; --separator decides.
"""

from __future__ import annotations

import re
from pathlib import Path

from labels.splitting import SAMPLE, Evidence, Separators, judge
from util.errors import UsageError
from util.log import log

STRONG = ("\n", "|", ";", "\uff1b", "\u3001", "\uff0c", "\u060c", ",", "\t")  # Chinese, Arabic
SURE = ("|", ";")
WEAK = ("/", "#", "+", "&", ">", "and")
RARE = ("-", "_", ":")  # hardly ever separate, and occur in many labels
NAMES = {" ": "spaces", "\n": "line breaks", "\t": "tabs", "and": "'and'"}
FLAG_NAMES = {" ": "space", "\n": "newline", "\t": "tab"}
SENTENCE = frozenset(("a", "an", "the", "is", "are", "of", "on", "in", "with"))
# between labels in other languages, or for a choice
JOINS = ("und", "et", "y", "e", "och", "og", "en", "и", "oder", "ou", "or", "with", "mit")
BETWEEN = re.compile(r"(?=(\W+))\1(?:\w{1,4}\W+)?")  # a sign, or a short word
IN_WORDS = re.compile(r"\w(\+\+|[+#])(\s|$)")  # C++, C#, A+: the sign may belong to the label
FEW = 3  # cells that have the separator: fewer prove nothing
OFTEN, RARELY, SOME = 0.8, 0.2, 0.4  # shares of the parts that come back in other cells


def find_separators(
    texts: list[str], path: Path, column: str, given: str | None, row_per_label: bool
) -> Separators:
    """What separates the labels of these different cells; says it with an example.

    given: what --separator says; empty for "a cell is one label". row_per_label: images are on
    several rows, so that each cell should be one label. Raises UsageError.
    """
    texts = [text for text in texts if text.strip()]
    if given is not None:
        return _given(texts, path, given)
    if texts and all(re.fullmatch(r"#\S.*", text, re.DOTALL) for text in texts):
        ends = {text[-1] for text in Separators(("#",)).names(" ".join(texts))}
        return _said(Separators(("#", *(ends & {",", ";", "|"}))), texts, path)  # hashtags
    if row_per_label:
        return _row_per_label(texts, path, column)
    for separator in STRONG:
        found = judge(texts, separator)
        if found is None:
            continue
        enough = found.cells >= FEW or len(texts) > 3 * FEW
        decimals = separator == "," and any(re.search(r"\D\d+,\d", text) for text in texts)
        if separator not in SURE and (decimals or (enough and found.share < RARELY)):
            raise _unclear(path, column, separator, found)
        separators = _with_others(texts, separator, path, column)
        _check_quotes([t for t in texts if '"' in t], texts, path, column, separators)
        return _said(separators, texts, path)
    for separator in WEAK:
        found = judge(texts, separator)
        if found is None:
            continue
        in_words = separator in "+#" and any(IN_WORDS.search(text) for text in texts)
        if found.share >= OFTEN and found.cells >= FEW and found.mixed and not in_words:
            return _said(_with_others(texts, separator, path, column), texts, path)
        if found.share >= SOME:
            raise _unclear(path, column, separator, found)
    for word in JOINS:
        found = judge([text for text in texts if f" {word} " in text], word)
        if found and (found.share >= SOME or {*found.parts} & {*texts}):
            raise _unclear(path, column, word, found)
    if (found := judge(texts, " ")) and _spaces_separate(found, path, column):
        return _said(Separators((" ",)), texts, path)
    _check_signs(texts, path, column)
    for separator in RARE:
        found = judge(texts, separator)
        if found and found.share == 1 and found.mixed:
            raise _unclear(path, column, separator, found)
    _say_whole(texts, path)
    return Separators()


def _check_signs(texts: list[str], path: Path, column: str) -> None:
    """Raise UsageError for two cells in one, with a sign or short word between: cat or dog."""
    known = {text.strip() for text in texts}
    for text in texts[:: 1 + len(texts) // SAMPLE]:
        for between in BETWEEN.finditer(text):
            sign = between[0].strip()
            parts = text[: between.start()].strip(), text[between.end() :].strip()
            if sign and sign not in (*RARE, *known) and known.issuperset(parts):
                example = text.strip()
                raise UsageError(
                    f"{path}, column {column!r}: {example!r} may be one label or several: "
                    f"{_readings(example, sign)}"
                )


def _spaces_separate(found: Evidence, path: Path, column: str) -> bool:
    """Whether words are labels; "traffic light" has a space, too. Raises UsageError if unclear."""
    numbers = all(part.isdigit() for part in found.parts)
    if numbers:
        return True
    signs = [part for part in found.parts if not any(map(str.isalnum, part))]
    if signs and (between := judge([found.example], signs[0])):  # cat - dog
        raise _unclear(path, column, signs[0], between)
    if found.share >= OFTEN and found.cells < FEW:
        if found.mixed and found.share == 1:
            raise _unclear(path, column, " ", found)
        return False
    if found.share >= OFTEN:
        sentences = len(SENTENCE & {part.lower() for part in found.parts}) > 1
        if found.mixed and found.few_parts and not sentences:
            return True
        raise _unclear(path, column, " ", found)
    joined = any("_" in part for part in found.parts)  # blue_hair long_hair: tags of one word
    if found.share >= SOME and found.mixed and (found.lengths > 2 or joined):
        raise _unclear(path, column, " ", found)
    return False


def _row_per_label(texts: list[str], path: Path, column: str) -> Separators:
    """No separators, unless what they leave comes back: then both readings are plausible."""
    for separator in (*STRONG, *WEAK):
        found = judge(texts, separator)
        if found is None:
            continue
        least = 0 if separator in SURE else RARELY if separator in STRONG else OFTEN
        if found.share >= least and (separator in STRONG or found.mixed):
            raise UsageError(
                f"{path} has several rows of an image, and cells such as {found.example!r} in "
                f"{column!r}: {_readings(found.example, separator)}"
            )
    _check_words(texts, path, column)
    _say_whole(texts, path, " (a row for each label)")
    return Separators()


def _check_words(texts: list[str], path: Path, column: str) -> None:
    """Raise UsageError for "cat dog" if there are cells "cat" and "dog", too."""
    whole = {" ".join(text.split()) for text in texts}
    several = [text for text in whole if " " in text]
    mixed = [text for text in several if whole.issuperset(text.split())]
    if 2 * len(mixed) > len(several):
        example = min(mixed, key=lambda text: (len(text), text))
        raise UsageError(
            f"{path} has several rows of an image, and cells such as {example!r} in {column!r}: "
            f"{_readings(example, ' ')}"
        )


def _with_others(texts: list[str], first: str, path: Path, column: str) -> Separators:
    """`first`, and other separators that are used like it: cat, dog; hat."""
    used, joined = (first,), "\0".join(texts)
    for other in (*STRONG, *WEAK):
        if other in used or other not in joined:
            continue
        parts = _unquoted(texts, Separators(used))
        found = judge(sorted(parts), other)
        if found is None or found.share < 0.5:
            continue
        if found.share < 1 or (other not in STRONG and other != "and"):
            raise UsageError(
                f"{path} has labels separated by {_name(first)}, and {found.example!r} in "
                f"{column!r}: {_readings(found.example, other, _flag(first))}"
            )
        used = (*used, other)
    return Separators(used)


def _check_quotes(
    quotes: list[str], texts: list[str], path: Path, column: str, separators: Separators
) -> None:
    """Raise UsageError for a cell that another one has in quotes: as one label."""
    labels = {part for text in quotes for part, quoted in separators.split(text) if quoted}
    same = [text for text in texts if text in labels]
    if both := [text for text in same if len(_unquoted([text], separators)) > 1]:
        raise UsageError(
            f"{path}, column {column!r}: {both[0]!r} is one label in another cell, in quotes: "
            f"write {both[0]!r} in quotes within the quotes of its cell, too"
        )


def _unquoted(texts: list[str], separators: Separators) -> set[str]:
    return {part for text in texts for part, quoted in separators.split(text) if not quoted}


def _given(texts: list[str], path: Path, given: str) -> Separators:
    if not given:
        return Separators()
    separators = Separators((given.strip() or given,))
    if not any(len(separators.names(text)) > 1 for text in texts):
        for other in STRONG:
            if found := judge(texts, other):
                raise UsageError(
                    f"--separator: no cell of {path} has {_name(given)} between labels, but "
                    f"{found.example!r} has {_name(other)}"
                )
    return separators


def _said(separators: Separators, texts: list[str], path: Path) -> Separators:
    several = [text for text in texts[:SAMPLE] if len(separators.names(text)) > 1] or texts
    example = min(several, key=lambda text: (len(text), text))
    between = " and ".join(map(_name, separators.texts))
    log(
        f"{path}: labels are separated by {between}: {example!r} is read as "
        f"{', '.join(separators.names(example))}; if that is wrong, use --separator"
    )
    return separators


def _say_whole(texts: list[str], path: Path, why: str = "") -> None:
    signs = re.compile(r"[\s/#+&>|;,]|\w[-_:]\w")
    found = [text for text in texts if signs.search(text)]
    if found or why:
        example = min(found or texts or [""], key=lambda text: (len(text), text))
        log(f"{path}: each cell is read as one label{why}, for example {example!r}")


def _unclear(path: Path, column: str, separator: str, found: Evidence) -> UsageError:
    return UsageError(
        f"{path}, column {column!r}: {found.example!r} may be one label or several: "
        f"{_readings(found.example, separator)}"
    )


def _readings(example: str, separator: str, whole: str = "none") -> str:
    parts = ", ".join(Separators((separator,)).names(example))
    return (
        f"use --separator {whole} if {example!r} is one label, --separator {_flag(separator)} if "
        f"the labels are {parts}"
    )


def _name(separator: str) -> str:
    return NAMES.get(separator, repr(separator))


def _flag(separator: str) -> str:
    """The value of --separator, quoted for a shell."""
    name = FLAG_NAMES.get(separator, separator)
    return name if name.isalnum() else f"'{name}'"
