"""Checkpoints: one file with all that evaluate.py and sample.py need.

A checkpoint is a dictionary of plain types and tensors, so `torch.load(weights_only=True)` reads
it. Here `read_torch_file` does, which no file can make run code, hang or fill the memory:

    format          "hybridnet-checkpoint-1"
    commit          git commit of the code that wrote it, see `code_commit` (may be missing)
    model           the arguments of HybridNet that `settings_of` lists
    vocabulary      Vocabulary.to_dict()
    preprocessing   arguments of Preprocessing
    weights         state dict, averaged over training (EMA); evaluation uses this
    temperature     divides the logits; fitted on the hold-out
    prior_weight    weight of the labels' log-odds that is added to the logits; fitted there, too
    threshold       labels of at least this probability are predicted; fitted on the hold-out
    label_thresholds  one threshold for each label, for its best expected F1
    promises        thresholds that promise a precision or recall, see promises.py (may be missing)
    epoch, metrics  the epoch it was saved after, and its metrics on the hold-out
    selected_on     the images that chose epoch, calibration and thresholds
    held_out        names of these images, as the annotations write them, if they were held out from
                    the training images; else, and in older checkpoints, None or missing
    flags           train.py's flags; for --device and --amp, what `auto` became
    data            number and digest of the training and the validation images with labels
    training        only in last.pt: what continuing the run needs

last.pt is also written within epochs; the one before it is kept as previous.pt.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from images.transforms import Preprocessing
from inference.checkpoint_checks import check_fit, check_parts, check_promises, check_settings
from inference.torch_file import BadFileError, read_torch_file
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from util.cli import code_commit
from util.errors import UsageError
from util.files import write_atomically
from util.log import log, some

FORMAT_VERSION = "hybridnet-checkpoint-1"
PARTS = ("model", "vocabulary", "preprocessing", "weights")
PARTS += ("temperature", "prior_weight", "threshold", "label_thresholds")
PARTS += ("epoch", "selected_on", "flags")


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write the file in one step: an interrupted save leaves the old file as it was."""
    data = {"format": FORMAT_VERSION, **_on_cpu(checkpoint)}

    def write(temporary: Path) -> None:
        temporary.touch()  # its errors have a reason, torch's have not
        try:
            torch.save(data, temporary)
        except RuntimeError as error:  # torch's error for a full disk
            if "DataLoader worker" in str(error):
                raise
            raise OSError(f"is the disk full? {str(error).splitlines()[0]}") from error

    write_atomically(path, write)


def _on_cpu(value: object) -> object:
    """A copy with all tensors on the CPU, so that any machine can read the file."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {k: _on_cpu(v) for k, v in value.items()}
    return [_on_cpu(v) for v in value] if isinstance(value, list) else value


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU. Raises UsageError if it is missing, damaged or another file."""
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}{_others(path)}")
    try:
        checkpoint, reason = read_torch_file(path), ""
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror or error})") from None
    except BadFileError as error:
        checkpoint, reason = None, f" ({error})"
    if not is_checkpoint(checkpoint):
        raise UsageError(f"{path} is damaged or not a checkpoint of HybridNet's train.py{reason}")
    try:
        check_names(checkpoint)
    except ValueError as error:
        raise UsageError(_explain(checkpoint, path, error)) from None
    try:
        check_parts(checkpoint)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    return checkpoint


def is_checkpoint(content: object) -> bool:
    """Whether a file with this content was written by `save_checkpoint`, or looks like that."""
    return isinstance(content, dict) and content.get("format") == FORMAT_VERSION


def check_names(checkpoint: dict) -> None:
    """All parts and all settings of the model are there. Raises ValueError."""
    if missing := [part for part in PARTS if part not in checkpoint]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    check_settings(checkpoint["model"])


def log_defaults(checkpoint: dict, source: Path) -> None:
    """Say which settings the checkpoint does not have, and the defaults that take their place."""
    for name, default in settings_of({}).items():
        if name not in checkpoint["model"]:
            what = f"older than the setting {name!r}; its default {default!r} is used"
            log(f"note: {source} is {what}")


def restore(checkpoint: dict, source: Path) -> tuple[HybridNet, Vocabulary, Preprocessing]:
    """The model (test mode, CPU), its labels and its preprocessing.

    source: the checkpoint's file, for errors. Raises UsageError if the parts do not fit together.
    """
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], str(source))
    try:
        np.broadcast_to(checkpoint["label_thresholds"], len(vocabulary))  # or ValueError
        check_promises(checkpoint.get("promises"), len(vocabulary))
        preprocessing = Preprocessing(**checkpoint["preprocessing"])
    except (TypeError, ValueError):
        reason = "its thresholds or preprocessing do not fit its labels"
        raise UsageError(f"{source} is damaged: {reason}") from None
    try:
        settings = {**checkpoint["model"], "image_size": preprocessing.image_size}
        check_fit(settings, len(vocabulary), checkpoint["weights"])
        log_defaults(checkpoint, source)
        prior = vocabulary.prior_logits()
        model = HybridNet(len(vocabulary), label_logits=prior, **settings)
        model.load_state_dict(checkpoint["weights"])
    except (TypeError, RuntimeError, AttributeError, ValueError) as error:
        reason = error if type(error) is ValueError else "its weights do not fit its model"
        raise UsageError(_explain(checkpoint, source, reason)) from None
    model.decoder.temperature = float(checkpoint["temperature"])  # check_parts: a number
    model.decoder.prior_weight = float(checkpoint["prior_weight"])
    return model.eval(), vocabulary, preprocessing


def _explain(checkpoint: dict, source: Path, reason: object) -> str:
    """A sentence on why this code cannot use a checkpoint: other code wrote it, or damage."""
    commit = checkpoint.get("commit")
    if type(commit) is not str or commit in ("unknown", code_commit()):
        return f"{source} is damaged: {reason}"
    return (
        f"{source} was written by other code (commit {commit[:40]}, this is {code_commit()}): "
        f"{reason}; check out that commit to use it"
    )


def find_checkpoint(given: Path | None = None, runs: Path = Path("runs")) -> Path:
    """The checkpoint that the user gives; of a run's folder its best.pt; else the latest run's.

    A choice is logged. Raises UsageError if there is none.
    """
    if given:
        best = given / "best.pt"
        if best.is_file():
            log(f"using {best}")
        elif given.is_dir():
            raise UsageError(f"the folder {given} has no best.pt{_others(best)}")
        return best if given.is_dir() else given
    found = sorted(runs.glob("*/best.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UsageError(
            f"no trained model found: there is no {runs}/*/best.pt; run train.py, or give "
            "--checkpoint"
        )
    age = (time.time() - found[-1].stat().st_mtime) / 60
    when = f"{age:.0f} minutes old" if age >= 0 else "its date is in the future"
    log(f"using {found[-1]}, the latest run ({when})")
    return found[-1]


def _others(path: Path) -> str:
    """The checkpoints near a path that does not exist, for its error message."""
    folders = (path.parent, path.parent.parent, Path("runs"))
    found = dict.fromkeys(p for f in folders for g in ("*.pt", "*/*.pt") for p in sorted(f.glob(g)))
    return f"; there is {some([*map(str, found)])}" if found else ""
