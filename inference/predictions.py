"""A whole data set decoded: marginals, predicted label sets and set NLL per image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from inference.decoding import expected_f1_sets, most_probable_sets, sample_label_sets
from model import Encoding, HybridNet, bernoulli_nll

# rules that turn what is predicted into label sets; tables.RULES says what each does
DECISIONS = ("threshold", "label_f1", "map", "f1")


def predicted_sets(
    p: Predictions, threshold: float, label_thresholds: list[float] | float
) -> dict[str, np.ndarray]:
    """N×C bool by each decision rule's name."""
    return {
        "threshold": p.marginals >= threshold,
        "label_f1": p.marginals >= np.array(label_thresholds),
        "map": p.best_sets,
        "f1": p.f1_sets,
    }


@dataclass(frozen=True)
class Predictions:
    """A whole data set decoded; numpy arrays, one row per image in the loader's order."""

    targets: np.ndarray  # N×C bool
    marginals: np.ndarray  # N×C  the label scores
    best_sets: np.ndarray  # N×C bool  each image's most probable set
    f1_sets: np.ndarray  # N×C bool  the set with the highest expected F1
    certain: np.ndarray  # N bool  whether best_sets is proved to be that
    set_nll: np.ndarray  # N  -log P(targets | image), nats

    @classmethod
    def join(cls, batches: Iterable[Predictions]) -> Predictions:
        """One after the other."""
        rows = [[getattr(b, field.name) for field in fields(cls)] for b in batches]
        return cls(*(np.concatenate(column) for column in zip(*rows, strict=True)))

    def without(self, pairs: np.ndarray) -> Predictions:
        """These of all N×C image-label pairs never true, never predicted and of score 0.

        The last in its label's ranking, such a pair counts in no figure. set_nll stays.
        """
        sets = {k: getattr(self, k) & ~pairs for k in ("targets", "best_sets", "f1_sets")}
        return replace(self, marginals=np.where(pairs, 0, self.marginals), **sets)


def decode(
    model: HybridNet, encoding: Encoding, targets: Tensor, num_samples: int = 32
) -> Predictions:
    """All that is predicted for a batch of encoded images, in numpy."""
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
    """(images, targets, indices) -> (encoding, targets, indices): each image is encoded once."""
    model.eval()
    device = next(model.parameters()).device
    for images, targets, indices in batches:
        if not len(images):  # none of them could be read
            continue
        with autocast:
            encoding = model.encode(images.to(device, non_blocking=True))
        yield encoding, targets.to(device, non_blocking=True), indices
