"""Saving a run so that it can continue, and finding the save to continue from."""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from pathlib import Path

import numpy as np

from data_loader import LabelledImages
from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.checkpoint_checks import SETTINGS
from training.signals import StopOnSignal
from training.state import TrainState
from util.distributed import any_rank, rank
from util.errors import UsageError
from util.log import log

# between a run and its continuation; the vocabulary itself is compared, wherever it lies
MAY_CHANGE = {"num_workers", "device", "amp", "compile", "output_dir", "vocab_path"}
MAY_CHANGE |= {"save_minutes", "accept_changes", "skip_bad_images"}
LAST, PREVIOUS = "last.pt", "previous.pt"


def save_last(checkpoint: dict, folder: Path) -> None:
    """Write last.pt; what it was becomes previous.pt, once the new one is whole and on the disk."""
    new, last = folder / ".new.pt", folder / LAST
    save_checkpoint(checkpoint, new)
    if last.exists():
        os.replace(last, folder / PREVIOUS)
    os.replace(new, last)


def load_last(folder: Path) -> dict | None:
    """The checkpoint to continue from, or None; previous.pt, and loudly, if last.pt is damaged.

    Raises UsageError if neither can be read. Removes what a killed run left half written.
    """
    if rank() == 0:
        for left in folder.glob(".*.tmp*"):
            left.unlink(missing_ok=True)
        new = folder / ".new.pt"  # whole, or it would not have its name
        if new.exists() and not (folder / LAST).exists():
            os.replace(new, folder / LAST)
        new.unlink(missing_ok=True)
    found = [path for name in (LAST, PREVIOUS) if (path := folder / name).exists()]
    problem = None
    for path in found:
        try:
            checkpoint = load_checkpoint(path)
        except UsageError as error:
            problem = problem or error
            log(f"WARNING: {error}")
            continue
        if "training" not in checkpoint:
            raise UsageError(f"{path} has no optimizer state to continue from; move it away")
        if path.name == PREVIOUS:
            log(f"WARNING: continuing from {path}, the checkpoint before the last")
        return checkpoint
    if problem:
        raise UsageError(f"{problem}; move it away to begin anew, or choose another --output_dir")
    return None


def fingerprint(data: LabelledImages) -> list:
    """Number of images, and a digest of their names and labels, in order."""
    digest = hashlib.sha256(np.packbits(data.targets.numpy().astype(bool)).tobytes())
    for path in data.paths:
        digest.update(os.fsencode(path.name) + b"\0")
    return [len(data), digest.hexdigest()]


def find_changes(checkpoint: dict, flags: dict, data: dict, accepted: bool) -> bool:
    """Whether this command is another than the one of `checkpoint`.

    Raises UsageError, naming each change, unless they are accepted and the weights still fit.
    """
    # the stages were not asked for when only the last one was read
    then, known = {"stages": 1, **checkpoint["flags"]}, checkpoint.get("data", {})
    changed = [k for k in flags if k not in MAY_CHANGE and flags[k] != then.get(k)]
    what = [f"--{k} was {then.get(k)}, is {flags[k]}" for k in changed]
    what += [
        f"the {part} images or their labels have changed: {known[part][0]:,} then, {now[0]:,} now"
        for part, now in data.items()
        if part in known and known[part] != now
    ]
    if not what:
        return False
    text = "; ".join(what)
    if refused := SETTINGS & set(changed):
        raise UsageError(
            f"the run in --output_dir is another ({text}), and --{sorted(refused)[0]} cannot "
            "change: choose another --output_dir"
        )
    if not accepted:
        raise UsageError(
            f"the run in --output_dir is another ({text}): choose another --output_dir, or "
            "--accept_changes to continue all the same"
        )
    log(f"WARNING: continuing, though {text}; an epoch under way begins again")
    return True


class Saver:
    """Writes best.pt and last.pt, and ends the run when it is told to stop."""

    def __init__(
        self, training: TrainState, about: dict, args: argparse.Namespace, stop: StopOnSignal
    ) -> None:
        self.training, self.about, self.stop = training, about, stop
        self.folder, self.seconds = args.output_dir, 60 * args.save_minutes
        self.saved_at = time.monotonic()

    def checkpoint(self) -> dict:
        """What evaluate.py and sample.py need."""
        weights = self.training.ema.state_dict()
        return {**self.about, **self.training.validated, "weights": weights}

    def save_best(self) -> None:
        """The first process writes for all."""
        if rank() == 0:
            save_checkpoint(self.checkpoint(), self.folder / "best.pt")

    def save(self) -> None:
        """Write last.pt; all processes have to be at the same step."""
        state = self.training.state_dict()
        if rank() == 0:
            save_last({**self.checkpoint(), "training": state}, self.folder)
        self.saved_at = time.monotonic()

    def between_steps(self) -> None:
        """Save if it is time to, or if the run is to stop, which then it does."""
        stop = self.stop.is_requested()
        if stop or any_rank(time.monotonic() - self.saved_at > self.seconds):
            self.save()
        if stop:
            raise self.stop.error()
