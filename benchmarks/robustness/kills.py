"""Kill a training run many times: does it end as if nothing had happened?

    python benchmarks/robustness/kills.py --kills 50

Trains on drawn scenes without interruption. Then trains again, kills each process at a random
moment and starts the same command again. Every second kill comes while a checkpoint is written, and
every fifth is a SIGTERM instead of a SIGKILL. A run that ends before all kills are used up is
compared with the first one, and another run starts. Prints a Markdown table; exit code 1 if
anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
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
from util.cli import ArgumentParser, run_script  # noqa: E402
from util.errors import RunError  # noqa: E402
from util.log import log  # noqa: E402

TIMINGS = {"seconds", "images_per_second"}
FLAGS = "--image_size 48 --batch_size 16 --num_epochs 6 --num_workers 1 --save_minutes 0.02"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--num_images", type=int, default=400, help="training images to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    return parser


def main(args: argparse.Namespace) -> None:
    """Train, kill, compare, print."""
    rng, counts = random.Random(args.seed), Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = ROOT / "data/make_scenes.py"
        draw = ["--output_dir", folder / "scenes", "--num_train", args.num_images, "--num_val", 50]
        subprocess.run([sys.executable, script, *map(str, draw)], check=True, stdout=2)
        started = time.monotonic()
        process = start(folder, "whole")
        if process.wait():
            show_output(folder / "whole.log")
            raise RunError("the uninterrupted run failed; its output is above")
        seconds = time.monotonic() - started
        log(f"the uninterrupted run took {seconds:.0f} s")
        expected, run = results_of(folder / "whole"), 0
        while counts["kills"] < args.kills:
            run += 1
            interrupt(folder, f"run{run}", args.kills, seconds, rng, counts)
            found = results_of(folder / f"run{run}")
            counts["runs"] += 1
            counts["other weights"] += not same(found["last"], expected["last"])
            counts["other weights"] += not same(found["best"], expected["best"])
            counts["lines lost or doubled"] += abs(len(found["log"]) - len(expected["log"]))
            counts["other lines"] += found["log"] != expected["log"]
            for file in (folder / f"run{run}").glob("*.pt"):
                file.unlink()
    columns = ("kills", "while saving", "SIGTERM", "runs", "failed resumes", "other weights")
    columns += ("lines lost or doubled", "other lines")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    print("| " + " | ".join(str(counts[c]) for c in columns) + " |")
    if any(counts[c] for c in columns[4:]):
        raise RunError("an interrupted run did not end like the uninterrupted one")


def interrupt(
    folder: Path, name: str, kills: int, seconds: float, rng: random.Random, counts: Counter
) -> None:
    """Start a run again and again until it ends; kill it while kills are left."""
    while True:
        process = start(folder, name)
        if counts["kills"] < kills:
            wait_for_a_moment(process, folder / name, counts["kills"] % 2 == 1, seconds, rng)
        else:
            process.wait()
        if process.poll() is None:
            gentle = counts["kills"] % 5 == 4
            saving = is_saving(process, folder / name)
            process.send_signal(signal.SIGTERM if gentle else signal.SIGKILL)
            code = process.wait(60)
            counts["kills"] += 1
            counts["while saving"] += saving
            counts["SIGTERM"] += gentle
            # before training starts, SIGTERM has its default effect
            counts["failed resumes"] += gentle and code not in (1, -signal.SIGTERM)
            log(f"kill {counts['kills']}: {'SIGTERM' if gentle else 'SIGKILL'}, {saving=}")
        elif process.returncode:
            counts["failed resumes"] += 1
            show_output(folder / f"{name}.log")
            return
        else:
            return


def wait_for_a_moment(
    process: subprocess.Popen, output: Path, in_a_save: bool, seconds: float, rng: random.Random
) -> None:
    """Wait for a random time; with `in_a_save`, then also until the process writes a checkpoint."""
    end = time.monotonic() + rng.uniform(0, min(seconds, 12))
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    while in_a_save and process.poll() is None and not is_saving(process, output):
        time.sleep(0.001)
    if in_a_save:
        time.sleep(rng.uniform(0, 0.2))


def is_saving(process: subprocess.Popen, output: Path) -> bool:
    """Whether the process is writing a checkpoint."""
    return any(output.glob(f".*.pt.tmp{process.pid}"))


def start(folder: Path, name: str) -> subprocess.Popen:
    """Start train.py; only the output folder differs between runs."""
    files = ["--image_path", folder / "scenes/images/train", "--output_dir", folder / name]
    files += ["--annotations", folder / "scenes/annotations/instances_train.json"]
    command = [sys.executable, ROOT / "train.py", *FLAGS.split(), *files]
    with open(folder / f"{name}.log", "ab") as output:
        return subprocess.Popen([str(c) for c in command], stdout=output, stderr=output)


def results_of(output: Path) -> dict:
    """All results that must not depend on interruptions: checkpoints and log."""
    found = {}
    for name in ("best", "last"):
        found[name] = torch.load(output / f"{name}.pt", weights_only=True)
        found[name]["flags"].pop("output_dir")
        found[name]["flags"].pop("vocab_path")
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


def show_output(file: Path) -> None:
    """Print what a process has printed."""
    log(*file.read_text("utf-8").splitlines(), sep="\n")


if __name__ == "__main__":
    run_script(main, get_args_parser())
