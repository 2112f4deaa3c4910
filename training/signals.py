"""Signals that stop a run after a save, and a lock that keeps its output folder to one run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from util.distributed import any_rank, rank
from util.errors import RunError, UsageError
from util.files import make_folder


class StopOnSignal:
    """A context in which SIGTERM and Ctrl-C only set `received`; a second one stops at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None

    def __enter__(self) -> StopOnSignal:
        self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        # torch's handler would raise anywhere, even in a save, when a DataLoader worker ends
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # not print(): the signal may have interrupted one
        os.write(
            2, f"{self.received}: saving, then stopping; send it again to stop at once\n".encode()
        )

    def is_requested(self) -> bool:
        """Whether any process got a signal; under torchrun all must call this together."""
        return any_rank(self.received is not None)

    def error(self) -> RunError:
        """The error that ends the run after the save."""
        return RunError(
            f"stopped by {self.received or 'a signal'}; everything is saved: the same command "
            "continues"
        )

    def watch(self, batches: Iterable) -> Iterator:
        """Yield the batches; raise `error` on a signal. For validation, which saves nothing."""
        for batch in batches:
            if self.received:
                raise self.error()
            yield batch


@contextlib.contextmanager
def lock_output_dir(folder: Path, flag: str = "--output_dir") -> Iterator[None]:
    """Make `folder` and lock it. Raises UsageError if another run is writing to it.

    The lock ends with its process. If nothing was written, a folder made here is removed again.
    """
    is_new = not folder.exists()
    make_folder(folder)
    if rank() > 0:  # the first process holds the lock for all
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another run is writing to {folder}: wait, or choose another {flag}"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to {flag} {folder} ({reason})") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if is_new and os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                os.removedirs(folder)
