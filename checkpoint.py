"""Checkpoints: one file that evaluate.py and sample.py need nothing beside.

A checkpoint is a dictionary of plain types and tensors, so `torch.load(weights_only=True)` reads
it and no file can run code:

    format          "hybridnet-checkpoint-1"
    model           arguments of HybridNet but num_labels
    vocabulary      what vocabulary.py writes
    preprocessing   arguments of pictures.Preprocessing
    weights         state dict, averaged over training (EMA): what is evaluated
    temperature     what log-odds are divided by, fitted on the hold-out (1 in files of before it)
    prior_weight    of the labels' rates in log-odds, added to them; fitted too (before it: 0)
    threshold       label probability from which a label is predicted, fitted on the hold-out
    label_thresholds  each label's own one, where its expected F1 is highest (`threshold` in files
                    of before it)
    epoch, figures  when it was made and its figures on the hold-out
    selected_on     which images chose the epoch, the calibration and the thresholds
    flags           the training command's flags; device and amp as what `auto` stood for
    data            number and digest of the training and of the validation images with labels
    training        only in last.pt: what continuing needs

last.pt is written in the middle of epochs, too; the one before it stays beside it as previous.pt.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from checkpoint_checks import SETTINGS, check_archive, check_fit, check_parts
from distributed import rank
from model import HybridNet
from pictures import Preprocessing
from utils import UsageError, log, write_atomically
from vocabulary import Vocabulary

if TYPE_CHECKING:
    from data_loader import LabelledImages

FORMAT = "hybridnet-checkpoint-1"
# between a run and its continuation; the vocabulary itself is compared, wherever it lies
MAY_CHANGE = {"num_workers", "device", "amp", "compile", "output_dir", "vocab_path"}
MAY_CHANGE |= {"save_minutes", "accept_changes", "skip_bad_images"}
LAST, PREVIOUS = "last.pt", "previous.pt"
PARTS = ("model", "vocabulary", "preprocessing", "weights")
PARTS += ("threshold", "epoch", "selected_on", "flags")


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write it in one step: an interrupted save leaves the file that was there."""
    data = {"format": FORMAT, **_on_cpu(checkpoint)}

    def write(temporary: Path) -> None:
        try:
            torch.save(data, temporary)
        except RuntimeError as error:  # so torch says that the disk is full
            if "DataLoader worker" in str(error):
                raise
            raise OSError(f"is the disk full? {str(error).splitlines()[0]}") from error

    write_atomically(path, write)


def _on_cpu(value: object) -> object:
    """Tensors of any nesting brought to the CPU, so that any machine can read the file."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {k: _on_cpu(v) for k, v in value.items()}
    return [_on_cpu(v) for v in value] if isinstance(value, list) else value


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU. Raises UsageError for a missing file or one of another kind."""
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}")
    try:
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that no torch wrote
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever a foreign or damaged file makes torch raise, the reason is one
        checkpoint = None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise UsageError(f"{path} is damaged or not a checkpoint of HybridNet's train.py")
    if missing := [part for part in PARTS if part not in checkpoint]:
        raise UsageError(f"{path} is damaged: it lacks {', '.join(missing)}")
    add_defaults(checkpoint)
    try:
        check_parts(checkpoint)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    return checkpoint


def add_defaults(checkpoint: dict) -> None:
    """What a checkpoint of before there was such a thing stands for."""
    checkpoint.setdefault("temperature", 1.0)
    checkpoint.setdefault("prior_weight", 0.0)
    checkpoint.setdefault("label_thresholds", checkpoint["threshold"])


def restore(checkpoint: dict, source: Path) -> tuple[HybridNet, Vocabulary, Preprocessing]:
    """The model (test mode, CPU), its labels and its preprocessing, from a checkpoint alone."""
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], str(source))
    try:
        check_fit(checkpoint["model"], len(vocabulary), checkpoint["weights"])
        prior = vocabulary.log_odds()
        model = HybridNet(num_labels=len(vocabulary), label_log_odds=prior, **checkpoint["model"])
        model.load_state_dict(checkpoint["weights"])
        model.decoder.temperature = float(checkpoint["temperature"])
        model.decoder.prior_weight = float(checkpoint["prior_weight"])
        np.broadcast_to(checkpoint["label_thresholds"], len(vocabulary))  # or raise ValueError
        preprocessing = Preprocessing(**checkpoint["preprocessing"])
    except (TypeError, RuntimeError, AttributeError, ValueError):
        raise UsageError(f"{source} is damaged: its weights do not fit its sizes") from None
    return model.eval(), vocabulary, preprocessing


def find_checkpoint(runs: Path = Path("runs")) -> Path:
    """The best checkpoint of the latest run. Raises UsageError if there is none."""
    found = sorted(runs.glob("*/best.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UsageError("no trained model found under runs/: run train.py, or give --checkpoint")
    age = (time.time() - found[-1].stat().st_mtime) / 60
    log(f"using {found[-1]}, the latest run ({age:.0f} minutes old)")
    return found[-1]


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
