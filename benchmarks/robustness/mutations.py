"""Read thousands of mutated files as the scripts read them: what happens with each?

    python benchmarks/robustness/mutations.py --inputs 20000

The inputs are spread evenly over the doors: the files that some command reads (doors.py). Each one
is a valid file with random changes of its bytes or values, or one made to run code, to block or to
fill the memory; the first two are valid. It depends on --seed and its number only. Every fifth is
read by a whole script, the others by the functions that the script calls. The network is tiny, so
that thousands of runs are possible.

    accepted    exit code 0
    refused     exit code 2 and one sentence
    tracebacks  any other end
    hangs       10 seconds of work, or a minute without an end
    code run    a program was started, a connection opened, or a file created by a pickle
    written     a file outside the working folder was opened for writing
    memory      more than 2 GB, of which half a GB is torch

Code run and files written are seen by Python's audit hooks, and by a look at the folder. All
modules are imported once; each script runs in a process of its own, forked after that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torchvision
from doors import DOORS, Door
from mutated_inputs import write_mutated
from valid_inputs import tiny_resnet, write_tree

import annotation.server
import export
from deploy import predict_onnx
from util.cli import ArgumentParser, code_commit, positive_int, run_script
from util.errors import UsageError
from util.log import printable

FAILURES = ("tracebacks", "hangs", "code run", "written", "memory")
OUTCOMES = ("accepted", "refused", *FAILURES)
WORK, PATIENCE = 10, 60  # seconds of one input: of a processor, and until it must have ended
ADDRESSES = 12 << 30  # bytes of address space, so that no file can fill the machine's memory
MEMORY = 2 << 20  # kB
SCRIPT_EVERY = 5
UNCHANGED = 2  # the first inputs are valid: a script and the functions must accept them
IN_A_ROW = 200  # inputs that one process reads with functions
STARTS = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
STARTS |= {"os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "ctypes.dlopen"}


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
    if code:
        said = stderr.getvalue()
        last = said.splitlines()[-1] if said else ""
        if code != 2 or not last.startswith("error: ") or "Traceback" in said:
            raise RuntimeError(f"exit code {code}: {said[-3000:]}")
        raise UsageError(last)


def try_input(read: Callable[[], object], watch: Watch, canary: Path) -> tuple[str, str]:
    """The outcome of reading one file, and what happened."""
    watch.started, watch.written = [], []
    outcome, detail = "accepted", ""
    watch.on = True
    try:
        read()
    except UsageError as error:
        outcome, detail = "refused", str(error)
        if not detail or "\n" in printable(detail):
            outcome = "tracebacks"
    except BaseException as error:
        known = isinstance(error, OSError) and error.filename  # run_script makes it a sentence
        outcome, detail = "refused" if known else "tracebacks", traceback.format_exc()
    watch.on = False
    if watch.started or canary.exists():
        outcome, detail = "code run", "; ".join(watch.started)
        canary.unlink(missing_ok=True)
    elif watch.written:
        outcome, detail = "written", "; ".join(watch.written)
    elif (used := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > MEMORY:
        outcome, detail = "memory", f"{used / 1e6:.1f} GB"
    return outcome, detail


def work(names: list[tuple[str, int]], seed: int, tree: Path, by_script: bool, send: int) -> None:
    """Read these inputs, (door, number), in this process; write a JSON line for each to `send`."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    folder, canary = tree.with_name("tree"), tree.with_name("canary")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tree, folder)
    os.chdir(folder)
    watch = Watch(folder)
    sys.stderr, sys.stdout = io.StringIO(), io.StringIO()  # progress
    for name, number in names:
        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime) + WORK + 1
        resource.setrlimit(resource.RLIMIT_CPU, (end, end + 5))
        door = DOORS[name]
        path = Path(door.file)
        kept = path.read_bytes()
        rng = np.random.default_rng([seed, list(DOORS).index(name), number])
        if number >= UNCHANGED:
            write_mutated(path, door.form, canary, rng)
        read = partial(read_by_script, door) if by_script else partial(door.read, path)
        found = try_input(read, watch, canary)
        if number < UNCHANGED and found[0] == "refused":
            found = "tracebacks", f"the valid file is refused: {found[1]}"
        os.write(send, json.dumps((name, number, *found)).encode() + b"\n")
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(kept)


