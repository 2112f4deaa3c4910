"""A cell of a table that is written as a list -> its values.

['cat', 'dog']  ('cat',)  {'cat', 'dog'}        Python
['cat' 'dog']  [0 1]  array(['cat'], dtype=…)   numpy
["cat", "dog"]  {"choices": ["cat"]}            JSON, Label Studio
{"cat": 1, "dog": 0}                            a yes or no for each label
{cat,"red dress"}  [cat, dog]                   SQL, and what people type
"""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import re

CLOSING = {"[": "]", "(": ")", "{": "}"}
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
ITEM = re.compile(rf"({QUOTED})\s*(,?)\s*", re.DOTALL)
TYPED = re.compile(rf"\b(?:np|numpy)\.\w+\(({QUOTED}|[-+.\w]+)\)", re.DOTALL)  # np.str_('cat')
CALL = re.compile(
    r"(?:(?:np|numpy|pd)\.)?(?:array|set|frozenset|list|tuple|Index)\((.*?)"
    r"(?:,\s*(?:dtype|name|shape)=[^\[\]{}]*)?\)",
    re.DOTALL,
)
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
LISTS = ("choices", "labels", "tags", "classes", "categories")  # {"choices": [...]}
Value = str | int | float


class CellError(Exception):
    """Why a cell cannot be read for sure."""


def list_in(text: str, spaces: bool = False) -> list[Value] | None:
    """The values in a cell of text that is written as a list; None for any other text.

    spaces: a value without quotes may contain spaces, as in [red dress]. Raises CellError, with
    the reason, for what looks like a list but cannot be read for sure.
    """
    text = TYPED.sub(r"\1", text.strip())
    if call := CALL.fullmatch(text):
        text = call[1].strip() or "[]"
    if CLOSING.get(text[:1]) != text[-1:] or not _is_one(text):
        return None
    inner = text[1:-1].strip()
    if text[0] == "(" and inner and inner[0] not in "\"'" and "," not in inner:
        return None  # a label such as (unknown)
    if text[0] != "(":
        with contextlib.suppress(ValueError, RecursionError):
            return _from_json(json.loads(text))
    if (quoted := _quoted(inner)) is not None:
        return quoted
    tokens = re.split(r"\s*,\s*|\s+", inner.strip(", "))
    if all(NUMBER.fullmatch(token) for token in tokens):
        return [float(t) if "." in t else int(t) for t in tokens]
    if re.match(rf"({QUOTED})\s*:", inner):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return _from_json(ast.literal_eval(text))
    return _bare(inner, spaces)


def _is_one(text: str) -> bool:
    """Whether the first bracket is closed at the end only, unlike in [a] and [b]."""
    depth, quote, escaped = 0, "", False
    for place, letter in enumerate(text):
        if quote:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == quote:
                quote = ""
        elif letter == '"' or (letter == "'" and not text[place - 1].isalnum()):
            quote = letter
        elif letter in CLOSING:
            depth += 1
        elif letter in CLOSING.values():
            depth -= 1
            if depth == 0 and place < len(text) - 1:
                return False
    return True


def _from_json(value: object) -> list[Value]:
    if isinstance(value, dict):
        if len(value) == 1 and (key := next(iter(value))) in LISTS:
            inner = value[key]
            return _from_json(inner if isinstance(inner, list) else [inner])
        flags = value.values()
        if value and all(type(f) in (int, float, bool) and f in (0, 1) for f in flags):
            return [label for label, flag in value.items() if flag]
        if value:
            raise CellError("it is a dictionary: write a list of labels")
        return []
    if not isinstance(value, list):
        raise CellError("it is no list of labels")
    if value and all(isinstance(v, dict) and v.keys() == {"choices"} for v in value):
        return [label for v in value for label in _from_json(v)]
    if not all(isinstance(v, (str, int, float)) for v in value):
        raise CellError("it holds other things than labels: write a list of texts")
    return value


def _quoted(inner: str) -> list[Value] | None:
    """Values in quotes, with a comma between all of them, or between none as numpy writes them."""
    values, commas, place = [], [], 0
    while place < len(inner):
        item = ITEM.match(inner, place)
        if item is None:
            return None
        try:
            values.append(ast.literal_eval(item[1].replace("\n", "\\n")))
        except (ValueError, SyntaxError):
            return None
        place = item.end()
        commas.append(bool(item[2]))
    if len(set(commas[:-1])) > 1:
        raise CellError("it has commas between some of its labels only")
    return values


def _bare(inner: str, spaces: bool) -> list[Value]:
    """Values separated by commas; those in double quotes may contain commas."""
    try:
        values = next(csv.reader([inner], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise CellError("a quote in it is not closed") from None
    values = [value.strip() for value in values if value.strip()]
    if any(letter in value for value in values for letter in "[]{}()'\""):
        raise CellError("it is neither a list of labels nor a label")
    if any(value.lower() in ("none", "null", "nan") for value in values):
        raise CellError("it has an empty value between its labels")
    if len(values) == 1 and " " in values[0] and not spaces:
        one = values[0].split()
        raise CellError(
            f"it is the label {values[0]!r} or the labels {', '.join(one[:3])}: put commas between "
            "labels"
        )
    if "..." in values:
        raise CellError("its middle is left out (...): write all labels")
    return values
