"""A run that is told to stop saves first, and has its output folder for itself."""

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
    """Within it, SIGTERM and SIGINT (Ctrl-C) only leave a note; a second one stops at once."""

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
        # torch would raise at any place, in a save too, that a loader's process has ended
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # print() may be what was interrupted
        os.write(2, f"{self.received}: saving, then stopping; again to stop at once\n".encode())

    def is_requested(self) -> bool:
        """Whether any of the processes was told to stop; all have to ask together."""
        return any_rank(self.received is not None)

    def error(self) -> RunError:
        """What ends the run once all is saved."""
        return RunError(
            f"stopped by {self.received or 'a signal'}; all is saved: the same command continues"
        )

    def watch(self, batches: Iterable) -> Iterator:
        """The batches, while nothing was received; `error` then. For work that is not saved."""
        for batch in batches:
            if self.received:
                raise self.error()
            yield batch


@contextlib.contextmanager
def lock_output_dir(folder: Path) -> Iterator[None]:
    """Makes `folder`; raises UsageError if another run is writing to it.

    A dead run's lock is none. A command that is refused before it writes leaves no folder.
    """
    is_new = not folder.exists()
    make_folder(folder)
    if rank() > 0:  # the first process has it for all
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another run is training into {folder}: wait for its end, or choose --output_dir"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to --output_dir {folder} ({reason})") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if is_new and os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                os.removedirs(folder)
