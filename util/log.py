"""Progress on stderr: stdout is data."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:  # torch takes seconds to import, and half of the scripts do not need it
    from torch.utils.data import DataLoader

# C0 and C1 controls, line separators, changes of writing direction, lone surrogates
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process reports: it is the only one, or torchrun's rank 0."""
    return not is_launched() or os.environ.get("RANK") == "0"


_collected: list[str] | None = None


@contextlib.contextmanager
def collected_log() -> Iterator[list[str]]:
    """Collect the lines of `log` instead of printing them. After an error they are printed."""
    global _collected
    _collected = lines = []
    try:
        yield lines
    except BaseException:
        _collected = None
        for line in fit_lines(lines, 9):
            log(line)
        raise
    finally:
        _collected = None


def fit_lines(lines: list[str], most: int) -> list[str]:
    """The lines, the last ones joined if there are too many.

    >>> fit_lines(["a", "b", "c"], 2)
    ['a', 'b; c']
    """
    return lines if len(lines) <= most else [*lines[: most - 1], "; ".join(lines[most - 1 :])]


def log(*words: object, sep: str = " ") -> None:
    """Print a line of progress to stderr; with torchrun, only rank 0 does."""
    if _collected is not None:
        _collected.extend(sep.join(map(str, words)).splitlines())
    elif is_first():
        print(*map(printable, words), sep=sep, file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """`text` with control characters escaped: file and label names may come from anyone.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, perhaps with its verb; without `plural` an s is added.

    >>> counted(1, "image"), counted(2000, "image is", "images are")
    ('1 image', '2,000 images are')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(examples: Sequence[str], shown: int = 5) -> str:
    """The first examples, and how many more there are.

    >>> some(["fig", "kiwi", "lime"], shown=2)
    'fig, kiwi and 1 more'
    """
    more = f" and {len(examples) - shown:,} more" if len(examples) > shown else ""
    return ", ".join(examples[:shown]) + more


def progress(batches: DataLoader | Sequence, label: str, unit: str = "batches") -> Iterator:
    """Yield the batches; show a bar on a terminal after a second, else log a line every 15 s."""
    if sys.stderr.isatty() and is_first():
        bar = {"unit": unit, "leave": False, "dynamic_ncols": True, "delay": 1}
        yield from tqdm(batches, desc=label, **bar)
        return
    started = reported = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - reported > 15:
            reported = now
            left = (now - started) / done * (len(batches) - done)
            log(f"{label}: {done}/{len(batches)} {unit}, {left:.0f} s left")
        yield batch
