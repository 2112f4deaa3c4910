"""Calibration of a model on the validation images: T and w of its decoder, see model.py."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.calibration import SampledSets, fit_calibration, refine_calibration
from inference.decoding import sample_label_sets
from inference.predictions import encode_batches
from inference.unknown import complete_targets, logits_of_sets
from model import Encoding, HybridNet
from util.distributed import gather_batches
from util.errors import UsageError

NUM_SAMPLES = 16  # label sets sampled per image
MOST_LOGITS = 2**20  # of all sampled sets; the fit reads them about 30 times


def fit_calibration_on(
    model: HybridNet, batches: Iterable, amp: torch.autocast
) -> list[tuple[Encoding, Tensor, Tensor]]:
    """Encode this process's share of the validation images; fit the calibration to all of them.

    Returns what `decode_all` takes: per batch the encoding (without class maps), targets, indices.
    Raises UsageError if no image can be read.
    """
    decoder = model.decoder
    decoder.temperature, decoder.prior_weight = 1.0, 0.0
    encoded, read = [], []
    for encoding, targets, indices in encode_batches(model, batches, amp):
        encoded.append((replace(encoding, class_maps=[]), targets, indices))
        z = model.set_logits(encoding, complete_targets(model, encoding, targets, indices))
        read.append((targets.cpu().numpy(), z.detach().cpu().numpy()))
    read = gather_batches(read)
    if not read:
        raise UsageError("none of the validation images can be read")
    targets, logits = map(np.concatenate, zip(*read, strict=True))
    prior = decoder.prior.cpu().numpy()
    fitted = fit_calibration(targets, logits, prior, ~np.isnan(targets))
    if decoder.reads_labels:
        decoder.temperature, decoder.prior_weight = fitted
        sampled = _sample(model, encoded, every=math.ceil(logits.size * NUM_SAMPLES / MOST_LOGITS))
        fitted = refine_calibration(fitted, targets, logits, prior, sampled)
    decoder.temperature, decoder.prior_weight = fitted
    return encoded


@torch.no_grad()
def _sample(
    model: HybridNet, encoded: list[tuple[Encoding, Tensor, Tensor]], every: int
) -> SampledSets:
    """Label sets sampled for every n-th image of all processes, with the model's calibration."""
    decoder = model.decoder
    calibration = decoder.temperature, decoder.prior_weight
    found = []
    for encoding, targets, indices in encoded:
        rows = (indices % every == 0).nonzero().squeeze(1).to(targets.device)
        some = Encoding(encoding.image_embedding[rows], encoding.cnn_logits[rows], [])
        sets = sample_label_sets(model, some, NUM_SAMPLES).label_sets
        decoder.temperature, decoder.prior_weight = 1.0, 0.0
        z = logits_of_sets(model, some, sets)
        decoder.temperature, decoder.prior_weight = calibration
        drawn_with = F.logsigmoid(torch.where(sets, 1.0, -1.0) * decoder.calibrated(z))
        found.append(tuple(x.cpu().numpy() for x in (targets[rows], sets, z, drawn_with)))
    return SampledSets(*map(np.concatenate, zip(*gather_batches(found), strict=True)))
