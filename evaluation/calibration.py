"""Calibration: its error, and what is fitted on held-out training images.

    targets N×C (0/1)   truth          scores, marginals N×C   label probabilities
    known   N×C bool    the image-label pairs whose truth is known: only these count; None: all

The fits must never see the split that is reported. Scores that are nan raise ValueError.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from evaluation.ranking import check_scores, counts_at_positives, known_pairs

EPSILON = 1e-12  # against division by zero
NUM_BINS = 15  # of the ECE and of the calibration diagram


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
) -> tuple[float, float]:
    """T and w for which z / T + w p has the lowest binary cross-entropy: z N×C, p the C priors.

    T is the temperature of Guo et al. (ICML 2017): it pulls all probabilities towards 1/2. The
    prior weight w pulls them towards p, the log-odds of each label's training frequency.

    log T and w have normal priors with standard deviation 1/4. Hundreds of labels outweigh these;
    a handful, too few to fit anything, do not.
    """
    prior = np.broadcast_to(prior, logits.shape)
    targets, logits, prior = known_pairs(known, targets, logits, prior)
    signs = np.where(targets, -1.0, 1.0)

    def loss(fitted: np.ndarray) -> tuple[float, np.ndarray]:
        tempered = logits * np.exp(-fitted[0])
        z = tempered + fitted[1] * prior
        nats = np.logaddexp(0, signs * z).sum() + 8 * fitted @ fitted
        slopes = expit(z) - targets
        gradient = [-(slopes * tempered).sum(), (slopes * prior).sum()]
        return nats, gradient + 16 * fitted

    log_temperature, weight = minimize(loss, (0, 0), jac=True, bounds=[(-2, 2), (-1, 1)]).x
    return float(np.exp(log_temperature)), float(weight)


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
