"""Unknown labels in training: their likelihood, and what the decoder reads in their place.

The likelihood of an image's known labels sums over its unknown ones. Its gradient is the mean of
the gradients with the unknown labels filled in, over P(unknown labels | image, known labels)
(Fisher's identity). That mean is taken over weighted label sets: Monte Carlo EM (Wei and Tanner,
1990), with a step of the optimizer for each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference.decoding import sample_label_sets
from model import Encoding, HybridNet, bernoulli_nll

NUM_SAMPLES = 16  # label sets of an image, a power of 2; up to as many, all are listed: exact
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Completions:
    """Label sets with the known labels of each image, weighted by P(set | image, known labels).

    After an image's last known label the sets are arbitrary.
    """

    label_sets: Tensor  # B×K×C bool
    weights: Tensor  # B×K, with sum 1
    chance: Tensor  # B×1  a set's weight if the known labels said nothing: 1/K; 0 if all are listed


def partial_nll(model: HybridNet, encoding: Encoding, targets: Tensor, seed: int = 0) -> Tensor:
    """A loss for targets B×C (1, 0, NaN: unknown) with the gradient of -log P(known | image): B.

    Only the gradient is meant to be right on average. The value is the mean over completions of
    -log P(known labels | image, labels before them), plus noise. Unknown labels before the last
    known one have a part in the gradient, because later known labels say something about them.
    `chance` is a control variate: it takes out what is noise alone. If the decoder reads no labels,
    the loss is the known labels' cross-entropy.
    """
    unknown = targets.isnan()
    if not model.decoder.reads_labels:
        targets = targets.nan_to_num(0)
        return bernoulli_nll(model.set_logits(encoding, targets), targets, ~unknown)
    found = complete(model, encoding, targets, seed)
    matters = unknown & before_last_known(targets)
    z = logits_of_sets(model, encoding, found.label_sets)
    nats = F.binary_cross_entropy_with_logits(z, found.label_sets.to(z), reduction="none")
    known, matters = (~unknown).to(z), matters.to(z)  # B×C
    share = found.weights[..., None] * known[:, None]
    share = share + (found.weights - found.chance)[..., None] * matters[:, None]  # B×K×C
    return (nats * share).sum((1, 2))


@torch.no_grad()
def complete(model: HybridNet, encoding: Encoding, targets: Tensor, seed: int = 0) -> Completions:
    """Weighted label sets for targets B×C with NaN, see Completions.

    All sets, if an image has few unknown labels before its last known one, else NUM_SAMPLES sampled
    ones (likelihood weighting). An image's sets do not depend on the batch.
    """
    unknown = targets.isnan()
    matters = unknown & before_last_known(targets)
    few = matters.sum(1) < NUM_SAMPLES.bit_length()  # 2^number <= NUM_SAMPLES
    device = encoding.cnn_logits.device
    sets = _all_completions(targets.nan_to_num(0).bool(), matters & few[:, None]).to(device)
    weights = _log_probs(model, encoding, sets, ~unknown | matters).softmax(1)
    chance = weights.new_zeros(len(weights), 1)
    if not few.all():
        rows = (~few).nonzero().squeeze(1)
        known = torch.where(unknown, 0, 2 * targets - 1)[rows].to(device)
        rows = rows.to(device)
        images = Encoding(encoding.image_embedding[rows], encoding.cnn_logits[rows], [])
        samples = sample_label_sets(model, images, NUM_SAMPLES, seed, known)
        sets[rows], weights[rows] = samples.label_sets, samples.weights
        chance[rows] = 1 / NUM_SAMPLES
    return Completions(sets, weights, chance)


def complete_targets(
    model: HybridNet, encoding: Encoding, targets: Tensor, indices: Tensor, seed: int = 0
) -> Tensor:
    """Targets B×C with a 0 or 1 drawn for each unknown label, from the `Completions`.

    If the decoder reads no labels, all unknown ones are 0. Which set is drawn depends on `seed` and
    the image's index, not on the batch.
    """
    if not (model.decoder.reads_labels and targets.isnan().any()):
        return targets.nan_to_num(0)
    found = complete(model, encoding, targets, seed)
    start = np.random.default_rng(seed).random()
    uniform = torch.from_numpy((start + GOLDEN * indices.cpu().numpy()) % 1)
    up_to = found.weights.double().cumsum(1).cpu()
    chosen = (up_to < uniform[:, None]).sum(1).clamp_max(NUM_SAMPLES - 1)
    drawn = found.label_sets.cpu()[torch.arange(len(chosen)), chosen]
    return drawn.to(targets)


def before_last_known(targets: Tensor) -> Tensor:
    """B×C bool: the labels ranked before the last known one of their image; NaN is unknown."""
    known = ~targets.isnan()
    return known.flip(1).cumsum(1).flip(1) > known.long()


def _all_completions(sets: Tensor, unknown: Tensor) -> Tensor:
    """The sets B×C with every choice for their `unknown` labels: B×NUM_SAMPLES×C.

    No image has more choices than NUM_SAMPLES. One with fewer has each of its sets equally often,
    so that its draw does not depend on the others.
    """
    most = NUM_SAMPLES.bit_length() - 1
    choices = torch.arange(2**most, device=sets.device)
    bits = (choices[:, None] >> torch.arange(most, device=sets.device)) & 1  # 2^most×most
    number = (unknown.cumsum(1) - 1).clamp(0, most - 1)  # B×C  of each unknown label
    return torch.where(unknown, bits.bool()[:, number], sets).transpose(0, 1)


def _log_probs(model: HybridNet, encoding: Encoding, sets: Tensor, counts: Tensor) -> Tensor:
    """log P of the labels that count, B×C bool, in each of the sets B×K×C: B×K."""
    nats = F.binary_cross_entropy_with_logits(
        logits_of_sets(model, encoding, sets), sets.float(), reduction="none"
    )
    return -(nats * counts.to(nats)[:, None]).sum(2)


def logits_of_sets(model: HybridNet, encoding: Encoding, sets: Tensor) -> Tensor:
    """The logits of each label of the sets B×K×C, given the labels of its set before it: B×K×C."""
    images = (encoding.image_embedding, encoding.cnn_logits)
    repeated = (x.repeat_interleave(sets.shape[1], 0) for x in images)
    return model.set_logits(Encoding(*repeated, []), sets.flatten(0, 1)).view(sets.shape)
