"""What the distribution over label sets says beyond a prediction.

    reveal_labels       how much better are the other labels known, given some true labels?
    flip_each_label     which annotations are unlikely; which labels depend on each other?
    decode_and_analyse  everything evaluate.py asks, with each image encoded once

Images are given as `Encoding`s, annotated label sets as B×C targets. known: N×C bool, the
image-label pairs whose truth is known; None: all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from evaluation.kept_rules import breaking_labels
from evaluation.metrics import all_metrics
from evaluation.pointing import map_peaks
from evaluation.ranking import only_known
from inference.decoding import most_probable_sets, sample_label_sets
from inference.predictions import Predictions, decode, encode_batches
from inference.rules import LabelRules
from inference.unknown import before_last_known
from model import Encoding, HybridNet, bernoulli_nll
from util.distributed import all_gather, gather_batches
from util.errors import UsageError
from util.log import progress


def reveal_labels(targets: np.ndarray, num_revealed: int, seed: int = 0) -> np.ndarray:
    """N×C float32, 1 at `num_revealed` random true labels of each image (all, if it has fewer).

    `sample_label_sets` takes this as `known`.
    """
    priority = np.random.default_rng(seed).random(targets.shape) * targets  # 0 where not true
    chosen = np.argsort(-priority, axis=1)[:, :num_revealed]
    revealed = np.zeros(targets.shape, np.float32)
    np.put_along_axis(revealed, chosen, 1, axis=1)
    return revealed * targets


@dataclass(frozen=True)
class Flips:
    """Each annotated label set compared with the same set with one label flipped."""

    flip_logit: Tensor  # B×C  log P(label l flipped | image) - log P(as annotated | image)
    influence: Tensor  # C×C  z_j with label i on the image minus without it, summed over images


@torch.no_grad()
def flip_each_label(model: HybridNet, encoding: Encoding, targets: Tensor) -> Flips:
    """Flip each label of the annotated sets in turn and compute the teacher-forced logits again.

    flip_logit is the log-odds that the annotation of l is wrong, given the image and *all* other
    annotations: the two sets differ in l alone, so the rest of the distribution cancels.
    influence[i, j] is the log odds ratio of i and j given the image and the annotated labels
    ranked before j (0 for j <= i). Like any odds ratio it is symmetric in i and j.

    NaN in targets means unknown: the decoder then reads the most probable set given the known
    labels. What flip_logit has of an unknown label is of no use.
    """
    targets, counted = targets.float(), None
    if (unknown := targets.isnan()).any():
        counted = ~unknown | before_last_known(targets)  # the sum over all labels after them is 1
        facts = (2 * targets - 1).nan_to_num(0)
        targets = most_probable_sets(model, encoding, known=facts).label_sets[:, 0].float()
    base = model.set_logits(encoding, targets)  # B×C
    base_nll = bernoulli_nll(base, targets, counted)
    flip_logits, influence = [], []
    # seconds for each image if there are thousands of labels
    for i in progress(range(targets.shape[1]), "flipping each label", "labels"):
        flipped = targets.clone()
        flipped[:, i] = 1 - flipped[:, i]
        z = model.set_logits(encoding, flipped)
        flip_logits.append(base_nll - bernoulli_nll(z, flipped, counted))
        influence.append(((z - base) * (2 * flipped[:, i : i + 1] - 1)).sum(0))
    # the decoder reads labels in rank order: flipping i changes only the logits after it
    return Flips(torch.stack(flip_logits, 1), torch.stack(influence).triu(1))


def label_issues(
    flip_logit: np.ndarray,
    targets: np.ndarray,
    how_many: int,
    rules: LabelRules | None = None,
    known: np.ndarray | None = None,
) -> Iterator[tuple]:
    """The annotations most likely wrong, worst first: (image, label, 'missing' or 'surplus', P).

    flip_logit is N×C, as in `Flips`. P is the probability that the annotation is right, given the
    image and its other annotations; the order is that of `suspicions`. Annotations that break a
    rule come first. Labels that the annotations leave open are not listed.
    """
    targets = only_known(targets, known)
    num_images = len(targets) if known is None else known.sum(0)
    doubts = suspicions(flip_logit, targets, targets.sum(0), num_images)
    if rules:
        doubts += (np.ptp(doubts) + 1) * breaking_labels(doubts, targets, rules, known)
    order = np.argsort(-doubts, axis=None, kind="stable")
    if known is not None:
        order = order[known.ravel()[order]]
    for position in order[:how_many]:
        image, label = divmod(int(position), flip_logit.shape[1])
        kind = "surplus" if targets[image, label] else "missing"
        yield image, label, kind, float(1 / (1 + np.exp(np.float64(flip_logit[image, label]))))


def suspicions(
    flip_logit: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    num_images: int | np.ndarray,
) -> np.ndarray:
    """Log-odds, N×C, that annotations are errors, up to a constant.

    flip_logit is N×C, as in `Flips`; counts C, on how many of `num_images` images a label is; if
    these differ between labels, num_images is C, too. By Bayes' rule how errors arise counts, too:
    a label is as often added wrongly as it is forgotten. So the odds that a surplus label is wrong
    are multiplied by the odds of its frequency. Otherwise a rare label that is right would come
    before all errors, because the model has seen few of it.
    """
    odds = counts / (num_images - counts + 1)  # 1: never infinite
    return flip_logit + np.log(np.where(targets, np.broadcast_to(odds, targets.shape), 1))


def co_occurrence(targets: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """C×C log odds ratio of every two labels in N×C annotations, shrunk towards independence.

    One image with both labels is added, and as many with one or none as would match it if the
    labels were independent. Without this, ratios of rare labels would be mostly chance. It is 0
    for a label on no image or on all. The images of a pair are those on which both are known.
    """
    on = only_known(targets, known).astype(float)
    count, both = on.sum(0), on.T @ on
    num_images, num_pairs, seen = len(on), len(on), count[:, None]
    if known is not None:
        known = known.astype(float)
        # seen[i, j]: images that have i and on which j is known
        num_images, num_pairs, seen = known.sum(0), known.T @ known, on.T @ known
    one, other = seen - both, seen.T - both
    neither = num_pairs - both - one - other
    varies = (count > 0) & (count < num_images)
    u = np.where(varies, (num_images - count) / np.maximum(count, 1), 1)  # odds of absence
    odds = (both + 1) * (neither + np.outer(u, u)) / ((one + u[None, :]) * (other + u[:, None]))
    ratio = np.log(np.where(np.outer(varies, varies), odds, 1))
    np.fill_diagonal(ratio, 0)
    return ratio


@dataclass(frozen=True)
class Decoded:
    """The predictions and analyses of a data set; None for what was not asked.

    Images that cannot be read are missing if they are to be skipped.
    """

    indices: np.ndarray  # N  which images of the data set
    predictions: Predictions
    conditioned: np.ndarray | None  # N×C  marginals given the revealed labels
    flip_logit: np.ndarray | None  # N×C  of each annotation, see `Flips`
    influence: np.ndarray | None  # C×C  mean over images, symmetric
    peaks: np.ndarray | None  # N×C×2  of the class activation maps, see `map_peaks`

    @classmethod
    def join(cls, parts: Sequence[Decoded]) -> Decoded:
        """Several parts of a data set as one, in the order of their indices."""
        indices = np.concatenate([part.indices for part in parts])
        order = indices.argsort()

        def ordered(name: str) -> np.ndarray | None:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else np.concatenate(columns)[order]

        p = Predictions.join(part.predictions for part in parts)
        influence = None
        if parts[0].influence is not None:
            influence = sum(len(part.indices) / len(indices) * part.influence for part in parts)
        rows = ("conditioned", "flip_logit")
        return cls(
            indices[order], p.select(order), *map(ordered, rows), influence, ordered("peaks")
        )


@dataclass(frozen=True)
class Questions:
    """What is computed of each image.

    num_samples: label sets sampled per image for the marginals. revealed: N×C, see `reveal_labels`.
    flips: whether to flip each annotation. peaks: whether to find the class activation maps' peaks.
    rules: given for all predictions, not for the flips.
    """

    num_samples: int
    revealed: np.ndarray | None = None
    flips: bool = False
    peaks: bool = False
    rules: LabelRules | None = None

    def select(self, rows: np.ndarray) -> Questions:
        """The same of the images at these positions."""
        return self if self.revealed is None else replace(self, revealed=self.revealed[rows])


def decode_and_analyse(
    model: HybridNet, batches: Iterable, amp: torch.autocast, asked: Questions
) -> Decoded:
    """Encode each image once and compute everything asked."""
    places, rows, conditioned, flip_logits, influence, points = [], [], [], [], 0.0, []
    for encoding, targets, indices in encode_batches(model, batches, amp):
        places.append(indices.numpy())
        rows.append(decode(model, encoding, targets, asked.num_samples, asked.rules))
        if asked.revealed is not None:
            facts = torch.from_numpy(asked.revealed[indices.numpy()]).to(targets.device)
            samples = sample_label_sets(
                model, encoding, asked.num_samples, known=facts, rules=asked.rules
            )
            conditioned.append(samples.marginals.cpu().numpy())
        if asked.flips:
            found = flip_each_label(model, encoding, targets)
            flip_logits.append(found.flip_logit.cpu().numpy())
            influence = influence + found.influence.double().cpu().numpy()
        if asked.peaks:
            points.append(map_peaks(encoding))
    columns = (places, rows, conditioned, flip_logits, points)
    places, rows, conditioned, flip_logits, points = map(gather_batches, columns)
    if not rows:
        raise UsageError("none of the images can be read")
    p = Predictions.join(rows)
    influence = sum(all_gather(influence)) / len(p.targets)
    decoded = Decoded(
        np.concatenate(places),
        p,
        np.concatenate(conditioned) if conditioned else None,
        np.concatenate(flip_logits) if flip_logits else None,
        influence + influence.T if asked.flips else None,
        np.concatenate(points) if points else None,
    )
    return Decoded.join([decoded])  # sorted: processes that skip images mix up the order


def reveal_results(
    decoded: Decoded, revealed: np.ndarray, num_revealed: int, threshold: np.ndarray
) -> dict:
    """What --reveal adds: the metrics of the other labels before and after conditioning.

    threshold: N×1, of each image's model.
    """
    p = decoded.predictions
    rest = revealed == 0 if p.known is None else (revealed == 0) & p.known
    return {
        "labels_per_image": num_revealed,
        "before": metrics_of_the_rest(p.targets, p.marginals, rest, threshold),
        "after": metrics_of_the_rest(p.targets, decoded.conditioned, rest, threshold),
    }


def issue_results(
    decoded: Decoded,
    how_many: int,
    file_names: list[str],
    paths: list,
    labels: tuple[str, ...],
    rules: LabelRules | None,
) -> list[dict]:
    """What --label_issues adds: the most suspicious annotations, with their images' files.

    marginal: P(label in set | image), which knows nothing of the image's other annotations.
    """
    p = decoded.predictions
    found = label_issues(decoded.flip_logit, p.targets, how_many, rules, p.known)
    return [
        {
            "image": str(paths[image]),
            "file_name": file_names[image],
            "label": labels[label],
            "annotation": annotation,
            "probability": probability,
            "marginal": float(p.marginals[image, label]),
        }
        for image, label, annotation, probability in found
    ]


def influence_agreement(
    influence: np.ndarray, targets: np.ndarray, known: np.ndarray | None
) -> float:
    """Rank correlation of the C×C label influence with co-occurrence; nan if there is none."""
    pairs = np.triu_indices(len(influence), 1)
    ours, theirs = influence[pairs], co_occurrence(targets, known)[pairs]
    return (
        float(scipy.stats.spearmanr(ours, theirs).statistic)
        if ours.any() and theirs.any()
        else np.nan
    )


def metrics_of_the_rest(
    targets: np.ndarray, scores: np.ndarray, rest: np.ndarray, threshold: np.ndarray
) -> dict[str, float]:
    """mAP, CF1 and OF1 over the image-label pairs `rest`, N×C bool."""
    found = all_metrics(targets, scores, {"threshold": scores >= threshold}, known=rest)
    by_threshold = found["predicted_sets"]["threshold"]
    return {"mAP": found["mAP"], **{name: by_threshold[name] for name in ("CF1", "OF1")}}
