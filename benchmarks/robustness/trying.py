"""What happens when one mutated file is read: by functions, by a script, or by a new process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.testing  # its import starts lscpu; older SciPy imports it late
from doors import DOORS, Door
from mutated_inputs import write_mutated

from deploy import predict_onnx
from util.cli import run_script
from util.errors import UsageError
from util.log import printable

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
FAILURES = ("tracebacks", "hangs", "code run", "written", "memory")
FUNCTIONS, SCRIPT, PROCESS = WAYS = ("functions", "script", "process")
WORK, STARTING = 10, 30  # seconds of a processor: for one input, and for the imports of a process
PATIENCE = 300  # seconds until an input must have ended; other work may slow it down
ADDRESSES = 12 << 30  # bytes of address space, so that no file can fill the machine's memory
MEMORY = 2 << 20  # kB
UNCHANGED = 2  # the first inputs are valid: a script and the functions must accept them
IN_A_ROW = 200  # inputs that one process reads with functions
STARTS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
STARTS |= {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"}
# starts a script as a user does, but with the tiny network, and without waiting for a browser
START = f"""
import runpy, sys
sys.path[:0] = [{str(HERE)!r}, {str(ROOT / "data")!r}, {str(ROOT)!r}]
import torchvision
from tiny_network import tiny_resnet
torchvision.models.resnet18 = tiny_resnet
del sys.argv[0]
if sys.argv[0].endswith("annotate.py"):
    import annotation.server
    annotation.server.listen = annotation.server.serve = lambda *args: None
runpy.run_path(sys.argv[0], run_name="__main__")
"""

Input = tuple[str, int]  # a door and a number
Outcome = tuple[str, str]  # "accepted", "refused" or one of FAILURES, and what happened


class Watch:
    """An audit hook: records what the tested code starts, and which files it writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on = os.path.realpath(folder), False
        self.started: list[str] = []
        self.written: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        """Called by Python for each event; must be fast."""
        if not self.on:
            return
        if event in STARTS:
            inside = event in ("os.remove", "os.rename", "os.rmdir") and self.is_inside(args[0])
            no_library = event == "ctypes.dlopen" and args[0] is None  # Python itself
            if not (inside or no_library):
                self.started.append(f"{event} {args[:2]}")
        elif event == "open" and isinstance(args[2], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not isinstance(args[0], int) and not self.is_inside(args[0]):
                self.written.append(str(args[0]))

    def is_inside(self, path: object) -> bool:
        """Whether a path is in the working folder."""
        path = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)
        return path == os.devnull or os.path.realpath(path).startswith(self.folder)


def read_by_script(door: Door) -> None:
    """Run the script that reads the file. Raises UsageError for its exit code 2."""
    check_end(*run_door(door))


def run_door(door: Door) -> tuple[int, str]:
    """The exit code of the script, and its stderr."""
    stderr, code = io.StringIO(), 0
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            if door.script is predict_onnx:
                folder, photo = map(Path, door.flags.split())
                predict_onnx.main(folder, [photo])
            else:
                sys.argv = [door.script.__name__, *door.flags.split()]
                run_script(door.script.main, door.script.get_args_parser())
        except SystemExit as end:
            code = end.code
    return code or 0, stderr.getvalue()


def read_by_process(door: Door) -> None:
    """The same in a new Python. Raises TimeoutError if it takes too long."""
    command = [sys.executable, "-c", START, door.script.__file__, *door.flags.split()]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(str(error)) from None
    if ended.returncode == -signal.SIGXCPU:
        raise TimeoutError(f"{WORK + STARTING} seconds of a processor")
    check_end(ended.returncode, ended.stderr.decode(errors="replace"))


def check_end(code: int, said: str) -> None:
    """Raise UsageError for a refusal, and RuntimeError for any other end that is not 0."""
    if code:
        if code != 2 or not is_one_sentence(said):
            raise RuntimeError(f"exit code {code}: {said[-3000:]}")
        raise UsageError(said.splitlines()[-1])


