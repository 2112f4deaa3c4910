"""Saving a run so that it can continue, and finding the save to continue from."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from images.part import Part
from inference.checkpoint import load_checkpoint, save_checkpoint
from model import HybridNet, settings_of
from training.state import TrainState
from util.distributed import rank
from util.errors import UsageError
from util.log import collected_log, log

# flags that may differ when a run continues (of the vocabulary the content is compared)
MAY_CHANGE = {
    "num_workers",
    "device",
    "amp",
    "compile",
    "decode_on_gpu",
    "output_dir",
    "vocab_path",
}
MAY_CHANGE |= {"save_minutes", "accept_changes", "skip_bad_images", "config", "track"}
LAST, PREVIOUS = "last.pt", "previous.pt"


def save_last(checkpoint: dict, folder: Path) -> None:
    """Write last.pt; the old one becomes previous.pt once the new one is safely on the disk."""
    new, last = folder / ".new.pt", folder / LAST
    save_checkpoint(checkpoint, new)
    if last.exists():
        os.replace(last, folder / PREVIOUS)
    os.replace(new, last)


def remove_previous(folder: Path) -> None:
    """Remove previous.pt: the run is finished, and last.pt is on the disk."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def load_last(folder: Path) -> dict | None:
    """`read_last`, after removing half-written files of a killed run; the folder must be locked.

    Raises UsageError also if there is only a best.pt, which a new run would replace.
    """
    if rank() == 0:
        for left in folder.glob(".*.tmp*"):
            left.unlink(missing_ok=True)
        new = folder / ".new.pt"  # it is complete: it gets this name at the end
        if new.exists() and not (folder / LAST).exists():
            os.replace(new, folder / LAST)
        new.unlink(missing_ok=True)
    earlier = read_last(folder)
    if earlier is None and (folder / "best.pt").exists():
        raise UsageError(
            f"{folder} has a best.pt, but no last.pt to continue from: choose another --output_dir"
        )
    return earlier


def read_last(folder: Path) -> dict | None:
    """The checkpoint to continue from, or None; previous.pt, with a warning, if last.pt is damaged.

    Changes nothing. Raises UsageError if neither can be read.
    """
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


def peek_last(folder: Path) -> dict | None:
    """`read_last` without its warnings, to choose a folder: `load_last` gives them."""
    with collected_log():
        return read_last(folder)


def fingerprint(part: Part) -> list:
    """Number of images, and a digest of their names and labels, in order."""
    digest = hashlib.sha256(np.packbits(part.targets).tobytes())
    if part.unknown is not None:
        digest.update(np.packbits(part.unknown).tobytes())
    for path in part.paths:
        digest.update(os.fsencode(path.name) + b"\0")
    return [len(part.paths), digest.hexdigest()]


def epochs_done(checkpoint: dict) -> int:
    """How many epochs are trained and validated. Raises UsageError for a damaged checkpoint."""
    try:
        return int(checkpoint["training"]["progress"][0])
    except (LookupError, TypeError, ValueError, RuntimeError):
        raise _damaged() from None


def is_finished(checkpoint: dict) -> bool:
    """Whether the run has all epochs that its own command asked for. Raises UsageError."""
    asked = checkpoint["flags"].get("num_epochs")
    return type(asked) is int and epochs_done(checkpoint) >= asked


@dataclass(frozen=True)
class Changes:
    """In what a command differs from an earlier run: a phrase for each flag and part of the data.

    Parts of the data are the training and the validation images and the vocabulary.
    """

    flags: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.flags or self.data)

    def __str__(self) -> str:
        return "; ".join([*self.flags.values(), *self.data.values()])

    def check(self, folder: Path, accepted: bool) -> None:
        """Raise UsageError if the run in `folder` cannot continue with these changes."""
        if not self:
            return
        what = f"the run in {folder} is another ({self})"
        # the first weights are kept only by a run with --start_decay
        refused = sorted((settings_of({}).keys() | {"start_decay"}) & self.flags.keys())
        refused = [f"--{name}" for name in refused] + ["the vocabulary"] * (
            "vocabulary" in self.data
        )
        if refused:
            raise UsageError(f"{what}, and {refused[0]} cannot change: choose another --output_dir")
        if not accepted:
            raise UsageError(
                f"{what}: choose another --output_dir, or --accept_changes to continue all the same"
            )


def find_changes(earlier: dict, about: dict, defaults: dict) -> Changes:
    """In what this command differs from the run that wrote the checkpoint `earlier`.

    about: what the checkpoints of this command hold (vocabulary, flags, data, ...).
    defaults: of all flags; a flag that is newer than the checkpoint had its default then.
    """
    then, flags = defaults | earlier["flags"], about["flags"]
    changed = [k for k in flags if k not in MAY_CHANGE and flags[k] != then.get(k)]
    data = {}
    for part, now in about["data"].items():
        try:
            before = earlier["data"][part]
            number = f"{before[0]:,} then, {now[0]:,} now"
        except (LookupError, TypeError, ValueError, AttributeError):
            raise _damaged() from None
        if before != now:
            data[part] = f"the {part} images or their labels have changed: {number}"
    if earlier["vocabulary"] != about["vocabulary"]:
        data["vocabulary"] = "it has another vocabulary"
    return Changes({k: f"--{k} was {then.get(k)}, is {flags[k]}" for k in changed}, data)


def continue_run(state: TrainState, earlier: dict, changes: Changes) -> None:
    """Set `state` to where the checkpoint `earlier` was written. Raises UsageError."""
    if changes:
        if "image_size" in changes.flags:
            check_shapes(state.model, earlier, changes.flags["image_size"])
        log(f"WARNING: continuing, although {changes}; an unfinished epoch starts again")
    try:
        state.load(earlier, bool(changes))
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        raise _damaged() from None
    if "validation" in changes.data:
        state.best_nll = math.inf  # it was measured on other images


def check_shapes(model: HybridNet, earlier: dict, change: str) -> None:
    """Raise UsageError if the encoder's weights are for images of one size only.

    model: for the new size. earlier: the checkpoint. change: of the size, as a phrase.
    """
    weights = earlier["weights"]
    for name, tensor in model.encoder.state_dict(prefix="encoder.").items():
        if name in weights and weights[name].shape != tensor.shape:
            raise UsageError(
                f"{change}, but the weights of {earlier['model']['arch']} are for one size: choose "
                "another --output_dir"
            )


def _damaged() -> UsageError:
    return UsageError(
        "the checkpoint in --output_dir is damaged: its training state does not fit; move it away "
        "to start again"
    )
