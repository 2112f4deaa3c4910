"""Predictions for a whole data set: marginals, label sets and set NLL of each image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from inference.decoding import expected_f1_sets, most_probable_sets, sample_label_sets
from model import Encoding, HybridNet, bernoulli_nll

# rules that choose a label set; evaluation/metrics.py has their descriptions
DECISIONS = ("threshold", "label_f1", "map", "f1")


def predicted_sets(
    p: Predictions, threshold: float | np.ndarray, label_thresholds: list[float] | np.ndarray
) -> dict[str, np.ndarray]:
    """The label sets N×C bool of each decision rule, by its name.

    Thresholds may differ between images: threshold is then N×1, label_thresholds N×C.
    """
    return {
        "threshold": p.marginals >= threshold,
        "label_f1": p.marginals >= np.array(label_thresholds),
        "map": p.best_sets,
        "f1": p.f1_sets,
    }


@dataclass(frozen=True)
class Predictions:
    """Numpy arrays with one row per image, in the loader's order."""

    targets: np.ndarray  # N×C bool
    marginals: np.ndarray  # N×C  P(label in set | image), the label scores
    best_sets: np.ndarray  # N×C bool  the most probable set found
    f1_sets: np.ndarray  # N×C bool  the set with the highest expected F1
    certain: np.ndarray  # N bool  it is proved that no set is more probable
    set_nll: np.ndarray  # N  -log P(targets | image), nats

    @classmethod
    def join(cls, batches: Iterable[Predictions]) -> Predictions:
        """The predictions of several batches, in order."""
        rows = [[getattr(b, field.name) for field in fields(cls)] for b in batches]
        return cls(*(np.concatenate(column) for column in zip(*rows, strict=True)))

    def select(self, rows: np.ndarray) -> Predictions:
        """The predictions of these images, in this order."""
        return Predictions(*(getattr(self, field.name)[rows] for field in fields(self)))

    def without(self, pairs: np.ndarray) -> Predictions:
        """A copy where these image-label pairs, N×C bool, are not true, not predicted and score 0.

        Such a pair is last in its label's ranking and counts in no metric. set_nll is unchanged.
        """
        sets = {k: getattr(self, k) & ~pairs for k in ("targets", "best_sets", "f1_sets")}
        return replace(self, marginals=np.where(pairs, 0, self.marginals), **sets)


def decode(
    model: HybridNet, encoding: Encoding, targets: Tensor, num_samples: int = 32
) -> Predictions:
    """The predictions for a batch of encoded images and its targets B×C."""
    with torch.no_grad():
        nll = bernoulli_nll(model.set_logits(encoding, targets), targets)
    samples = sample_label_sets(model, encoding, num_samples)
    best = most_probable_sets(model, encoding)
    f1 = expected_f1_sets(samples.label_sets, samples.weights)
    best_sets = best.label_sets[:, 0]
    columns = (targets.bool(), samples.marginals, best_sets, f1, best.certain, nll)
    return Predictions(*(column.cpu().numpy() for column in columns))


@torch.no_grad()
def encode_batches(
    model: HybridNet, batches: Iterable, autocast: torch.autocast
) -> Iterator[tuple[Encoding, Tensor, Tensor]]:
    """Batches (images, targets, indices) -> (encoding, targets, indices), on the model's device."""
    model.eval()
    device = next(model.parameters()).device
    for images, targets, indices in batches:
        if not len(images):  # no image of the batch could be read
            continue
        with autocast:
            encoding = model.encode(images.to(device, non_blocking=True))
        yield encoding, targets.to(device, non_blocking=True), indices
