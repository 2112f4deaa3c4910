"""What the distribution over label sets says beyond a prediction.

    reveal_labels      how much better are the other labels known, once one is conditioned?
    flip_each_label    which annotations does the model find unlikely; which labels go together?
    decode_and_analyse         everything evaluate.py asks, of each image once

Images are encoded already, as in decoding.py; annotated sets are B×C targets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader

from evaluation.metrics import all_metrics
from inference.decoding import sample_label_sets
from inference.predictions import Predictions, decode, encode_batches
from model import Encoding, HybridNet, bernoulli_nll
from util.distributed import all_gather, gather_batches


def reveal_labels(targets: np.ndarray, num_revealed: int, seed: int = 0) -> np.ndarray:
    """N×C float32, 1 at `num_revealed` random true labels of each image (at all, if it has fewer).

    What `sample_label_sets` takes as `known`.
    """
    lottery = np.random.default_rng(seed).random(targets.shape) * targets  # 0 where not true
    drawn = np.argsort(-lottery, axis=1)[:, :num_revealed]
    known = np.zeros(targets.shape, np.float32)
    np.put_along_axis(known, drawn, 1, axis=1)
    return known * targets


@dataclass(frozen=True)
class Flips:
    """Each annotated set against the same set with one label flipped."""

    flip_logit: Tensor  # B×C  log P(label l flipped | image) - log P(as annotated | image)
    influence: Tensor  # C×C  z_j with label i on the image minus without it, summed over images


@torch.no_grad()
def flip_each_label(model: HybridNet, encoding: Encoding, targets: Tensor) -> Flips:
    """Put each label on, or take it off, and read the teacher-forced log-odds again.

    flip_logit is the log-odds that the annotation of l is wrong, given the image and *all* other
    annotations: both sets differ in l alone, so nothing else of the distribution enters.
    influence[i, j] is the log odds ratio of i and j given the image and the annotated labels
    ranked before j (0 for j <= i); as such it is symmetric: it also says what j does to i.
    """
    targets = targets.float()
    base = model.set_logits(encoding, targets)  # B×C
    base_nll = bernoulli_nll(base, targets)
    flip_logits, influence = [], []
    for i in range(targets.shape[1]):
        flipped = targets.clone()
        flipped[:, i] = 1 - flipped[:, i]
        z = model.set_logits(encoding, flipped)
        flip_logits.append(base_nll - bernoulli_nll(z, flipped))
        influence.append(((z - base) * (2 * flipped[:, i : i + 1] - 1)).sum(0))
    # labels up to i have not read i
    return Flips(torch.stack(flip_logits, 1), torch.stack(influence).triu(1))


def label_issues(flip_logit: np.ndarray, targets: np.ndarray, how_many: int) -> Iterator[tuple]:
    """The annotations most likely wrong, worst first: (image, label, 'missing' or 'surplus', P).

    flip_logit N×C as in `Flips`; P is the probability of the annotation as it stands, given the
    image and the image's other annotations.
    """
    for where in np.argsort(-flip_logit, axis=None, kind="stable")[:how_many]:
        image, label = divmod(int(where), flip_logit.shape[1])
        kind = "surplus" if targets[image, label] else "missing"
        yield image, label, kind, float(1 / (1 + np.exp(np.float64(flip_logit[image, label]))))


def co_occurrence(targets: np.ndarray) -> np.ndarray:
    """C×C log odds ratio of each two labels in N×C annotations, shrunk towards independence.

    One more image with both labels is counted, and as many of the other three kinds as would go
    with it if the labels were independent: rare labels would make the plain ratio a lottery. It
    is 0 for a label on no image, or on all.
    """
    there = targets.astype(float)
    count, both = there.sum(0), there.T @ there
    one, other = count[:, None] - both, count[None, :] - both
    neither = len(there) - both - one - other
    varies = (count > 0) & (count < len(there))
    u = np.where(varies, (len(there) - count) / np.maximum(count, 1), 1)  # odds of absence
    odds = (both + 1) * (neither + np.outer(u, u)) / ((one + u[None, :]) * (other + u[:, None]))
    ratio = np.log(np.where(np.outer(varies, varies), odds, 1))
    np.fill_diagonal(ratio, 0)
    return ratio


@dataclass(frozen=True)
class Decoded:
    """All that the images were asked for; None where a flag did not ask."""

    predictions: Predictions
    conditioned: np.ndarray | None  # N×C  marginals given the revealed labels
    flip_logit: np.ndarray | None  # N×C  of flipping each annotation, see insights.Flips
    influence: np.ndarray | None  # C×C  mean over images, symmetric


def decode_and_analyse(
    model: HybridNet,
    loader: DataLoader,
    amp: torch.autocast,
    known: np.ndarray | None,
    args: argparse.Namespace,
) -> Decoded:
    """Encode each image once and ask all that is to be known of it."""
    rows, conditioned, flip_logits, influence = [], [], [], 0.0
    for encoding, targets, indices in encode_batches(model, loader, amp):
        rows.append(decode(model, encoding, targets, args.num_samples))
        if known is not None:
            facts = torch.from_numpy(known[indices.numpy()]).to(targets.device)
            samples = sample_label_sets(model, encoding, args.num_samples, known=facts)
            conditioned.append(samples.marginals.cpu().numpy())
        if args.label_issues or args.influence:
            flips = flip_each_label(model, encoding, targets)
            flip_logits.append(flips.flip_logit.cpu().numpy())
            influence = influence + flips.influence.double().cpu().numpy()
    p = Predictions.join(gather_batches(rows))
    conditioned, flip_logits = gather_batches(conditioned), gather_batches(flip_logits)
    influence = sum(all_gather(influence)) / len(p.targets)
    return Decoded(
        p,
        np.concatenate(conditioned) if conditioned else None,
        np.concatenate(flip_logits) if flip_logits else None,
        influence + influence.T if args.influence else None,
    )


def analysis_results(
    decoded: Decoded,
    known: np.ndarray | None,
    threshold: float,
    paths: list[Path],
    labels: tuple[str, ...],
    args: argparse.Namespace,
) -> dict:
    """What --reveal, --label_issues and --influence add to the results."""
    p, results = decoded.predictions, {}
    if args.reveal:
        results["revealed"] = {
            "labels_per_image": args.reveal,
            "before": metrics_of_the_rest(p.targets, p.marginals, known, threshold),
            "after": metrics_of_the_rest(p.targets, decoded.conditioned, known, threshold),
        }
    if args.label_issues:
        keys = ("image", "label", "annotation", "probability")
        results["label_issues"] = [
            dict(zip(keys, (str(paths[image]), labels[label], *rest), strict=True))
            for image, label, *rest in label_issues(
                decoded.flip_logit, p.targets, args.label_issues
            )
        ]
    if args.influence:
        pairs = np.triu_indices(len(labels), 1)
        ours, theirs = decoded.influence[pairs], co_occurrence(p.targets)[pairs]
        results["influence_agreement"] = (
            float(spearmanr(ours, theirs).statistic) if ours.any() else np.nan
        )
    return results


def metrics_of_the_rest(
    targets: np.ndarray, scores: np.ndarray, known: np.ndarray, threshold: float
) -> dict[str, float]:
    """mAP, CF1 and OF1 over all image-label pairs but those that are known."""
    rest = known == 0
    # the last in its label's ranking, never true, never predicted: such a pair counts nowhere
    targets, scores = targets & rest, np.where(rest, scores, -1)
    found = all_metrics(targets, scores, {"threshold": scores >= threshold})
    by_threshold = found["predicted_sets"]["threshold"]
    return {"mAP": found["mAP"], **{name: by_threshold[name] for name in ("CF1", "OF1")}}
