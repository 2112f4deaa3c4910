"""How long a command takes to start, and to label one picture: now, and before start-up mattered.

Both versions run in turn, each command in a process of its own with one thread. All times are the
CPU time of that process: it hardly depends on other work on the machine.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from timing import Ratio, side_by_side

from util.errors import RunError
from util.log import log

NOW = Path(__file__).resolve().parents[2]
BEFORE = "5e7e84d"  # the last commit whose scripts imported all that any of their options needs
IMPORTS = ("-c", "import torch, torchvision")
SCRIPTS = ("train.py", "evaluate.py", "build_vocab.py")
WRONG = ("train.py", "--epoch_number", "3")
MOST_OF_A_PHOTO = 1.5  # about two seconds more than the imports
ROUNDS = 3
# prints the median time of a prediction in a program that has loaded the network: seconds
PREDICT = """
import statistics, sys, time
from inference.predictor import load
model, times = load(sys.argv[1], "cpu"), []
for _ in range(20):
    started = time.process_time()
    model.predict(sys.argv[2])
    times.append(time.process_time() - started)
print(statistics.median(times))
"""


def measure() -> Iterator[Ratio]:
    """Each command against `import torch, torchvision`, then now against before."""
    with tempfile.TemporaryDirectory() as folder:
        before = check_out(BEFORE, Path(folder, "before"))
        photo, checkpoint = make_model(before or NOW, Path(folder))
        label = ("sample.py", photo, "--checkpoint", checkpoint, "--device", "cpu", "--output")
        commands = {f"{script} --help": (script, "--help") for script in SCRIPTS}
        commands["train.py with a wrong flag"] = WRONG
        commands["sample.py photo.jpg, with its slide"] = (*label, f"{folder}/samples")
        for name, command in commands.items():
            what, imports = f"time of {name} : import torch, torchvision", python(NOW, *IMPORTS)
            most = MOST_OF_A_PHOTO if name.startswith("sample.py") else 1.0
            yield in_seconds(what, python(NOW, *command), imports, at_most=most)
        if before:
            for name, command in commands.items():
                yield in_seconds(
                    f"{name}, now : before", python(NOW, *command), python(before, *command)
                )
            yield predictions(before, photo, checkpoint)


def in_seconds(
    name: str, ours: Callable[[], object], reference: Callable[[], object], **targets: float | None
) -> Ratio:
    """The row with both times as its note."""
    row = side_by_side(name, ours, reference, ROUNDS, seconds=cpu_seconds, **targets)
    return replace(row, note=f"{row.ours:.2f} and {row.reference:.2f} s of CPU time")


def cpu_seconds(work: Callable[[], object]) -> float:
    """The CPU time of the processes that `work` starts and waits for."""
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime


def python(root: Path, first: str, *rest: str) -> Callable[[], str]:
    """A function that runs a script of this version, or `-c` code, and returns what it printed."""
    words = (first, *rest) if first == "-c" else (str(root / first), *rest)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}

    def run() -> str:
        command = [sys.executable, *words]
        result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=root)
        if result.returncode != (2 if words[1:] == WRONG[1:] else 0):
            raise RunError(f"{' '.join(command)} failed: {result.stderr[-1000:]}")
        return result.stdout

    return run


def check_out(commit: str, folder: Path) -> Path | None:
    """Put the files of a commit into `folder`; None, with a note, if this clone lacks it."""
    archive = subprocess.run(["git", "-C", NOW, "archive", commit], capture_output=True)
    if archive.returncode:
        log(f"note: no rows beside commit {commit}: this clone does not have it")
        return None
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def make_model(root: Path, folder: Path) -> tuple[str, str]:
    """A photo and a checkpoint of the default network, trained for a step."""
    scenes, run = str(folder / "scenes"), str(folder / "run")
    sizes = ("--num_train", "12", "--num_val", "4", "--num_workers", "1")
    python(root, "data/make_scenes.py", "--output_dir", scenes, *sizes)()
    data = ("--image_path", f"{scenes}/images/train", "--vocab_path", f"{folder}/vocab.json")
    data += ("--annotations", f"{scenes}/annotations/instances_train.json")
    flags = ("--num_epochs", "1", "--num_workers", "0", "--output_dir", run)
    python(root, "train.py", *data, *flags)()
    if not Path(run, "best.pt").exists():
        raise RunError("training a model for this benchmark failed")
    return f"{scenes}/images/val/scene_val_000001.jpg", f"{run}/best.pt"


def predictions(before: Path, photo: str, checkpoint: str) -> Ratio:
    """One more prediction of a network that is loaded."""
    code = ("-c", PREDICT, checkpoint, photo)
    row = side_by_side(
        "model.predict(photo.jpg), network loaded: now : before",
        *(python(NOW, *code), python(before, *code)),
        rounds=ROUNDS,
        seconds=lambda work: float(work()),
    )
    ours, reference = 1000 * row.ours, 1000 * row.reference
    return replace(row, note=f"{ours:.0f} and {reference:.0f} ms of CPU time")
