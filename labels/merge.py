"""labels_to_merge.csv -> which labels to rename: `--labels_to_merge`.

from,to
Dog,dog
doggo,dog
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from labels.text import read_text
from util.errors import UsageError


def read_merges(path: Path) -> dict[str, str]:
    """From labels to what they become. Raises UsageError naming file and row."""
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except csv.Error as error:
        raise UsageError(f"{path} is not CSV ({error})") from None
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["from", "to"]:
        raise UsageError(f"{path} must begin with the row from,to")
    merges: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        old, *new = (" ".join(cell.split()) for cell in row)
        if len(new) != 1 or not old or not new[0]:
            raise UsageError(f"{path}, row {number}, must have two labels: from,to")
        if merges.setdefault(old, new[0]) != new[0]:
            raise UsageError(f"{path}, row {number}, renames {old!r} a second time")
    if chained := sorted({new for old, new in merges.items() if merges.get(new, new) != new}):
        raise UsageError(f"{path} renames {chained[0]!r}, to which other labels are renamed")
    return merges
