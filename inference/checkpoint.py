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
    epoch, metrics  when it was made and its metrics on the hold-out
    selected_on     which images chose the epoch, the calibration and the thresholds
    flags           the training command's flags; device and amp as what `auto` stood for
    data            number and digest of the training and of the validation images with labels
    training        only in last.pt: what continuing needs

last.pt is written in the middle of epochs, too; the one before it stays beside it as previous.pt.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import torch

from images.transforms import Preprocessing
from inference.checkpoint_checks import check_archive, check_fit, check_parts
from labels.vocabulary import Vocabulary
from model import HybridNet
from util.errors import UsageError
from util.files import write_atomically
from util.log import log

FORMAT_VERSION = "hybridnet-checkpoint-1"
PARTS = ("model", "vocabulary", "preprocessing", "weights")
PARTS += ("threshold", "epoch", "selected_on", "flags")


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """Write it in one step: an interrupted save leaves the file that was there."""
    data = {"format": FORMAT_VERSION, **_on_cpu(checkpoint)}

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
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT_VERSION:
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
        prior = vocabulary.prior_logits()
        model = HybridNet(num_labels=len(vocabulary), label_logits=prior, **checkpoint["model"])
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
