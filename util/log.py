"""Progress on stderr, and text that is safe to print."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Iterator

from torch.utils.data import DataLoader
from tqdm import tqdm

# C0 and C1 controls, line separators, changes of writing direction, halves of characters
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formulas begin (OWASP's list)


def is_launched() -> bool:
    """Whether torchrun started this process, beside others."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process speaks for all: the only one, or torchrun's first."""
    return not is_launched() or os.environ.get("RANK") == "0"


def log(*words: object, sep: str = " ") -> None:
    """Progress goes to stderr: stdout is data. Of several processes only the first reports."""
    if is_first():
        print(*map(printable, words), sep=sep, file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """On one line, and nothing in it that a terminal obeys: names come from anyone's files.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def csv_text(name: str) -> str:
    """A name as a CSV cell that no spreadsheet takes for a formula, by its own means: a quote."""
    return f"'{name}" if name.startswith(FORMULA) else name


def without_nan(value: object) -> object:
    """JSON has no nan: undefined figures become null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def progress(batches: DataLoader, label: str) -> Iterator:
    """The batches, with a bar on a terminal, and a plain line every 15 seconds otherwise."""
    if sys.stderr.isatty() and is_first():
        yield from tqdm(batches, desc=label, unit="batch", leave=False, dynamic_ncols=True)
        return
    started = told = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - told > 15:
            told = now
            left = (now - started) / done * (len(batches) - done)
            log(f"{label}: {done}/{len(batches)} batches, {left:.0f} s left")
        yield batch
