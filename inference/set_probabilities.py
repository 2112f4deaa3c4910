"""The exact probabilities of given label sets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from model import Encoding, HybridNet


@torch.no_grad()
def log_probs_of(model: HybridNet, encoding: Encoding, label_sets: Tensor) -> Tensor:
    """log P(set | image) of the same sets N×C for all images: B×N float64.

    The decoder reads each beginning of a set once: its state does not depend on the image.
    """
    decoder, images = model.decoder, encoding.cnn_logits
    num_labels, counts = label_sets.shape[1], label_sets.sum(1)
    labels = (~label_sets).int().argsort(dim=1, stable=True)  # N×C  of each set, then all others
    log_probs = images.new_zeros(len(images), len(label_sets), dtype=torch.float64)
    positions = torch.arange(num_labels, device=images.device)
    sets = torch.arange(len(label_sets), device=images.device)  # that have not ended
    node = torch.zeros_like(sets)  # of each set: its labels so far, a decoder state
    last, state = node[:1] - 1, decoder.initial_state(1)
    for step in range(num_labels + 1):
        z = decoder.logits(
            state.repeat(len(images), 1),
            encoding.image_embedding.repeat_interleave(len(state), 0),
            images.repeat_interleave(len(state), 0),
        ).unflatten(0, (len(images), -1))  # B×M×C
        none = torch.where(positions > last[:, None], F.logsigmoid(-z), 0.0).cumsum(2)
        none = F.pad(none, (1, 0))  # B×M×(C+1)  log P(no label before j)
        goes_on = counts[sets] > step
        ended, ended_node = sets[~goes_on], node[~goes_on]
        log_probs[:, ended] += none[:, ended_node, num_labels]
        sets, node = sets[goes_on], node[goes_on]
        if not len(sets):
            break
        label = labels[sets, step]
        log_probs[:, sets] += none[:, node, label] + F.logsigmoid(z)[:, node, label]
        children, node = torch.unique(node * num_labels + label, return_inverse=True)
        last = children % num_labels
        state = decoder.advance(state[children // num_labels], last)
    return log_probs
