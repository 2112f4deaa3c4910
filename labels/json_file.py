"""JSON files of labelling tools: what they contain at the top, and their content."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import msgspec

from labels.text import GZIP, read_head, read_text
from util.errors import UsageError

SAMPLE = 50  # entries that a format is recognised by
COCO_START = re.compile(r'\{\s*"(info|images|licenses|categories|annotations)"\s*:')
Top = dict[str, msgspec.Raw] | list[msgspec.Raw]


def sample(path: Path) -> dict | list:
    """A file's first JSON entries: the first values by key, or the first items of a list.

    Empty if the file is no JSON, or begins as COCO's do (which may be large).
    """
    if not path.is_file():
        return {}
    try:
        status = path.stat()
        return _sample(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return {}


@functools.lru_cache(maxsize=8)
def _sample(path: Path, changed: int, size: int) -> dict | list:
    head, text = read_head(path)
    zipped = head.startswith(GZIP)
    if not zipped and (text[:1] not in ("{", "[") or COCO_START.match(text)):
        return {}
    first_line, _, rest = text.partition("\n")
    if first_line.rstrip().endswith("}") and rest.lstrip().startswith("{"):
        return {}  # JSONL
    try:
        text = read_text(path)
        if zipped and COCO_START.match(text):
            return {}
        try:
            top = msgspec.json.decode(text, type=Top)
            some = list(top.items())[:SAMPLE] if isinstance(top, dict) else top[:SAMPLE]
            if isinstance(top, dict):
                return {key: msgspec.json.decode(value) for key, value in some}
            return [msgspec.json.decode(value) for value in some]
        except msgspec.DecodeError:
            return _sample_of_python_json(text)
    except (UsageError, ValueError, RecursionError):
        return {}


def _sample_of_python_json(text: str) -> dict | list:
    """The same for NaN and half characters, which are not strict JSON. Raises ValueError."""
    top = json.loads(text)
    if isinstance(top, dict):
        return dict(list(top.items())[:SAMPLE])
    return top[:SAMPLE] if isinstance(top, list) else {}


def load(path: Path) -> dict | list:
    """The content of a JSON file. Raises UsageError, OSError."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise UsageError(f"{path} is not JSON: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error})") from None
