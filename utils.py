"""What every script shares: errors and exit codes, logging, device, atomic files."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import math
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:  # torch takes seconds to import, and half of the scripts do without it
    import torch
    from torch.utils.data import DataLoader


# C0 and C1 controls, line separators, changes of writing direction, halves of characters
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formulas begin (OWASP's list)


class _ProjectError(Exception):
    """The message is the one sentence the user sees."""

    def __str__(self) -> str:
        # a DataLoader's worker puts its traceback before the message it passes on
        return super().__str__().rsplit(f"{type(self).__name__}: ", 1)[-1].strip()


class UsageError(_ProjectError):
    """Wrong flags or input, exit code 2."""


class RunError(_ProjectError):
    """The run itself failed (a non-finite loss, say): one sentence, exit code 1."""


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


def is_launched() -> bool:
    """Whether torchrun started this process, beside others."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process speaks for all: the only one, or torchrun's first."""
    return not is_launched() or os.environ.get("RANK") == "0"


def command_line() -> str:
    """The command that runs, as a user would type it."""
    world = os.environ.get("WORLD_SIZE")
    start = ["torchrun", f"--nproc_per_node={world}"] if is_launched() else ["python"]
    return shlex.join([*start, *sys.argv])


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


def pick_device(name: str) -> torch.device:
    """The device, set up; `auto` takes a GPU if there is one.

    Raises UsageError for a device that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    number = os.environ["LOCAL_RANK"] if is_launched() else 0  # a GPU for each process
    try:
        device = torch.device(f"cuda:{number}" if name == "cuda" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}); try auto") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # probabilities are to be exact; the encoder has bf16
        torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, for the next tensors.

    A step of training on a CPU takes and frees hundreds of megabytes, and the processes that load
    images, which inherit this, do so for each batch. By default most go back to the system, which
    clears every page that is asked for anew. In exchange a process stays as large as it ever was,
    and somewhat larger: holes between what is in use are not given back either.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_mmap_max, 0)


@functools.cache
def bf16_pays(device: torch.device) -> bool:
    """Whether training is faster there in bfloat16 than in float32: known, or measured once.

    Emulated, bfloat16 is 10 times slower. A GPU or CPU with matrix units for it gains; a CPU with
    no more than vector instructions may lose what they gain in converting, so half a second goes to
    a small network in both precisions.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    can = torch.cpu.get_capabilities()
    if can.get("amx_bf16"):
        return True
    if not (can.get("avx512_bf16") or can.get("bf16")):
        return False
    gain = _bf16_gain()
    log(f"bfloat16 is {gain:.2f} times as fast as float32 on this CPU")
    return gain > 1.2  # for less it is not worth its rounding


def _bf16_gain() -> float:
    """Seconds in float32 over seconds in bfloat16 of a few training steps on the CPU."""
    import torch
    from torch import nn

    # the caller may want no gradients, and its random numbers as if nothing had been measured
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        layers = [nn.Conv2d(3, 64, 3, padding=1)]
        for _ in range(3):
            layers += [nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)]
        net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        images = torch.rand(8, 3, 28, 28).to(memory_format=torch.channels_last)
        times = {False: [], True: []}
        for _ in range(4):
            for bf16, seconds in times.items():
                started = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = net(images).float().square().mean()
                loss.backward()
                seconds.append(time.perf_counter() - started)
    return min(times[False]) / min(times[True])  # what else runs can only lengthen them


def resolve_amp(amp: str, device: torch.device, flags: dict) -> str:
    """`auto` -> `on` or `off`: as it was in the run with these flags on such a device, if any.

    A measurement may end differently the next time; a run must not change its precision, and
    what its checkpoint says of an image must not depend on the minute.
    """
    if amp != "auto":
        return amp
    if flags.get("device") == device.type and flags.get("amp") in ("on", "off"):
        return flags["amp"]
    return "on" if bf16_pays(device) else "off"


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The mixed-precision context for `--amp auto|on|off`."""
    import torch

    enabled = resolve_amp(amp, device, {}) == "on"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of `path`, then put it in its place in one step."""
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
    """Make an output folder, if it is not there. Raises UsageError if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot make the folder {path} ({reason}); choose another") from None


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
