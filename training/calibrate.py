"""Calibration of a model on the validation images: the numbers of model.Calibration."""

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
from inference.unknown import complete_targets
from model import Calibration, Encoding, HybridNet
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
    decoder.calibration = Calibration()
    encoded, read = [], []
    for encoding, targets, indices in encode_batches(model, batches, amp):
        encoded.append((replace(encoding, class_maps=[]), targets, indices))
        completed = complete_targets(model, encoding, targets, indices)
        parts = _logits_and_decoder(model, encoding, completed)
        read.append(tuple(x.detach().cpu().numpy() for x in (targets, *parts)))
    read = gather_batches(read)
    if not read:
        raise UsageError("none of the validation images can be read")
    targets, logits, of_decoder = map(np.concatenate, zip(*read, strict=True))
    prior = decoder.prior.cpu().numpy()
    fitted = fit_calibration(targets, logits, prior, ~np.isnan(targets), of_decoder)
    if decoder.reads_labels:
        decoder.calibration = fitted
        sampled = _sample(model, encoded, every=math.ceil(logits.size * NUM_SAMPLES / MOST_LOGITS))
        fitted = refine_calibration(fitted, targets, logits, prior, of_decoder, sampled)
    decoder.calibration = fitted
    return encoded


def _logits_and_decoder(
    model: HybridNet, encoding: Encoding, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits B×C that are not calibrated, and the decoder's part of them.

    The softmax link mixes the scores of several labels in each logit, so its part has no weight: 0.
    """
    decoder = model.decoder
    decoder.calibration, calibration = Calibration(), decoder.calibration
    z = model.set_logits(encoding, targets)
    decoder.calibration = calibration
    is_sum = decoder.reads_labels and decoder.link == "chain"
    return z, z - encoding.cnn_logits if is_sum else torch.zeros_like(z)


@torch.no_grad()
def _sample(
    model: HybridNet, encoded: list[tuple[Encoding, Tensor, Tensor]], every: int
) -> SampledSets:
    """Label sets sampled for every n-th image of all processes, with the model's calibration."""
    found = []
    for encoding, targets, indices in encoded:
        rows = (indices % every == 0).nonzero().squeeze(1).to(targets.device)
        images, cnn_logits = encoding.image_embedding[rows], encoding.cnn_logits[rows]
        sets = sample_label_sets(model, Encoding(images, cnn_logits, []), NUM_SAMPLES).label_sets
        repeated = (x.repeat_interleave(NUM_SAMPLES, 0) for x in (images, cnn_logits))
        each, flat = Encoding(*repeated, []), sets.flatten(0, 1)
        parts = [x.view(sets.shape) for x in _logits_and_decoder(model, each, flat)]
        drawn_with = F.logsigmoid(
            torch.where(sets, 1.0, -1.0) * model.set_logits(each, flat).view(sets.shape)
        )
        found.append(tuple(x.cpu().numpy() for x in (targets[rows], sets, *parts, drawn_with)))
    return SampledSets(*map(np.concatenate, zip(*gather_batches(found), strict=True)))
