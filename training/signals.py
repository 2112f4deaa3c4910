"""Signals that stop a run after a save, and a lock that keeps its output folder to one run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from util.distributed import any_rank, rank
from util.errors import RunError, UsageError
from util.files import make_folder
from util.log import is_first, is_launched

# not `.lock`, which a user may have: some versions of filelock empty the file that they lock
LOCK = ".hybridnet.lock"
PATIENCE = 1.0  # seconds: two Ctrl-C within it are one, passed on by another process
SIGNALS = (signal.SIGTERM, signal.SIGINT)
if hasattr(signal, "SIGHUP"):  # the terminal was closed; Windows has none
    SIGNALS += (signal.SIGHUP,)


class StopOnSignal:
    """A context in which SIGTERM, SIGHUP and Ctrl-C only set `received`.

    Only a second Ctrl-C stops at once. The other signals often come twice: a scheduler sends them
    to all processes, and torchrun and timeout pass them on.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.received_at = 0.0

    def __enter__(self) -> StopOnSignal:
        numbers = [n for n in SIGNALS if n == signal.SIGINT or not _is_ignored(n)]
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            # the process is about to end: the same signal again must not cut its last words short
            is_over = self.received and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if is_over else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            is_again = number == signal.SIGINT and not is_launched()  # torchrun passes Ctrl-C on
            if is_again and time.monotonic() - self.received_at > PATIENCE:
                raise KeyboardInterrupt
            return
        self.received, self.received_at = signal.Signals(number).name, time.monotonic()
        # torch's handler would raise anywhere, even in a save, when a DataLoader worker ends
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not is_first():
            return
        how = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        # not print(): the signal may have interrupted one; a terminal that was closed is no error
        with contextlib.suppress(OSError):
            os.write(2, f"{self.received}: saving, then stopping{how}\n".encode())

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


def _is_ignored(number: int) -> bool:
    """Whether this process was started to ignore the signal, as nohup does with SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


@contextlib.contextmanager
def lock_output_dir(folder: Path, flag: str = "--output_dir") -> Iterator[None]:
    """Make `folder` and lock it. Raises UsageError if another run is writing to it.

    The lock ends with its process. If nothing was written, folders made here are removed again.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    if rank() > 0:  # the first process holds the lock for all
        yield
        return
    lock = FileLock(folder / LOCK)
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
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
                for each in made:
                    each.rmdir()
