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
    set_nll: np.ndarray  # N  -log P(known targets | image), nats; not given the rules
    log_kept: np.ndarray | None = None  # N  log P(rules are kept | image); None without rules
    unknown: np.ndarray | None = None  # N×C bool  labels that may be there or not; None: nowhere

    @classmethod
    def join(cls, batches: Iterable[Predictions]) -> Predictions:
        """The predictions of several batches, in order."""
        batches = list(batches)
        if any(b.unknown is not None for b in batches):  # not all batches need have some
            batches = [replace(b, unknown=b.unknown_mask()) for b in batches]
        rows = [[getattr(b, field.name) for field in fields(cls)] for b in batches]
        columns = zip(*rows, strict=True)
        return cls(*(None if c[0] is None else np.concatenate(c) for c in columns))

    @property
    def known(self) -> np.ndarray | None:
        """N×C bool: the image-label pairs that count; None: all."""
        return None if self.unknown is None else ~self.unknown

    def unknown_mask(self) -> np.ndarray:
        """`unknown`, also where no label is: N×C bool."""
        return np.zeros_like(self.targets) if self.unknown is None else self.unknown

    def select(self, rows: np.ndarray) -> Predictions:
        """The predictions of these images, in this order."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Predictions(*(None if c is None else c[rows] for c in columns))


def decode(
    model: HybridNet,
    encoding: Encoding,
    targets: Tensor,
    num_samples: int = 32,
    rules: LabelRules | None = None,
) -> Predictions:
    """The predictions for a batch of encoded images and its targets B×C, given the rules.

    Targets are 1, 0 or NaN: unknown. Raises NotFiniteError.
    """
    unknown = targets.isnan()
    nll = set_nll(model, encoding, targets, unknown, num_samples)
    samples = sample_label_sets(model, encoding, num_samples, rules=rules)
    best = most_probable_sets(model, encoding, rules=rules)
    f1 = expected_f1_sets(samples.label_sets, samples.weights)
    if rules:
        f1 = valid_f1_sets(f1, samples.label_sets, samples.weights, rules)
    check_finite(samples.marginals, nll)
    best_sets = best.label_sets[:, 0]
    columns = [targets == 1, samples.marginals, best_sets, f1, best.certain, nll]
    log_kept = samples.log_evidence.cpu().numpy() if rules else None
    found = (column.cpu().numpy() for column in columns)
    return Predictions(*found, log_kept, unknown.cpu().numpy() if unknown.any() else None)


@torch.no_grad()
def set_nll(
    model: HybridNet, encoding: Encoding, targets: Tensor, unknown: Tensor, num_samples: int
) -> Tensor:
    """-log P(known targets | image): B nats.

    Exact for images without `unknown` labels, B×C bool, and if the decoder reads no labels. For
    others the sum over the unknown ones is estimated from sampled sets.
    """
    if not unknown.any():
        return bernoulli_nll(model.set_logits(encoding, targets), targets)
    if not model.decoder.reads_labels:
        targets = targets.nan_to_num(0)
        return bernoulli_nll(model.set_logits(encoding, targets), targets, ~unknown)
    known = torch.where(unknown, 0, 2 * targets - 1)
    return -sample_label_sets(model, encoding, num_samples, known=known).log_evidence


class NotFiniteError(UsageError):
    """What a network computed is not finite: it would look like certainty."""


def check_finite(*tensors: Tensor) -> None:
    """Raise NotFiniteError unless all numbers are finite."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise NotFiniteError(
            "the network gives no finite probabilities for an image: its weights are damaged; "
            "train it again"
        )


@torch.no_grad()
def encode_batches(
    model: HybridNet, batches: Iterable, autocast: torch.autocast
) -> Iterator[tuple[Encoding, Tensor, Tensor]]:
    """Batches (images, targets, indices) -> (encoding, targets, indices), on the model's device.

    Raises NotFiniteError.
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
