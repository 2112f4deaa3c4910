"""Saving a run so that it can continue, and finding the save to continue from."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from data_loader import LabelledImages
from inference.checkpoint import load_checkpoint, save_checkpoint
from model import settings_of
from training.state import TrainState
from util.distributed import rank
from util.errors import UsageError
from util.log import log

# flags that may differ when a run continues (of the vocabulary the content is compared)
MAY_CHANGE = {"num_workers", "device", "amp", "compile", "output_dir", "vocab_path"}
MAY_CHANGE |= {"save_minutes", "accept_changes", "skip_bad_images"}
LAST, PREVIOUS = "last.pt", "previous.pt"


def save_last(checkpoint: dict, folder: Path) -> None:
    """Write last.pt; the old one becomes previous.pt once the new one is safely on the disk."""
    new, last = folder / ".new.pt", folder / LAST
    save_checkpoint(checkpoint, new)
    if last.exists():
        os.replace(last, folder / PREVIOUS)
    os.replace(new, last)


def load_last(folder: Path) -> dict | None:
    """The checkpoint to continue from, or None; previous.pt, with a warning, if last.pt is damaged.

    Removes half-written files of a killed run. Raises UsageError if neither can be read.
    """
    if rank() == 0:
        for left in folder.glob(".*.tmp*"):
            left.unlink(missing_ok=True)
        new = folder / ".new.pt"  # it is complete: it gets this name at the end
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
        raise UsageError(f"{problem}; move it away to start again, or choose another --output_dir")
    return None


def fingerprint(data: LabelledImages) -> list:
    """Number of images, and a digest of their names and labels, in order."""
    digest = hashlib.sha256(np.packbits(data.targets.numpy().astype(bool)).tobytes())
    for path in data.paths:
        digest.update(os.fsencode(path.name) + b"\0")
    return [len(data), digest.hexdigest()]


def continue_run(
    state: TrainState, earlier: dict, about: dict, defaults: dict, accept_changes: bool
) -> None:
    """Set `state` to where the checkpoint `earlier` was written.

    about: what the checkpoints of this command hold (vocabulary, flags, data, ...).
    defaults: of all flags; a flag that is newer than the checkpoint had its default then.
    Raises UsageError if the checkpoint does not fit, or if flags or data differ from it and
    `accept_changes` is not set.
    """
    if earlier["vocabulary"] != about["vocabulary"]:
        raise UsageError(
            f"the run in {about['flags']['output_dir']} has another vocabulary; choose another "
            "--output_dir"
        )
    earlier = {**earlier, "flags": defaults | earlier["flags"]}
    changed = find_changes(earlier, about["flags"], about["data"], accept_changes)
    try:
        state.load(earlier, changed)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        raise UsageError(
            "the checkpoint in --output_dir is damaged: its training state does not fit; move it "
            "away to start again"
        ) from None
    if changed and earlier["data"]["validation"] != about["data"]["validation"]:
        state.best_nll = math.inf  # it was measured on other images


def find_changes(earlier: dict, flags: dict, data: dict, accepted: bool) -> bool:
    """Whether flags or data differ from the checkpoint's.

    Raises UsageError, naming each change, unless they are accepted and the weights still fit.
    """
    then = earlier["flags"]
    changed = [k for k in flags if k not in MAY_CHANGE and flags[k] != then.get(k)]
    what = [f"--{k} was {then.get(k)}, is {flags[k]}" for k in changed]
    what += [
        f"the {part} images or their labels have changed: {earlier['data'][part][0]:,} then, "
        f"{now[0]:,} now"
        for part, now in data.items()
        if earlier["data"][part] != now
    ]
    if not what:
        return False
    text = "; ".join(what)
    if refused := settings_of({}).keys() & set(changed):
        raise UsageError(
            f"the run in --output_dir is another ({text}), and --{sorted(refused)[0]} cannot "
            "change: choose another --output_dir"
        )
    if not accepted:
        raise UsageError(
            f"the run in --output_dir is another ({text}): choose another --output_dir, or "
            "--accept_changes to continue all the same"
        )
    log(f"WARNING: continuing, although {text}; an unfinished epoch starts again")
    return True
