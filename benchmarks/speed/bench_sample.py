"""sample.py on a large folder: killed twice, started again, and compared with the bare encoder.

    python benchmarks/speed/bench_sample.py --images photos --num_images 100000

Links `--num_images` copies of the pictures in a temporary folder and labels them with the latest
run's model, or with --checkpoint. The process is killed (kill -9) after a third and after two
thirds of the pictures. Then every picture must be in predictions.csv and predictions.jsonl exactly
once. Prints images/s of the last, undisturbed part, of the whole, and of the encoder alone on
ready batches, measured before and after; and the memory of the process at its start and its end.
"""

from __future__ import annotations

import argparse
import collections
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

import torch  # noqa: E402

from inference.checkpoint import find_checkpoint  # noqa: E402
from inference.predictor import Predictor, load  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402
from util.errors import RunError, UsageError  # noqa: E402
from util.files import is_picture  # noqa: E402
from util.log import log  # noqa: E402

BATCH = 64
IN_FOLDER = 1000  # pictures in each of the folders
POLL = 0.05  # seconds


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--images", type=Path, default=Path("data/scenes/images/val"), help="pictures to copy")
    add("--num_images", type=positive_int, default=5000, help="copies to label")
    add("--checkpoint", type=Path, help="default: the latest run's")
    add("--num_workers", type=positive_int, default=2, help="processes that load images")
    return parser


def main(args: argparse.Namespace) -> None:
    """Link, label, kill, label the rest, check, print."""
    pictures = sorted(p.resolve() for p in args.images.iterdir() if is_picture(p.name))
    if not pictures:
        raise UsageError(f"there are no pictures in {args.images}: name others with --images")
    checkpoint = find_checkpoint(args.checkpoint).resolve()
    model = load(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        names = link_copies(pictures, args.num_images, Path(folder, "photos"))
        output = Path(folder, "out")
        command = [sys.executable, str(REPO / "sample.py"), str(Path(folder, "photos"))]
        command += ["--output", str(output), "--checkpoint", str(checkpoint), "--num_slides", "0"]
        command += ["--num_workers", str(args.num_workers), "--batch_size", str(BATCH)]
        before = encoder_rate(model, pictures)
        started = time.perf_counter()
        third = args.num_images // 3
        parts = [label(command, output, stop_at) for stop_at in (third, 2 * third, None)]
        seconds = time.perf_counter() - started
        after = encoder_rate(model, pictures)
        check(names, output)
    last = parts[-1]
    log(f"{args.num_images:,} pictures, killed after {parts[0].end:,} and {parts[1].end:,}")
    print(f"every picture exactly once: {args.num_images:,}")
    print(f"sample.py: {last.rate:.0f} images/s in the last part, with the model loaded")
    print(f"sample.py: {args.num_images / seconds:.0f} images/s in all, with three starts")
    print(f"encoder alone: {before:.0f} images/s before, {after:.0f} after")
    print(f"sample.py : encoder = {2 * last.rate / (before + after):.2f}")
    mb = f"{last.first_mb:.0f} MB after the first batch, {last.last_mb:.0f} MB after the last"
    print(f"memory in the last part, without the loading processes: {mb}, peak {last.peak_mb:.0f}")


@dataclass
class Part:
    """One run of sample.py. rate: images/s from its first new picture to its last."""

    end: int
    rate: float
    first_mb: float
    last_mb: float
    peak_mb: float


def link_copies(pictures: list[Path], number: int, folder: Path) -> list[str]:
    """Link the pictures again and again, IN_FOLDER in a folder; returns their names."""
    names = []
    for i, picture in zip(range(number), itertools.cycle(pictures), strict=False):
        name = f"{i // IN_FOLDER:04d}/{i:07d}{picture.suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(picture, folder / name)
        names.append(name)
    return names


def label(command: list[str], output: Path, stop_at: int | None) -> Part:
    """Run sample.py, and kill it when this many pictures are labelled. Raises RunError."""
    lines = count_lines(output / "predictions.jsonl")
    first = last = next(lines)
    with (
        open(output.parent / "log.txt", "ab") as text,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=text) as process,
    ):
        since = until = time.perf_counter()
        memory = []
        while process.poll() is None:
            time.sleep(POLL)
            number, now = next(lines), time.perf_counter()
            if number > last:
                since, first = (now, number) if not memory else (since, first)
                until, last = now, number
                memory.append(resident_mb(process.pid))
            if stop_at and number >= stop_at:
                process.kill()
    if not stop_at and process.returncode:
        raise RunError((output.parent / "log.txt").read_text()[-2000:])
    memory = [m for m in memory if m] or [0.0]
    rate = (last - first) / max(until - since, POLL)
    return Part(last, rate, memory[0], memory[-1], max(memory))


def count_lines(path: Path) -> Iterator[int]:
    """The number of whole lines so far, again and again; only what is new is read."""
    position = number = 0
    while True:
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                number += (new := file.read()).count(b"\n")
                position += len(new)
        yield number


def resident_mb(pid: int) -> float:
    """The memory of a process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0].split()[1]) / 1024 if found else 0.0


def encoder_rate(model: Predictor, pictures: list[Path]) -> float:
    """Images/s of the encoder on ready batches, the median of several."""
    files = list(itertools.islice(itertools.cycle(pictures), BATCH))
    batch = torch.stack([model.transform.from_file(path) for path in files])
    times = []
    for _ in range(12):
        started = time.perf_counter()
        model.encode_batch(batch).cnn_logits.cpu()
        times.append(time.perf_counter() - started)
    return BATCH / sorted(times)[len(times) // 2]


def check(names: list[str], output: Path) -> None:
    """Raise RunError unless each name is exactly once in both tables."""
    lines = (output / "predictions.jsonl").read_text().splitlines()
    with (output / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        listed = [row["file_name"] for row in csv.DictReader(file)]
    for found in ([json.loads(line)["image"] for line in lines], listed):
        if wrong := collections.Counter(found) - collections.Counter(names):
            raise RunError(f"more than once: {next(iter(wrong))}")
        if wrong := collections.Counter(names) - collections.Counter(found):
            raise RunError(f"missing: {next(iter(wrong))}")


if __name__ == "__main__":
    run_script(main, get_args_parser())
