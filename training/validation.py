"""An epoch of training, and what validation finds after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.calibration import fit_calibration, fit_label_thresholds, fit_threshold
from evaluation.metrics import average_precision, mean, set_metrics
from inference.predictions import Predictions, decode, encode_batches
from model import Encoding, HybridNet
from util.distributed import gather_batches
from util.errors import UsageError


def fit_calibration_on(
    model: HybridNet, batches: Iterable, amp: torch.autocast
) -> list[tuple[Encoding, Tensor, Tensor]]:
    """Encode this process's share of the validation images and fit the calibration to all of them.

    Returns what `predict` takes: of each batch encoding (without class maps), targets and indices.
    Raises UsageError if no image can be read.
    """
    decoder = model.decoder
    decoder.temperature, decoder.prior_weight = 1.0, 0.0
    encoded, logits = [], []
    for encoding, targets, indices in encode_batches(model, batches, amp):
        encoded.append((replace(encoding, class_maps=[]), targets, indices))
        z = model.set_logits(encoding, targets)
        logits.append((targets.cpu().numpy(), z.detach().cpu().numpy()))
    logits = gather_batches(logits)
    if not logits:
        raise UsageError("none of the validation images can be read")
    found = map(np.concatenate, zip(*logits, strict=True))
    decoder.temperature, decoder.prior_weight = fit_calibration(*found, decoder.prior.cpu().numpy())
    return encoded


def decode_all(
    model: HybridNet, encoded: Iterable[tuple[Encoding, Tensor, Tensor]], num_samples: int = 32
) -> tuple[Predictions, list[int]]:
    """Everybody's share of encoded images decoded, together and in order; which they are.

    num_samples: label sets drawn for the marginals of each image.
    """
    found = gather_batches(
        [(decode(model, e, targets, num_samples), i) for e, targets, i in encoded]
    )
    rows = torch.cat([indices for _, indices in found]).tolist()
    return Predictions.join(p for p, _ in found), rows


def validation_metrics(p: Predictions) -> tuple[dict[str, float], float, list[float]]:
    """Figures on the validation images; the threshold and the labels' own ones, fitted there."""
    ap = average_precision(p.targets, p.marginals)
    threshold = fit_threshold(p.targets, p.marginals)
    metrics = {
        "val_set_nll": float(p.set_nll.mean()),
        "val_mAP": 100 * mean(ap[~np.isnan(ap)]),
        "val_OF1": set_metrics(p.targets, p.marginals >= threshold)["OF1"],
        "val_EM": set_metrics(p.targets, p.best_sets)["EM"],
    }
    return metrics, threshold, fit_label_thresholds(p.marginals).tolist()
