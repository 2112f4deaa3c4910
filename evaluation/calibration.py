"""Calibration: its error, and what is fitted on held-out training images.

    targets N×C (0/1)   truth          scores, marginals N×C   label probabilities
    known   N×C bool    the image-label pairs whose truth is known: only these count; None: all

The fits must never see the split that is reported. Scores that are nan raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, softmax

from evaluation.ranking import check_scores, counts_at_positives, known_pairs
from model import Calibration

EPSILON = 1e-12  # against division by zero
NUM_BINS = 15  # of the ECE and of the calibration diagram
BOUNDS = [(-2, 2), (-1, 1), (-1, 1)]  # of log T, w and the decoder's weight - 1


def fit_threshold(
    targets: np.ndarray, scores: np.ndarray, known: np.ndarray | None = None
) -> float:
    """The one threshold with the best OF1, where score >= threshold is predicted.

    0.5 if nothing is true.
    """
    targets, scores = known_pairs(known, targets, scores)
    targets = targets.astype(bool)
    if not targets.any():
        return 0.5
    # the best threshold is just below a positive's score: a lower one only adds false positives
    positives, hits, seen = counts_at_positives(targets, scores)
    lowest = positives[np.argmax(hits / (seen + len(positives)))]
    following = scores[scores < lowest].max(initial=0)
    middle = (lowest + following) / 2  # half-way, to carry over to other images
    # the middle of two neighbouring numbers is rounded to one of them, perhaps to the lower one
    return float(middle if middle > following else lowest)


def fit_label_thresholds(marginals: np.ndarray) -> np.ndarray:
    """C thresholds, each with the best expected F1 of its label; marginals N×C in 0..1.

    A rare label has too few positives to fit a threshold on. Calibrated probabilities give its
    expected F1 without the truth, since they add up to the number of positives. The best
    threshold is half of the best expected F1 (Lipton et al., ECML PKDD 2014). As no truth is
    needed, pairs whose truth is unknown count like all others.
    """
    check_scores(marginals)
    ranked = -np.sort(-marginals.astype(np.float64), axis=0)
    predicted, true = np.arange(1, len(ranked) + 1)[:, None], ranked.sum(0)
    return np.maximum((ranked.cumsum(0) / (predicted + true)).max(0), EPSILON)


def fit_calibration(
    targets: np.ndarray,
    logits: np.ndarray,
    prior: np.ndarray,
    known: np.ndarray | None = None,
    of_decoder: np.ndarray | None = None,
) -> Calibration:
    """The calibration with the lowest binary cross-entropy: logits N×C, prior the C log-odds p.

    The temperature T of Guo et al. (ICML 2017) pulls all probabilities towards 1/2, the prior
    weight w towards p, the log-odds of each label's training frequency. of_decoder: N×C, the part
    of the logits that the decoder adds to the CNN's; its weight is fitted, too, or stays 1.

    log T, w and the decoder's weight have normal priors with standard deviation 1/4, around 0, 0
    and 1. Hundreds of labels outweigh these; a handful, too few to fit anything, do not.
    """
    part = np.zeros_like(logits) if of_decoder is None else of_decoder
    prior = np.broadcast_to(prior, logits.shape)
    targets, logits, prior, part = known_pairs(known, targets, logits, prior, part)
    signs = np.where(targets, -1.0, 1.0)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale = np.exp(-values[0])
        tempered = (logits + values[2] * part) * scale
        z = tempered + values[1] * prior
        nats = np.logaddexp(0, signs * z).sum() + 8 * values @ values
        slopes = expit(z) - targets
        gradient = [-(slopes * tempered).sum(), (slopes * prior).sum(), (slopes * part).sum()]
        gradient[2] *= scale
        return nats, np.array(gradient) + 16 * values

    return _calibration(minimize(loss, (0, 0, 0), jac=True, bounds=BOUNDS).x)


def _calibration(values: np.ndarray) -> Calibration:
    """From log T, w and the decoder's weight - 1."""
    return Calibration(float(np.exp(values[0])), float(values[1]), float(1 + values[2]))


