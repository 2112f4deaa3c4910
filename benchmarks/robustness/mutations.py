"""Read thousands of mutated files as the scripts read them: what happens with each?

    python benchmarks/robustness/mutations.py --inputs 20000
    python benchmarks/robustness/mutations.py --inputs 20000 --progress FILE

The inputs are spread evenly over the doors: the files that some command reads (doors.py). Each one
is a valid file with random changes of its bytes or values, or one made to run code, to block or to
fill the memory; the first two are valid. It depends on --seed and its number only. Every fifth is
read by a whole script, the others by the functions that the script calls. The network is tiny, so
that thousands of runs are possible.

    accepted    exit code 0
    refused     exit code 2 and one sentence
    tracebacks  any other end
    hangs       10 seconds of work, or five minutes without an end
    code run    a program was started, a connection opened, or a file created by a pickle
    written     a file outside the working folder was opened for writing
    memory      more than 2 GB, of which half a GB is torch

Code run and files written are seen by Python's audit hooks, and by a look at the folder. All
modules are imported once; each script runs in a process of its own, forked after that. For one
input of 500, it is a new Python instead.

With --progress it can be stopped and continued: what the file has is not tried again, except for
failures.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torchvision
from doors import DOORS
from tables import add_save_flag, print_table
from tiny_network import tiny_resnet
from trying import FAILURES, FUNCTIONS, PROCESS, SCRIPT, WAYS, Input, run_inputs
from valid_inputs import write_tree

import annotation.server
import export
from util.cli import ArgumentParser, code_commit, positive_int, run_script
from util.log import log

OUTCOMES = ("accepted", "refused", *FAILURES)
SCRIPT_EVERY, PROCESS_EVERY = 5, 500
BLOCK = 100  # inputs of one door before it is the next one's turn


def way_of(name: str, number: int) -> str:
    """How an input is read."""
    if DOORS[name].script is None or number % SCRIPT_EVERY:
        return FUNCTIONS
    return PROCESS if number % PROCESS_EVERY == PROCESS_EVERY // 2 else SCRIPT


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


class Progress:
    """The outcomes so far, also in a file, from which a later call goes on."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed = path, seed
        self.outcomes: dict[Input, str] = {}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            found_seed, name, number, outcome = json.loads(line)
            if found_seed == seed and name in DOORS:
                self.outcomes[name, number] = outcome

    def add(self, name: str, number: int, outcome: str) -> None:
        """Keep one outcome."""
        self.outcomes[name, number] = outcome
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps([self.seed, name, number, outcome]) + "\n")

    def left(self, inputs: list[Input]) -> list[Input]:
        """Those that are still to be tried."""
        done = {"accepted", "refused"}
        return [each for each in inputs if self.outcomes.get(each) not in done]


def blocks(doors: list[str], how_many: int) -> Iterator[tuple[str, list[Input]]]:
    """(way, inputs) of one door after the other, again and again."""
    numbers = range(-(-how_many // len(doors)))
    for first in numbers[::BLOCK]:
        for name in doors:
            for way in WAYS:
                some = numbers[first : first + BLOCK]
                yield way, [(name, n) for n in some if way_of(name, n) == way]


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--inputs", type=positive_int, default=20_000, help="files of all doors together")
    add("--seed", type=int, default=0, help="of the random changes")
    add("--doors", nargs="+", choices=DOORS, default=[*DOORS], metavar="DOOR", help="default: all")
    add("--progress", type=Path, metavar="FILE", help="keeps the outcomes: the next call goes on")
    add_save_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Try all inputs, print the table; exit code 1 if there is a failure."""
    started = time.perf_counter()
    progress = Progress(args.progress, args.seed)
    asked = [each for _, inputs in blocks(args.doors, args.inputs) for each in inputs]
    if progress.left(asked):
        try_all(args, progress)
    show({each: progress.outcomes[each] for each in asked}, args.save)
    log(f"{time.perf_counter() - started:.0f} s, seed {args.seed}")
    sys.exit(any(progress.outcomes[each] in FAILURES for each in asked))


def try_all(args: argparse.Namespace, progress: Progress) -> None:
    """Try the inputs that are left; print failures at once."""
    prepare()
    with tempfile.TemporaryDirectory() as place:
        tree, first = Path(place, "valid"), Path(place, "tree")  # sample.json has its place
        first.mkdir()
        make_tree(first)
        first.rename(tree)
        quick_export()
        gc.freeze()  # a copy of this process then shares its memory
        for way, inputs in blocks(args.doors, args.inputs):
            for *of, outcome, detail in run_inputs(progress.left(inputs), args.seed, tree, way):
                progress.add(*of, outcome)
                if outcome in FAILURES:
                    about = f"{of} by {way}: {outcome}\n{detail[-3000:]}"
                    print(about, file=sys.stderr, flush=True)


def show(outcomes: dict[Input, str], save: bool) -> None:
    """A row of the table for each door, and one for all."""
    rows: dict[str, Counter] = {}
    for (name, number), outcome in outcomes.items():
        for row in (rows.setdefault(name, Counter()), rows.setdefault("all", Counter())):
            row.update(["inputs", outcome, way_of(name, number)])
    rows["all"] = rows.pop("all")  # the last one
    columns = {"inputs": "inputs", SCRIPT: "by a script", PROCESS: "by a new Python"}
    columns |= {outcome: outcome for outcome in OUTCOMES}
    cells = [[name, *(f"{found[column]:,}" for column in columns)] for name, found in rows.items()]
    print_table("mutations", ["file", *columns.values()], cells, save)


if __name__ == "__main__":
    run_script(main, get_args_parser())
