"""What every script shares: errors and exit codes, logging, device, atomic files."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from collections.abc import Callable, Iterator

from util.errors import RunError, UsageError
from util.log import is_launched, printable


class ArgumentParser(argparse.ArgumentParser):
    """argparse with defaults in the help text and errors of one line."""

    def __init__(self, doc: str) -> None:
        super().__init__(description=doc, formatter_class=_HelpFormatter)

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the commands in a script's docstring as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "(default: None)" says nothing: such flags explain themselves in their help
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def positive_int(text: str) -> int:
    """argparse type: an integer of at least 1."""
    return _number(text, int, lambda x: x >= 1, "a whole number of at least 1")


def non_negative_int(text: str) -> int:
    """argparse type: an integer of at least 0."""
    return _number(text, int, lambda x: x >= 0, "a whole number of at least 0")


def positive_float(text: str) -> float:
    """argparse type: a finite number above 0."""
    return _number(text, float, lambda x: 0 < x < float("inf"), "a number above 0")


def non_negative_float(text: str) -> float:
    """argparse type: a finite number of at least 0."""
    return _number(text, float, lambda x: 0 <= x < float("inf"), "a number of at least 0")


def fraction(text: str) -> float:
    """argparse type: a number from 0 up to, but not including, 1."""
    return _number(text, float, lambda x: 0 <= x < 1, "a number from 0 to below 1")


def _number(text: str, kind: type, accept: Callable[[float], bool], what: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def run_script(main: Callable[[argparse.Namespace], None], parser: ArgumentParser) -> None:
    """Parse the command line, call `main`, and turn the project's errors into exit codes."""
    args = parser.parse_args()
    try:
        with _letting_go():
            main(args)
        sys.stdout.flush()  # a closed pipe (`| head`) shows here, not in the interpreter's exit
        return
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except UsageError as error:
        message, code = str(error), 2
    except RunError as error:
        message, code = str(error), 1
    except KeyboardInterrupt:
        message, code = "stopped by the user", 1
    except OSError as error:
        if not error.filename:
            raise
        message, code = f"cannot use {error.filename} ({error.strerror})", 2
    except (MemoryError, RuntimeError) as error:
        message, code = _failure(error), 1
        if not message:
            raise
    print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    sys.exit(code)


@contextlib.contextmanager
def _letting_go() -> Iterator[None]:
    """Of what failed lets go at once, of loaders too: their processes end with them.

    torch has errors of such a process refer to themselves, and so to every frame they passed. Left
    to the garbage collector a loader might lose its queues before it could end its processes.
    """
    try:
        yield
    except BaseException as error:
        cause = error
        while cause:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        raise


def _failure(error: Exception) -> str | None:
    """What torch means by an error of no class of its own, if a user can do something."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "out of memory: lower --batch_size or --image_size"
    if "DataLoader worker" in str(error):
        return (
            "a process that loads images was killed, for lack of memory perhaps: lower "
            "--num_workers or --batch_size"
        )
    return None


def code_commit() -> str:
    """The code's git commit, or 'unknown' outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def command_line() -> str:
    """The command that runs, as a user would type it."""
    world = os.environ.get("WORLD_SIZE")
    start = ["torchrun", f"--nproc_per_node={world}"] if is_launched() else ["python"]
    return shlex.join([*start, *sys.argv])