def run_inputs(
    names: list[tuple[str, int]], seed: int, tree: Path, by_script: bool
) -> list[tuple[str, int, str, str]]:
    """(door, number, outcome, detail) of these inputs, each read in one of several processes."""
    found, left = [], list(names)
    while left:
        now = left[: 1 if by_script else IN_A_ROW]
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGXCPU, signal.SIG_DFL)
                work(now, seed, tree, by_script, send)
            finally:
                os._exit(0)
        os.close(send)
        done = []
        with os.fdopen(receive, "rb", buffering=0) as lines:
            rest = b""
            while select.select([lines], [], [], PATIENCE)[0] and (data := lines.read(1 << 20)):
                *whole, rest = (rest + data).split(b"\n")
                done += [tuple(json.loads(line)) for line in whole]
        ended, status = os.waitpid(child, os.WNOHANG if len(done) < len(now) else 0)
        if not ended:
            time.sleep(0.5)  # it may just be ending
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if len(done) < len(now):
            hangs = not ended or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
            outcome = "hangs" if hangs else "tracebacks"
            done.append((*now[len(done)], outcome, f"the process ended with {status}"))
        found += done
        left = left[len(done) :]
    return found


def make_tree(folder: Path) -> None:
    """Write all valid files, in a process of its own: torch's threads do not survive a fork."""
    child = os.fork()
    if not child:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                write_tree(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the valid files could not be made")


def prepare() -> None:
    """Replace what takes long or waits: the network, ONNX export, the server of annotate.py."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torchvision.models.resnet18 = tiny_resnet
    annotation.server.listen = lambda port: None
    annotation.server.serve = lambda *args: None
    code_commit()  # calls git once, before the hook is on


def quick_export() -> None:
    """export.py without the ONNX files, which do not depend on what is mutated."""
    export.to_onnx = lambda model, constants: {}
    export.largest_differences = lambda *args: {}


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--inputs", type=positive_int, default=20_000, help="files of all doors together")
    add("--seed", type=int, default=0, help="of the random changes")
    add("--doors", nargs="+", choices=DOORS, default=[*DOORS], metavar="DOOR", help="default: all")
    return parser


def main(args: argparse.Namespace) -> None:
    """Try all inputs, print the table; exit code 1 if there is a failure."""
    started = time.perf_counter()
    prepare()
    counts: dict[str, Counter] = {name: Counter() for name in args.doors}
    scripts, failures = 0, 0
    with tempfile.TemporaryDirectory() as place:
        tree, first = Path(place, "valid"), Path(place, "tree")  # sample.json has its place
        first.mkdir()
        make_tree(first)
        first.rename(tree)
        quick_export()
        for name in args.doors:
            numbers = range(-(-args.inputs // len(args.doors)))
            for by_script in (False, True):
                mine = [n for n in numbers if (n % SCRIPT_EVERY == 0) == by_script]
                if by_script and DOORS[name].script is None:
                    by_script = False
                scripts += len(mine) * by_script
                for *of, outcome, detail in run_inputs(
                    [(name, n) for n in mine], args.seed, tree, by_script
                ):
                    counts[name][outcome] += 1
                    if outcome in FAILURES:
                        failures += 1
                        how = "script" if by_script else "functions"
                        print(f"{of} by {how}: {outcome}\n{detail[-3000:]}", file=sys.stderr)
            print(f"{name}: {dict(counts[name])}", file=sys.stderr, flush=True)
    print_table(counts)
    print(f"{scripts:,} of them by whole scripts", file=sys.stderr)
    print(f"{time.perf_counter() - started:.0f} s, seed {args.seed}", file=sys.stderr)
    sys.exit(bool(failures))


def print_table(counts: dict[str, Counter]) -> None:
    """A row of Markdown for each door, and one for all."""
    print(f"| file | {' | '.join(('inputs', *OUTCOMES))} |")
    print("| --- " * (2 + len(OUTCOMES)) + "|")
    for name, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        cells = [f"{sum(found.values()):,}", *(f"{found[k]:,}" for k in OUTCOMES)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run_script(main, get_args_parser())
