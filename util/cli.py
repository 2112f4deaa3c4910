"""Command lines: flags and their types, exit codes, the command and commit of a run."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import functools
import gc
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from util.errors import RunError, UsageError
from util.log import is_launched, printable
from util.streams import ReaderGoneError, reliable_streams

FLAG = re.compile(r"--?[A-Za-z][^\s=]*(=|$)")  # not -1, and not a text with spaces
# what other programs call the flags; of several, the first one that a script has
OTHER_NAMES = {
    "annotation_path": ("annotations",),
    "ann_file": ("annotations",),
    "backbone": ("arch",),
    "bs": ("batch_size",),
    "ckpt": ("checkpoint",),
    "data": ("image_path",),
    "data_dir": ("image_path",),
    "data_path": ("image_path",),
    "dataset": ("image_path",),
    "decay": ("weight_decay",),
    "delimiter": ("separator",),
    "epoch": ("num_epochs",),
    "fp16": ("amp",),
    "gpu": ("device",),
    "gpus": ("device",),
    "image_dir": ("image_path",),
    "images": ("image_path",),
    "img_size": ("image_size",),
    "imgsz": ("image_size",),
    "input": ("image_path",),
    "j": ("num_workers",),
    "label_file": ("annotations",),
    "labels": ("annotations",),
    "lr": ("learning_rate",),
    "max_epochs": ("num_epochs",),
    "merge": ("labels_to_merge",),
    "mixed_precision": ("amp",),
    "model": ("checkpoint", "arch"),
    "model_path": ("checkpoint",),
    "n_epochs": ("num_epochs",),
    "o": ("output_dir", "output"),
    "out": ("output_dir", "output"),
    "out_dir": ("output_dir", "output"),
    "output_dir": ("output",),
    "output_path": ("output_dir", "output"),
    "resume": ("output_dir",),
    "root": ("image_path",),
    "save_dir": ("output_dir", "output"),
    "sep": ("separator",),
    "size": ("image_size",),
    "val_split": ("val_fraction",),
    "validation_split": ("val_fraction",),
    "vocab": ("vocab_path",),
    "wd": ("weight_decay",),
    "weights": ("checkpoint",),
    "workers": ("num_workers",),
}


class ArgumentParser(argparse.ArgumentParser):
    """argparse with default values in the help text and one-line errors.

    --batch-size is understood as --batch_size. For an unknown flag it names the most similar one.
    """

    def __init__(self, doc: str) -> None:
        super().__init__(description=doc, formatter_class=_HelpFormatter)

    def parse_args(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse, after checking the names of all flags: their errors come before all others."""
        words = [*(sys.argv[1:] if words is None else words)]
        end = words.index("--") if "--" in words else len(words)
        words[:end] = [self._known_flag(word) if FLAG.match(word) else word for word in words[:end]]
        return super().parse_args(words)

    def _known_flag(self, word: str) -> str:
        """The word with the flag's own spelling; an unknown flag is an error."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        given, *value = word.split("=", 1)
        similar = did_you_mean(given.lstrip("-"), [f[2:] for f in flags if f.startswith("--")])
        for name in (given, given.replace("-", "_").replace("__", "--", 1)):
            begins = [f for f in flags if f.startswith(name) and name.startswith("--")]
            # --labels would begin --labels_to_merge, but means --annotations
            other = name[2:] in OTHER_NAMES and similar and f"--{similar[0]}" not in begins
            if name in flags or (begins and not other):
                return "=".join([name, *value])
        hint = " or ".join(f"--{name}" for name in similar)
        self.error(f"unknown flag {given}" + (f": did you mean {hint}?" if hint else ""))

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def changed_flags(
    flags: Mapping[str, object], parser: argparse.ArgumentParser, expected: Collection[str]
) -> list[str]:
    """The flags, other than the expected ones, whose values are not the defaults."""
    defaults = vars(parser.parse_args([]))
    return [k for k, v in flags.items() if v != defaults[k] and k not in expected]


def did_you_mean(name: str, flags: list[str]) -> list[str]:
    """The flags, three at most, that `name` probably means; both without dashes.

    >>> did_you_mean("epochs", ["arch", "num_epochs"])
    ['num_epochs']
    """
    name = name.lower().replace("-", "_")
    if also := [flag for flag in OTHER_NAMES.get(name, ()) if flag in flags]:
        return also[:1]
    if within := [f for f in flags if len(name) > 1 and {*name.split("_")} <= {*f.split("_")}]:
        return within[:3]
    words = {word: flag for flag in reversed(flags) for word in (*flag.split("_"), flag)}
    close = difflib.get_close_matches(name, words, n=3, cutoff=0.75)
    return list(dict.fromkeys(words[word] for word in close))


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of a script's docstring: it contains commands to copy."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "(default: None)" says nothing; the help text of such a flag explains its default
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def a_file(text: str) -> Path:
    """argparse type: a file that is there."""
    path = Path(text)
    if path.is_dir() or not path.exists():
        raise argparse.ArgumentTypeError(f"{path} is {'a folder' if path.is_dir() else 'no file'}")
    return path


def positive_int(text: str) -> int:
    """argparse type: an integer, 1 or more."""
    return _number(text, int, lambda x: x >= 1, "a whole number of at least 1")


def fold_count(text: str) -> int:
    """argparse type: an integer, 2 or more."""
    return _number(text, int, lambda x: x >= 2, "a whole number of at least 2")


def non_negative_int(text: str) -> int:
    """argparse type: an integer, 0 or more."""
    return _number(text, int, lambda x: x >= 0, "a whole number of at least 0")


def positive_float(text: str) -> float:
    """argparse type: a finite number above 0."""
    return _number(text, float, lambda x: 0 < x < float("inf"), "a number above 0")


def non_negative_float(text: str) -> float:
    """argparse type: a finite number, 0 or more."""
    return _number(text, float, lambda x: 0 <= x < float("inf"), "a number of at least 0")


def fraction(text: str) -> float:
    """argparse type: a number from 0 up to, but not including, 1."""
    return _number(text, float, lambda x: 0 <= x < 1, "at least 0 and below 1")


def positive_fraction(text: str) -> float:
    """argparse type: a number above 0, at most 1."""
    return _number(text, float, lambda x: 0 < x <= 1, "above 0 and at most 1")


def _number(text: str, kind: type, accept: Callable[[float], bool], what: str):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accept(value):
        raise argparse.ArgumentTypeError(f"must be {what}, not {text!r}")
    return value


def run_script(main: Callable[[argparse.Namespace], None], parser: ArgumentParser) -> None:
    """Parse the command line and call `main`. Errors become one sentence and an exit code.

    0: success, also if a closed pipe (`| head`) ended it. 1: the run failed, or stdout could not
    be written. 2: wrong usage or input.
    """
    with reliable_streams() as output:
        code, message = 0, ""
        try:
            code, message = _run(main, parser)
            output.flush()
        except ReaderGoneError:
            pass
        else:
            if output.lost and not message:
                code = code or 1
                message = f"cannot write the output ({output.lost}); files are written"
        if message:
            print(f"error: {printable(message)}", file=sys.stderr, flush=True)
    gc.freeze()  # else Python goes through all of torch's objects when it ends: up to a second
    if code:
        sys.exit(code)


def _run(main: Callable[[argparse.Namespace], None], parser: ArgumentParser) -> tuple[int, str]:
    """The exit code, and what went wrong."""
    try:
        args = parser.parse_args()
    except SystemExit as error:  # it has printed the help or a message
        return error.code or 0, ""
    except UsageError as error:  # a file of flags
        return 2, str(error)
    try:
        with _clearing_frames():
            main(args)
    except UsageError as error:
        return 2, str(error)
    except RunError as error:
        return 1, str(error)
    except KeyboardInterrupt:
        return 1, "stopped by the user"
    except OSError as error:
        if error.filename:
            return 2, f"cannot use {error.filename} ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            return 1, f"cannot write the output ({error.strerror})"
        raise
    except (MemoryError, RuntimeError) as error:
        if message := _explain(error):
            return 1, message
        raise
    return 0, ""


@contextlib.contextmanager
def _clearing_frames() -> Iterator[None]:
    """Clear the traceback's frames, so that DataLoader workers shut down at once.

    An error from a DataLoader worker refers to itself, so its frames stay alive until garbage
    collection. That may free the loader's queues before the loader stops its workers; the exit
    then hangs (40 s measured).
    """
    try:
        yield
    except BaseException as error:
        cause = error
        while cause:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        raise


def _explain(error: Exception) -> str | None:
    """A sentence for torch's general errors that a user can fix; None for all others."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return "out of memory: lower --batch_size or --image_size"
    if "DataLoader worker" in str(error):
        return (
            "a process that loads images was killed, perhaps because memory ran out: "
            "lower --num_workers or --batch_size"
        )
    return None


@functools.cache
def code_commit() -> str:
    """The git commit of the code, with "-dirty" if files changed; "unknown" without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def command_line() -> str:
    """The command that started this script, as a user would type it."""
    world = os.environ.get("WORLD_SIZE")
    start = ["torchrun", f"--nproc_per_node={world}"] if is_launched() else ["python"]
    return shlex.join([*start, *sys.argv])
