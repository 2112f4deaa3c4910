"""Predictions for a whole data set: marginals, label sets and set NLL of each image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from inference.decoding import expected_f1_sets, most_probable_sets, sample_label_sets
from inference.rules import LabelRules
from inference.valid_sets import nearest_valid_sets, valid_f1_sets
from model import Encoding, HybridNet, bernoulli_nll
from util.errors import UsageError

# rules that choose a label set; evaluation/metrics.py has their descriptions
DECISIONS = ("threshold", "label_f1", "map", "f1")


def predicted_sets(
    p: Predictions,
    threshold: float | np.ndarray,
    label_thresholds: list[float] | np.ndarray,
    rules: LabelRules | None = None,
) -> dict[str, np.ndarray]:
    """The label sets N×C bool of each decision rule, by its name.

    Thresholds may differ between images: threshold is then N×1, label_thresholds N×C. rules: those
    that p was decoded with; all sets keep them.
    """
    return {
        "threshold": thresholded_sets(p.marginals, threshold, rules),
        "label_f1": thresholded_sets(p.marginals, np.array(label_thresholds), rules),
        "map": p.best_sets,
        "f1": p.f1_sets,
    }


def thresholded_sets(
    marginals: np.ndarray, threshold: float | np.ndarray, rules: LabelRules | None
) -> np.ndarray:
    """The labels N×C bool with marginals N×C of at least the threshold.

    With rules it is the set that keeps them at the lowest expected cost, see `nearest_valid_sets`.
    """
    if rules is None:
        return marginals >= threshold
    return nearest_valid_sets(marginals.astype(np.float64) - threshold, rules)


@dataclass(frozen=True)
class Predictions:
    """Numpy arrays with one row per image, in the loader's order."""

    targets: np.ndarray  # N×C bool
    marginals: np.ndarray  # N×C  P(label in set | image), the label scores
    best_sets: np.ndarray  # N×C bool  the most probable set found
    f1_sets: np.ndarray  # N×C bool  the set with the highest expected F1
    certain: np.ndarray  # N bool  it is proved that no set is more probable
    set_nll: np.ndarray  # N  -log P(targets | image), nats; not given the rules
    log_kept: np.ndarray | None = None  # N  log P(rules are kept | image); None without rules

    @classmethod
    def join(cls, batches: Iterable[Predictions]) -> Predictions:
        """The predictions of several batches, in order."""
        rows = [[getattr(b, field.name) for field in fields(cls)] for b in batches]
        columns = zip(*rows, strict=True)
        return cls(*(None if c[0] is None else np.concatenate(c) for c in columns))

    def select(self, rows: np.ndarray) -> Predictions:
        """The predictions of these images, in this order."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Predictions(*(None if c is None else c[rows] for c in columns))

    def without(self, pairs: np.ndarray) -> Predictions:
        """A copy where these image-label pairs, N×C bool, are not true, not predicted and score 0.

        Such a pair is last in its label's ranking and counts in no metric. set_nll is unchanged.
        """
        sets = {k: getattr(self, k) & ~pairs for k in ("targets", "best_sets", "f1_sets")}
        return replace(self, marginals=np.where(pairs, 0, self.marginals), **sets)


def decode(
    model: HybridNet,
    encoding: Encoding,
    targets: Tensor,
    num_samples: int = 32,
    rules: LabelRules | None = None,
) -> Predictions:
    """The predictions for a batch of encoded images and its targets B×C, given the rules.

    Raises UsageError if a probability is not finite.
    """
    with torch.no_grad():
        nll = bernoulli_nll(model.set_logits(encoding, targets), targets)
    samples = sample_label_sets(model, encoding, num_samples, rules=rules)
    best = most_probable_sets(model, encoding, rules=rules)
    f1 = expected_f1_sets(samples.label_sets, samples.weights)
    if rules:
        f1 = valid_f1_sets(f1, samples.label_sets, samples.weights, rules)
    check_finite(samples.marginals, nll)
    best_sets = best.label_sets[:, 0]
    columns = [targets.bool(), samples.marginals, best_sets, f1, best.certain, nll]
    if rules:
        columns.append(samples.log_evidence)
    return Predictions(*(column.cpu().numpy() for column in columns))


def check_finite(*tensors: Tensor) -> None:
    """Raise UsageError if what a network computed is not finite: it would look like certainty."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise UsageError(
            "the network gives no finite probabilities for an image: its weights are damaged; "
            "train it again"
        )


@torch.no_grad()
def encode_batches(
    model: HybridNet, batches: Iterable, autocast: torch.autocast
) -> Iterator[tuple[Encoding, Tensor, Tensor]]:
    """Batches (images, targets, indices) -> (encoding, targets, indices), on the model's device.

    Raises UsageError if an encoding is not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    for images, targets, indices in batches:
        if not len(images):  # no image of the batch could be read
            continue
        with autocast:
            encoding = model.encode(images.to(device, non_blocking=True))
        check_finite(encoding.cnn_logits, encoding.image_embedding)
        yield encoding, targets.to(device, non_blocking=True), indices
