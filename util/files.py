"""Write files: whole or not at all, without spreadsheet formulas, as valid JSON."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path

from util.errors import RunError, UsageError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet reads these as a formula (OWASP's list)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, then rename that file to `path`.

    Makes the folder. Raises RunError if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make_folder(path: Path) -> None:
    """Make an output folder if it does not exist. Raises UsageError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot make the folder {path} ({reason}); choose another") from None


def csv_text(name: str) -> str:
    """A name as the text of a CSV cell: a quote before it keeps a spreadsheet from running it."""
    return f"'{name}" if name.startswith(FORMULA) else name


def without_nan(value: object) -> object:
    """A copy for JSON, which has no nan: undefined metrics become null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
