"""Cross-validation: models that were each trained without a part of the images.

evaluate.py --folds uses them to judge every image by a model that has not seen it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

import numpy as np

from labels.split import split_train_val
from labels.vocabulary import Vocabulary, save_vocabulary
from util.errors import RunError, UsageError
from util.files import make_folder, write_whole
from util.log import collected_log, log

TRAIN = Path(__file__).parents[1] / "train.py"
# flags that a fold has its own value of; --start_from: its model has seen all images
OWN = {"output_dir", "vocab_path", "leave_out", "start_from", "cache", "accept_changes"}
OWN |= {"val_annotations", "val_image_path", "config", "track"}


def make_folds(targets: np.ndarray, num_folds: int, seed: int = 0) -> list[np.ndarray]:
    """Indices of each fold's images, ascending; all folds have about the same labels.

    targets: N×C bool. Folds differ in size by one image at most. Raises UsageError if there are
    fewer images than folds.
    """
    if len(targets) < num_folds:
        raise UsageError(f"{len(targets)} images cannot be divided into {num_folds} folds")
    rest, folds = np.arange(len(targets)), []
    with collected_log():  # its notes are about a hold-out
        for left in range(num_folds, 1, -1):
            others, fold = split_train_val(targets[rest], 1 / left, seed)
            folds.append(rest[fold])
            rest = rest[others]
    return [*folds, rest]


def train_folds(
    flags: Mapping[str, object], vocabulary: Vocabulary, left_out: list[list[str]], folder: Path
) -> list[Path]:
    """Train a model without each of these lists of images; returns the paths of their best.pt.

    flags: train.py's flags of the whole run. Models that are there already are not trained again,
    and an interrupted one continues. On a CPU several train at once, on a thread each. Raises
    RunError if one fails.
    """
    make_folder(folder)
    save_vocabulary(vocabulary, folder / "vocab.json")
    if flags.get("start_from"):
        log("note: the folds' models do not --start_from a model that has seen all images")
    at_once = min(len(left_out), os.cpu_count() or 1) if flags.get("device") == "cpu" else 1
    log(
        f"training {len(left_out)} models, {at_once} at a time; their progress is in "
        f"{folder}/fold-1.log, fold-2.log, …"
    )
    processes, stop = list[subprocess.Popen](), threading.Event()
    best = []
    before = signal.signal(signal.SIGTERM, _stop)  # else the trainings would go on alone
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {}
        try:
            for number, names in enumerate(left_out, start=1):
                command = _command(flags, folder, number, names)
                best.append(folder / f"fold-{number}/best.pt")
                log_path = folder / f"fold-{number}.log"
                waiting[pool.submit(_run, command, log_path, at_once, processes, stop)] = number
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                log(f"fold {waiting[future]} is trained ({done} of {len(left_out)})")
        except BaseException:
            stop.set()
            for future in waiting:
                future.cancel()  # else the pool would train all others first
            for process in processes:
                process.terminate()  # train.py saves what it has, once if it is asked twice
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    return best


def _stop(number: int, frame: FrameType | None) -> None:
    """End this process as an error does, so that it ends its trainings."""
    signal.signal(number, signal.SIG_IGN)  # it may come twice, as training/signals.py says
    raise RunError("stopped by SIGTERM; the same command continues")


def _command(flags: Mapping[str, object], folder: Path, number: int, names: list[str]) -> list[str]:
    """The command that trains a fold; writes the list of the images that it leaves out."""
    left_out = folder / f"fold-{number}.txt"
    text = "".join(f"{name}\n" for name in names)
    write_whole(left_out, text.encode("utf-8", "surrogateescape"))
    words = [sys.executable, str(TRAIN), "--output_dir", str(folder / f"fold-{number}")]
    words += ["--vocab_path", str(folder / "vocab.json"), "--leave_out", str(left_out)]
    for name, value in flags.items():
        if name in OWN or value is None or value is False or value == []:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name}", *map(str, values)]
    return words


def _run(
    command: list[str],
    log_path: Path,
    at_once: int,
    processes: list[subprocess.Popen],
    stop: threading.Event,
) -> None:
    """Run a training, its output in a log file. Raises RunError."""
    threads = {"OMP_NUM_THREADS": "1"} if at_once > 1 else {}
    with log_path.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, **threads}
        )
        processes.append(process)
        if stop.is_set():  # meanwhile
            process.terminate()
        code = process.wait()
    if code:
        lines = log_path.read_text("utf-8", "replace").splitlines() or ["no output"]
        reason = lines[-1].removeprefix("error: ")
        if "--accept_changes" in reason:  # a flag of train.py
            reason = f"{log_path.with_suffix('')} was trained on other labels or with other flags: "
            reason += "choose another --output_dir"
        raise RunError(f"a fold's training failed ({log_path}): {reason}")