def is_one_sentence(said: str) -> bool:
    """Whether stderr ends with an error in one sentence."""
    return "Traceback" not in said and (said.splitlines() or [""])[-1].startswith("error: ")


def try_input(read: Callable[[], object], watch: Watch, hooked: bool, canary: Path) -> Outcome:
    """The outcome of reading one file. hooked: whether this process reads it, no other one."""
    watch.started, watch.written = [], []
    outcome, detail = "accepted", ""
    watch.on = hooked
    try:
        read()
    except UsageError as error:
        outcome, detail = "refused", str(error)
        if not detail or "\n" in printable(detail):
            outcome = "tracebacks"
    except TimeoutError as error:
        outcome, detail = "hangs", str(error)
    except BaseException as error:
        known = isinstance(error, OSError) and error.filename  # run_script makes it a sentence
        outcome, detail = "refused" if known else "tracebacks", traceback.format_exc()
    watch.on = False
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    most = max(each.ru_maxrss for each in used)
    if watch.started or canary.exists():
        outcome, detail = "code run", "; ".join(watch.started)
        canary.unlink(missing_ok=True)
    elif watch.written:
        outcome, detail = "written", "; ".join(watch.written)
    elif most > MEMORY:
        outcome, detail = "memory", f"{most / 1e6:.1f} GB"
    return outcome, detail


def work(inputs: list[Input], seed: int, tree: Path, way: str, send: int) -> None:
    """Read these inputs in this process; write a JSON line for each to `send`."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    folder, canary = tree.with_name("tree"), tree.with_name("canary")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tree, folder)
    os.chdir(folder)
    watch = Watch(folder)
    sys.stderr, sys.stdout = io.StringIO(), io.StringIO()  # progress
    for name, number in inputs:
        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime) + WORK + 1 + STARTING * (way == PROCESS)
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        door = DOORS[name]
        path = Path(door.file)
        kept = path.read_bytes()
        rng = np.random.default_rng([seed, list(DOORS).index(name), number])
        if number >= UNCHANGED:
            write_mutated(path, door.form, canary, rng)
        read = {FUNCTIONS: partial(door.read, path), SCRIPT: partial(read_by_script, door)}
        read = read.get(way, partial(read_by_process, door))
        found = try_input(read, watch, way != PROCESS, canary)
        if number < UNCHANGED and found[0] == "refused":
            found = "tracebacks", f"the valid file is refused: {found[1]}"
        os.write(send, json.dumps((name, number, *found)).encode() + b"\n")
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(kept)


def run_inputs(
    inputs: list[Input], seed: int, tree: Path, way: str
) -> Iterator[tuple[str, int, str, str]]:
    """(door, number, outcome, detail) of these inputs, each read in one of several processes."""
    left = list(inputs)
    while left:
        now = left[: IN_A_ROW if way == FUNCTIONS else 1]
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGXCPU, signal.SIG_DFL)
                work(now, seed, tree, way, send)
            except BaseException:  # a fault of this benchmark
                os.write(2, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(send)
        done = []
        with os.fdopen(receive, "rb", buffering=0) as lines:
            rest = b""
            while select.select([lines], [], [], PATIENCE)[0] and (data := lines.read(1 << 20)):
                *whole, rest = (rest + data).split(b"\n")
                done += [tuple(json.loads(line)) for line in whole]
        status = end_process(child, wait=len(done) == len(now))
        if len(done) < len(now):
            hangs = status is None or status == -signal.SIGXCPU
            outcome = "hangs" if hangs else "tracebacks"
            done.append((*now[len(done)], outcome, f"the process ended with {status}"))
        yield from done
        left = left[len(done) :]


def end_process(child: int, wait: bool) -> int | None:
    """The exit code of a process, or minus the signal that ended it; None if it had to be killed.

    wait: it is known to end by itself.
    """
    ended, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    if not ended:
        time.sleep(0.5)  # it may just be ending
        ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        return os.waitstatus_to_exitcode(status)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
