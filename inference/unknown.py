"""Targets with unknown labels: what the decoder reads in their place.

The likelihood of an image's known labels sums over its unknown ones. Its gradient is the mean of
the gradients with the unknown labels filled in, over P(unknown labels | image, known labels)
(Fisher's identity). Training takes one draw from it in each step: stochastic EM (Celeux and
Diebolt, 1985).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inference.decoding import sample_label_sets
from model import Encoding, HybridNet, bernoulli_nll

NUM_SAMPLES = 16  # label sets of which one is drawn; up to as many, all sets are listed: exact
GOLDEN = (5**0.5 - 1) / 2


@torch.no_grad()
def complete_targets(
    model: HybridNet, encoding: Encoding, targets: Tensor, indices: Tensor, seed: int = 0
) -> Tensor:
    """Targets B×C (1, 0, NaN: unknown) with a 0 or 1 drawn for each unknown label.

    The draw is from P(unknown labels | image, known labels): exact if an image has few unknown
    labels before its last known one, else one of NUM_SAMPLES weighted samples. Labels after the
    last known one do not matter then, and are 0. A decoder that reads no labels needs no draw: all
    unknown labels are 0. Which set is drawn depends on `seed` and the image's index, not on the
    batch.
    """
    unknown, completed = targets.isnan(), targets.nan_to_num(0)
    if not model.decoder.reads_labels:
        return completed
    matters = unknown & before_last_known(targets)
    few = 2 ** matters.sum(1) <= NUM_SAMPLES  # of an image's own unknown labels
    start = np.random.default_rng(seed).random()
    uniform = torch.from_numpy((start + GOLDEN * indices.cpu().numpy()) % 1).to(targets.device)
    for rows in (few & unknown.any(1), ~few):
        if not rows.any():
            continue
        of_rows = rows.to(encoding.cnn_logits.device)
        images = Encoding(encoding.image_embedding[of_rows], encoding.cnn_logits[of_rows], [])
        if few[rows].all():
            sets = _all_completions(completed[rows].bool(), matters[rows])
            log_probs = _log_probs(model, images, sets, ~unknown[rows] | matters[rows])
            weights = log_probs.softmax(1)
        else:
            known = torch.where(unknown, 0, 2 * targets - 1)[rows].to(of_rows.device)
            samples = sample_label_sets(model, images, NUM_SAMPLES, seed, known)
            sets, weights = samples.label_sets, samples.weights
        up_to = weights.double().cumsum(1).to(targets.device)
        chosen = (up_to < uniform[rows, None]).sum(1).clamp_max(sets.shape[1] - 1)
        drawn = sets.to(targets.device)[torch.arange(len(sets)), chosen]
        completed[rows] = drawn.to(completed.dtype)
    return completed


def before_last_known(targets: Tensor) -> Tensor:
    """B×C bool: the labels ranked before the last known one of their image; NaN is unknown."""
    known = ~targets.isnan()
    return known.flip(1).cumsum(1).flip(1) > known.long()


def _all_completions(sets: Tensor, unknown: Tensor) -> Tensor:
    """The sets B×C with every choice for the `unknown` labels, at most U each: B×2^U×C.

    2^U is at most NUM_SAMPLES. An image with fewer unknown labels has each of its sets equally
    often, so that its draw does not depend on the others.
    """
    most = NUM_SAMPLES.bit_length() - 1
    choices = torch.arange(2**most, device=sets.device)
    bits = (choices[:, None] >> torch.arange(most, device=sets.device)) & 1  # 2^most×most
    number = (unknown.cumsum(1) - 1).clamp(0, most - 1)  # B×C  of each unknown label
    return torch.where(unknown, bits.bool()[:, number], sets).transpose(0, 1)


def _log_probs(model: HybridNet, encoding: Encoding, sets: Tensor, counts: Tensor) -> Tensor:
    """log P of the labels that count, B×C bool, in each of the sets B×K×C: B×K."""
    repeated = (
        x.repeat_interleave(sets.shape[1], 0)
        for x in (encoding.image_embedding, encoding.cnn_logits)
    )
    flat = sets.flatten(0, 1)
    z = model.set_logits(Encoding(*repeated, []), flat)
    counts = counts.repeat_interleave(sets.shape[1], 0)
    return -bernoulli_nll(z, flat.to(z.device), counts.to(z.device)).view(sets.shape[:2])