@dataclass(frozen=True)
class SampledSets:
    """K label sets sampled for each of M images.

    Of a set, logit j is given the image and the set's labels ranked before j.
    """

    targets: np.ndarray  # M×C  the truth; NaN where unknown
    label_sets: np.ndarray  # M×K×C bool
    logits: np.ndarray  # M×K×C  not calibrated
    of_decoder: np.ndarray  # M×K×C  the decoder's part of them; 0 if its weight is not fitted
    drawn_with: np.ndarray  # M×K×C  log-probability with which a label was drawn or passed over

    def marginals(self, prior: np.ndarray, fitted: Calibration) -> np.ndarray:
        """P(label in set | image), M×C, with the calibration `fitted`.

        The average of a label's probability given the labels before it, over the sets. Each set
        counts by how much more probable `fitted` makes those labels than they were when the set
        was drawn (importance sampling).
        """
        z = calibrated(self.logits, self.of_decoder, prior, fitted)
        gained = (log_expit(np.where(self.label_sets, z, -z)) - self.drawn_with).cumsum(2)
        before = np.pad(gained[..., :-1], ((0, 0), (0, 0), (1, 0)))
        return (softmax(before, axis=1) * expit(z)).sum(1, dtype=np.float64)


def calibrated(
    logits: np.ndarray, of_decoder: np.ndarray, prior: np.ndarray, fitted: Calibration
) -> np.ndarray:
    """Logits of a trained network …×C and the decoder's part of them -> calibrated logits."""
    scores = logits + (fitted.decoder_weight - 1) * of_decoder
    return scores / fitted.temperature + fitted.prior_weight * prior


def refine_calibration(
    start: Calibration,
    targets: np.ndarray,
    logits: np.ndarray,
    prior: np.ndarray,
    of_decoder: np.ndarray,
    sampled: SampledSets,
) -> Calibration:
    """The calibration of a decoder that reads labels: one that suits its marginals, too.

    `fit_calibration` sees each label given the true labels before it. A marginal is an average
    over labels that the decoder chose itself, whose mistakes add up: it is too extreme. So this
    fit adds the marginals' binary cross-entropy to that of the conditionals, both per image.

    start: what `fit_calibration` found. Targets, logits, prior and of_decoder as there; targets
    are NaN where unknown.
    """
    known, of_sampled = ~np.isnan(targets), ~np.isnan(sampled.targets)
    signs = np.where(targets == 1, 1.0, -1.0)
    scale = len(targets) / len(sampled.targets)

    def loss(values: np.ndarray) -> float:
        fitted = _calibration(values)
        conditionals = log_expit(signs * calibrated(logits, of_decoder, prior, fitted))
        marginals = sampled.marginals(prior, fitted).clip(EPSILON, 1 - EPSILON)
        marginals = np.where(sampled.targets == 1, marginals, 1 - marginals)
        nats = -conditionals[known].sum() - scale * np.log(marginals[of_sampled]).sum()
        return nats + 16 * values @ values  # each of both sums has fit_calibration's prior

    begin = np.log(start.temperature), start.prior_weight, start.decoder_weight - 1
    bounds = BOUNDS if of_decoder.any() else [*BOUNDS[:2], (0, 0)]
    return _calibration(minimize(loss, begin, bounds=bounds, options={"ftol": 1e-6}).x)


def expected_calibration_error(
    targets: np.ndarray,
    scores: np.ndarray,
    num_bins: int = NUM_BINS,
    known: np.ndarray | None = None,
) -> float:
    """ECE of all label probabilities in percent, over bins of equal counts."""
    targets, scores = known_pairs(known, targets, scores)
    check_scores(scores)
    ranked, positives = np.sort(scores, axis=None), np.sort(scores[targets.astype(bool)])
    bins = [members for members in np.array_split(ranked, num_bins) if len(members)]
    ends = np.cumsum([len(members) for members in bins])
    last = [members[-1] for members in bins]
    # equal scores share their positives; otherwise their order would decide the bins' counts
    first, after = (np.searchsorted(ranked, last, side) for side in ("left", "right"))
    hits, hits_after = (np.searchsorted(positives, last, side) for side in ("left", "right"))
    hits_at_ends = hits + (ends - first) * (hits_after - hits) / (after - first)
    expected = [members.sum(dtype=np.float64) for members in bins]
    error = np.abs(expected - np.diff(hits_at_ends, prepend=0)).sum()
    return 100 * float(error) / max(targets.size, 1)


def calibration_bins(
    targets: np.ndarray,
    scores: np.ndarray,
    num_bins: int = NUM_BINS,
    known: np.ndarray | None = None,
) -> list[dict[str, float]]:
    """The bins of the ECE, lowest scores first: count, mean score and share of true labels."""
    targets, scores = known_pairs(known, targets, scores)
    check_scores(scores)
    order = np.argsort(scores, axis=None, kind="stable")
    _, value, count = np.unique(scores, return_inverse=True, return_counts=True)
    truth = (np.bincount(value.ravel(), targets.ravel()) / count)[value.ravel()]
    return [
        {
            "count": len(members),
            "score": float(scores.ravel()[members].mean()),
            "true": float(truth[members].mean()),
        }
        for members in np.array_split(order, num_bins)
        if len(members)
    ]
