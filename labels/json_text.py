"""JSON files: their beginning, to tell formats apart, and all of them, with no key twice."""

from __future__ import annotations

import json
from pathlib import Path

from labels.text import read_head, read_text
from util.errors import UsageError

CLOSING = {"{": "}", "[": "]"}


def peek_json(path: Path) -> object:
    """The data in the first bytes of a JSON file, without the value that is cut off there.

    None if this is not one JSON object or list. Raises OSError.
    """
    _, text = read_head(path)
    if text[:1] not in CLOSING:
        return None
    try:
        return json.loads(_closed(text))
    except (ValueError, RecursionError):
        return None


def _closed(text: str) -> str:
    """The beginning of a JSON text, cut after its last whole value, with its brackets closed."""
    open_brackets, in_text, skip = [], False, False
    whole, closing = 0, ""  # where the last whole value ends, and what closes the text there
    for i, sign in enumerate(text):
        if skip:
            skip = False
        elif in_text:
            skip, in_text = sign == "\\", sign != '"'
        elif sign == '"':
            in_text = True
        elif sign in CLOSING:
            open_brackets.append(sign)
        elif sign in "}]":
            if not open_brackets:
                return text
            open_brackets.pop()
            if not open_brackets:
                return text  # all of it is here; what follows makes it no JSON
            whole, closing = i + 1, "".join(CLOSING[b] for b in reversed(open_brackets))
        elif sign == ",":
            whole, closing = i, "".join(CLOSING[b] for b in reversed(open_brackets))
    return text[:whole] + closing


def decode_json(path: Path) -> object:
    """A whole JSON file. NaN becomes None. Raises UsageError, and OSError."""
    text = read_text(path)
    try:
        return loads(text)
    except RecursionError:
        raise UsageError(f"{path} is not read: it is nested too deeply") from None
    except RepeatedKeyError as error:
        raise UsageError(f"{path} has {error} twice in one object: keep one") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error})") from None


class RepeatedKeyError(Exception):
    """The key that an object has twice."""


def loads(text: str) -> object:
    """JSON -> data. NaN becomes None. Raises RepeatedKeyError, ValueError, RecursionError."""
    return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=lambda _: None)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKeyError(repr(next(k for k in keys if keys.count(k) > 1)))
    return found
