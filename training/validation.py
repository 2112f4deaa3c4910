"""Validation after each epoch: calibration, thresholds and metrics on the hold-out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.calibration import fit_label_thresholds, fit_threshold
from evaluation.metrics import average_precision, mean, set_metrics
from evaluation.promise import fit_promises
from inference.predictions import NotFiniteError, Predictions, decode
from model import Encoding, HybridNet
from training.calibrate import fit_calibration_on
from util.distributed import gather_batches
from util.errors import RunError

HINT = "continue with --amp off, or start a new --output_dir with a lower --learning_rate"


@dataclass(frozen=True)
class Validation:
    """What an epoch's validation finds."""

    metrics: dict[str, float]  # val_set_nll in nats per image; val_mAP, val_OF1, val_EM in percent
    threshold: float  # one for all labels
    label_thresholds: list[float]  # C
    promises: dict  # see inference/promises.py
    predictions: Predictions
    rows: list[int]  # each prediction's image: its position in the data set


def validate(
    model: HybridNet, batches: Iterable, amp: torch.autocast, most_labels: int = 0
) -> Validation:
    """Calibrate the model on the validation images, then decode and score them.

    most_labels: see `fit_promises`. Raises RunError if the loss is not finite, UsageError if no
    image can be read.
    """
    try:
        p, rows = decode_all(model, fit_calibration_on(model, batches, amp))
    except NotFiniteError:
        raise RunError(f"the validation loss is not finite; {HINT}") from None
    metrics, threshold, label_thresholds = validation_metrics(p)
    promises = fit_promises(p.targets, p.marginals, most_labels, p.known)
    return Validation(metrics, threshold, label_thresholds, promises, p, rows)


def decode_all(
    model: HybridNet, encoded: Iterable[tuple[Encoding, Tensor, Tensor]], num_samples: int = 32
) -> tuple[Predictions, list[int]]:
    """Decode all processes' images, in the data set's order; returns their positions, too.

    num_samples: label sets sampled per image for the marginals.
    """
    found = gather_batches(
        [(decode(model, e, targets, num_samples), i) for e, targets, i in encoded]
    )
    rows = torch.cat([indices for _, indices in found]).tolist()
    return Predictions.join(p for p, _ in found), rows


def validation_metrics(p: Predictions) -> tuple[dict[str, float], float, list[float]]:
    """Metrics, and the thresholds fitted on these images: one for all labels, and one per label."""
    known = p.known
    ap = average_precision(p.targets, p.marginals, known)
    threshold = fit_threshold(p.targets, p.marginals, known)
    metrics = {
        "val_set_nll": float(p.set_nll.mean()),
        "val_mAP": 100 * mean(ap[~np.isnan(ap)]),
        "val_OF1": set_metrics(p.targets, p.marginals >= threshold, known)["OF1"],
        "val_EM": set_metrics(p.targets, p.best_sets, known)["EM"],
    }
    return metrics, threshold, fit_label_thresholds(p.marginals).tolist()
