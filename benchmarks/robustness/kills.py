"""Kill training runs many times: do they end as if nothing had happened?

    python benchmarks/robustness/kills.py --kills 30 --processes 2 3
    python benchmarks/robustness/kills.py --kills 30 --processes 2 3 --folder FOLDER

Trains on drawn scenes without interruption: with one process, then with two and three under
torchrun. Then trains again, kills at a chosen moment and starts the same command again. Kills are
SIGKILL to one process of the run, SIGKILL to torchrun (and soon after to what it leaves behind),
and SIGTERM to all processes, torchrun included, so that each gets it twice. They come in
mid-epoch, in validation, while last.pt or best.pt is written, and while the run starts. A run that
ends before all kills are used up is compared with the uninterrupted one, and another run starts.

Prints a Markdown table with a row for each number of processes. Exit code 1 if anything differs.

With --folder it can be done in portions: the folder keeps the images, the uninterrupted runs and
the counts of all runs that have ended. --kills is the number of all portions together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tables import add_save_flag, print_table  # noqa: E402

from util.cli import ArgumentParser, non_negative_int, positive_int, run_script  # noqa: E402
from util.errors import RunError  # noqa: E402
from util.log import log  # noqa: E402

TIMINGS = {"seconds", "images_per_second"}
FLAGS = "--arch test_resnet --image_size 32 --batch_size 16 --num_epochs 4 --num_workers 1"
FLAGS += " --save_minutes 0.01 --amp off"  # auto measures: another run could end differently
PHASES = ("mid-epoch", "in validation", "while saving")
FAULTS = ("failed resumes", "SIGTERMs without a save", "tracebacks", "other weights")
FAULTS += ("lines lost or doubled", "other lines")
# train.py that says in a file which phase it is in
ANNOUNCED = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import train
from training.saver import Saver
from util.cli import run_script
from util.distributed import rank

def announce(phase, function):
    def call(*args):
        if rank() == 0:
            with open(os.environ["PHASES"], "a") as file:
                file.write(phase + "\\n")
        return function(*args)
    return call

train.train_one_epoch = announce("mid-epoch", train.train_one_epoch)
train.validate = announce("in validation", train.validate)
Saver.between_steps = announce("mid-epoch", Saver.between_steps)
Saver.save = announce("while saving", Saver.save)
Saver.save_best = announce("while saving", Saver.save_best)
run_script(train.main, train.get_args_parser())
"""


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--kills", type=positive_int, default=30, help="number of kills, shared out evenly")
    add("--processes", type=positive_int, nargs="+", default=[1, 2, 3], help="of a run")
    add("--num_images", type=positive_int, default=200, help="training images to draw")
    add("--seed", type=non_negative_int, default=0, help="of the random moments")
    add("--folder", type=Path, help="keeps everything, so that the next call goes on from there")
    add_save_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw images; train, kill and compare with each number of processes; print."""
    columns = ("processes", "kills", "SIGKILL to one process", "SIGKILL to torchrun")
    columns += ("SIGTERM to all", *PHASES, "while starting", "runs", *FAULTS)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = (args.folder or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "announced.py").write_text(ANNOUNCED)
        if not (folder / "scenes").exists():
            draw_scenes(folder / "scenes", args.num_images)
        for number, processes in enumerate(args.processes):
            share = len(range(number, args.kills, len(args.processes)))
            counts = try_runs(folder, processes, share, args.seed)
            counts["processes"] = processes
            found.append(counts)
    print_table("kills", columns, [[f[c] for c in columns] for f in found], args.save)
    if any(counts[fault] for counts in found for fault in FAULTS):
        raise RunError("an interrupted run did not end like the uninterrupted one")


def draw_scenes(folder: Path, num_images: int) -> None:
    """Draw training images and 50 others."""
    script, new = ROOT / "data/make_scenes.py", folder.with_name("new")
    shutil.rmtree(new, ignore_errors=True)  # left by a call that was stopped
    draw = ["--output_dir", new, "--num_train", num_images, "--num_val", 50]
    subprocess.run([sys.executable, script, *map(str, draw)], check=True, stdout=2)
    new.rename(folder)


def try_runs(folder: Path, processes: int, kills: int, seed: int) -> Counter:
    """Kill runs this often, and compare each with an uninterrupted one. Returns what happened.

    What the folder has of an earlier call counts, too.
    """
    expected, path = whole_run(folder, processes), folder / f"{processes}.json"
    counts = Counter(json.loads(path.read_text()) if path.exists() else {})
    while counts["kills"] < kills:
        counts["runs"] += 1
        run = Training(folder, processes, f"run{counts['runs']}")
        run.remove()  # left by a call that was stopped
        rng = random.Random(f"{seed} {processes} {counts['runs']}")
        if interrupt(run, kills, rng, counts):
            compare(results_of(run.output), expected, counts)
        run.remove()
        path.write_text(json.dumps(counts))
    return counts


def whole_run(folder: Path, processes: int) -> dict:
    """The results of an uninterrupted run. Raises RunError if it fails."""
    whole, finished = Training(folder, processes, "whole"), folder / f"{processes}-finished"
    if not finished.exists():
        whole.remove()
        whole.start()
        if whole.process.wait():
            whole.show_output()
            raise RunError("the uninterrupted run failed; its output is above")
        finished.touch()
    return results_of(whole.output)


class Training:
    """A command that trains, in one process or with torchrun, and its processes."""

    def __init__(self, folder: Path, processes: int, name: str) -> None:
        self.processes, self.output = processes, folder / f"{processes}-{name}"
        self.log, self.phases = (self.output.with_suffix(suffix) for suffix in (".log", ".phases"))
        flags = ["--image_path", folder / "scenes/images/train", "--output_dir", self.output]
        flags += ["--annotations", folder / "scenes/annotations/instances_train.json"]
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        start = start if processes > 1 else []
        command = [sys.executable, *start, folder / "announced.py", *FLAGS.split(), *flags]
        self.command = [str(word) for word in command]
        self.said_before = 0

    def remove(self) -> None:
        """Delete what it has written, if anything."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    def start(self) -> None:
        """Start it, or continue it."""
        self.phases.write_text("")
        self.said_before = self.log.stat().st_size if self.log.exists() else 0
        env = {**os.environ, "PHASES": str(self.phases), "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, env=env)

    def ranks(self) -> list[int]:
        """Ids of the processes that train: torchrun's children, or this one alone."""
        if self.processes == 1:
            return [self.process.pid]
        return [child for child in children(self.process.pid) if is_rank(child)]

    def phase(self) -> str:
        """What it does now."""
        return (["while starting", *self.phases.read_text().split("\n")[:-1]])[-1]

    def said(self) -> str:
        """What it has printed since `start`."""
        return self.log.read_bytes()[self.said_before :].decode(errors="replace")

    def show_output(self) -> None:
        """Print what it has printed since `start`."""
        log(*self.said().splitlines(), sep="\n")


def children(pid: int) -> list[int]:
    """Ids of the processes that this one has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


def is_rank(pid: int) -> bool:
    """Whether torchrun has started this process to train."""
    try:
        return b"\0LOCAL_RANK=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def interrupt(run: Training, kills: int, rng: random.Random, counts: Counter) -> bool:
    """Start a run again and again until it ends; kill it while kills are left.

    Returns whether it came to its end.
    """
    while True:
        run.start()
        if counts["kills"] == kills:
            run.process.wait()
        else:
            wait_for_a_moment(run, counts["kills"], rng)
        if run.process.poll() is None:
            kill(run, counts["kills"], rng, counts)
        elif run.process.returncode:
            counts["failed resumes"] += 1
            run.show_output()
            return False
        else:
            return True


def wait_for_a_moment(run: Training, number: int, rng: random.Random) -> None:
    """Wait for the phase of this kill, or for the end of the run."""
    if number % 7 == 6:
        return time.sleep(rng.uniform(0, 8))
    phase, delay = PHASES[(number // 3 + number) % 3], rng.uniform(0, 0.1)
    skip = rng.randrange(4)  # it may come before the phase has come so often
    while run.process.poll() is None:
        skip -= run.phase() == phase
        if skip < 0:
            break
        time.sleep(0.002)
    time.sleep(delay if phase == "mid-epoch" else delay / 10)


def kill(run: Training, number: int, rng: random.Random, counts: Counter) -> None:
    """Kill a run, wait for its end, and count what is wrong with it."""
    ranks, phase = run.ranks(), run.phase()
    kind = number % 3 if run.processes > 1 else 2 * (number % 3 == 2)
    if kind == 2:
        for pid in (run.process.pid, *ranks):
            send(pid, signal.SIGTERM)
        if run.processes == 1:
            send(run.process.pid, signal.SIGTERM)
    elif kind == 1 or not ranks:
        kind = min(1, run.processes - 1)  # torchrun has started none yet
        send(run.process.pid, signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.5))
        for pid in ranks:
            send(pid, signal.SIGKILL)
    else:
        send(rng.choice(ranks), signal.SIGKILL)
    name = ("SIGKILL to one process", "SIGKILL to torchrun", "SIGTERM to all")[kind]
    try:
        code = run.process.wait(90)
    except subprocess.TimeoutExpired:
        counts["failed resumes"] += 1
        code = None
    for pid in (run.process.pid, *ranks):  # what hangs, or torchrun has left behind
        send(pid, signal.SIGKILL)
    while any(os.path.exists(f"/proc/{pid}/exe") and is_rank(pid) for pid in ranks):
        time.sleep(0.01)  # it holds the lock until it has ended
    run.process.wait()
    said, began = run.said(), phase != "while starting"
    counts.update(["kills", name, phase])
    counts["tracebacks"] += began and 'announced.py", line' in said
    counts["SIGTERMs without a save"] += kind == 2 and began and code != 0 and unsaved(run, said)
    log(f"{run.processes} processes, kill {counts['kills']}: {name} {phase}, exit code {code}")


def unsaved(run: Training, said: str) -> bool:
    """Whether a run that got SIGTERM while it trained did not say that it has saved."""
    if "everything is saved" in said:
        return False
    run.show_output()
    return True


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def compare(found: dict, expected: dict, counts: Counter) -> None:
    """Count the differences between an interrupted run and the uninterrupted one."""
    for name in ("last", "best"):
        counts["other weights"] += not same(found[name], expected[name])
    counts["lines lost or doubled"] += abs(len(found["log"]) - len(expected["log"]))
    counts["other lines"] += found["log"] != expected["log"]


def results_of(output: Path) -> dict:
    """All results that must not depend on interruptions: checkpoints and log."""
    found = {}
    for name in ("best", "last"):
        found[name] = torch.load(output / f"{name}.pt", weights_only=True)
        found[name]["flags"].pop("output_dir")
        found[name]["flags"].pop("vocab_path")
        found[name].pop("commit")  # of another portion
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return found | {"log": [{k: v for k, v in e.items() if k not in TIMINGS} for e in lines]}


def same(a: object, b: object) -> bool:
    """Whether two nested values are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


if __name__ == "__main__":
    run_script(main, get_args_parser())
