"""stdout and stderr that a script can rely on, whatever became of them outside.

stdout is data. If it cannot be written (a full disk, closed by `>&-`), the work goes on, as its
results may be files, and the script says so at its end. If its reader has gone (`| head`), the
script ends. stderr is progress: a script does without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class ReaderGoneError(Exception):
    """Nobody reads stdout any more. Not an OSError: no file is to be blamed for it."""


class _Stream:
    """A text stream whose errors raise no OSError. lost: why something could not be written."""

    def __init__(self, stream: TextIO, lost: str = "") -> None:
        self._stream, self._closed, self.lost = stream, lost, ""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of a text stream, but never a UnicodeEncodeError: such characters are escaped."""
        self.lost = self.lost or (text and self._closed)
        with self._guarded():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._guarded():
            self._stream.flush()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error.strerror or str(error)
            _open_null(self._stream.fileno())  # what is buffered is written there
            if isinstance(error, BrokenPipeError):
                self._reader_has_gone()

    def _reader_has_gone(self) -> None:
        """Of stderr: nothing."""


class _Output(_Stream):
    """stdout."""

    def _reader_has_gone(self) -> None:
        raise ReaderGoneError from None


@contextlib.contextmanager
def reliable_streams() -> Iterator[_Stream]:
    """Replace sys.stdout and sys.stderr by streams that raise no OSError; gives stdout's.

    Its `lost` says, after a flush, why not all of stdout was written; empty if it was. Raises
    ReaderGoneError from a write or flush of stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened must not get its number
            _open_null(number)
    before = sys.stdout, sys.stderr
    output = _Output(_usable(sys.stdout), "" if sys.stdout else "it is closed")
    sys.stdout, sys.stderr = output, _Stream(_usable(sys.stderr))
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def _usable(stream: TextIO | None) -> TextIO:
    """The stream, or one to nowhere. It escapes what its encoding lacks, such as · in ASCII."""
    if stream is None:  # closed when Python started
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _open_null(number: int) -> None:
    """Let a file descriptor lead to nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
