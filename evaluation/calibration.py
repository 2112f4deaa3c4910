"""Calibration and decision thresholds, fitted on held-out training images."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from evaluation.metrics import EPSILON, _at_positives


def fit_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    """The one threshold (predict where score >= it) with the highest OF1; 0.5 if nothing is true.

    To be called on held-out training images, never on the split that is reported.
    """
    targets = targets.astype(bool)
    if not targets.any():
        return 0.5
    # the best one cuts just below a true label: any lower only adds wrong ones
    positives, hits, seen = (values[::-1] for values in _at_positives(targets, scores))
    lowest = positives[np.argmax(hits / (seen + len(positives)))]
    following = scores[scores < lowest].max(initial=0)
    return float((lowest + following) / 2)  # half-way, so that it carries over


def fit_label_thresholds(marginals: np.ndarray) -> np.ndarray:
    """C thresholds, each with the highest F1 to be expected of its label; marginals N×C in 0..1.

    No truth is asked for: of the n most probable images as many have the label as their marginals
    add up to, if these are calibrated, and the best threshold is half the F1 that it reaches
    (Lipton et al., ECML PKDD 2014). A rare label is true of a handful of the hold-out's
    images, too few to fit anything to; a marginal it has on each.
    """
    ranked = -np.sort(-marginals.astype(np.float64), axis=0)
    said, true = np.arange(1, len(ranked) + 1)[:, None], ranked.sum(0)
    return np.maximum((ranked.cumsum(0) / (said + true)).max(0), EPSILON)


def fit_calibration(
    targets: np.ndarray, logits: np.ndarray, prior: np.ndarray
) -> tuple[float, float]:
    """T and w for which z / T + w p has the lowest binary cross-entropy: z N×C, p the C priors.

    Guo et al.'s temperature (ICML 2017) beside a weight for the log-odds of the labels' rates: one
    draws all to 1/2, the other back to where each label is without an image.

    To be called on held-out training images. log T and w have normal priors of standard deviation
    1/4, which hundreds of labels outweigh and a handful, from which nothing can be told, do not.
    """
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
