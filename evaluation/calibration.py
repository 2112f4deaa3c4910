"""Calibration: its error, and what is fitted on held-out training images.

    targets N×C (0/1)   truth          scores, marginals N×C   label probabilities
    known   N×C bool    the image-label pairs whose truth is known: only these count; None: all

The fits must never see the split that is reported. Scores that are nan raise ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

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
    if known is not None:
        prior = np.broadcast_to(prior, logits.shape)
        targets, logits, prior = known_pairs(known, targets, logits, prior)
    signs = np.where(targets, -1.0, 1.0)

    def loss(fitted: np.ndarray) -> tuple[float, np.ndarray]:
        tempered = logits * np.exp(-fitted[0])
        z = tempered + fitted[1] * prior
        nats = np.logaddexp(0, signs * z).sum() + 8 * fitted @ fitted
        slopes = scipy.special.expit(z) - targets
        gradient = [-(slopes * tempered).sum(), (slopes * prior).sum()]
        return nats, gradient + 16 * fitted

    log_temperature, weight = scipy.optimize.minimize(
        loss, (0, 0), jac=True, bounds=[(-2, 2), (-1, 1)]
    ).x
    return float(np.exp(log_temperature)), float(weight)


@dataclass(frozen=True)
class SampledSets:
    """K label sets sampled for each of M images.

    Of a set, logit j is given the image and the set's labels ranked before j.
    """

    targets: np.ndarray  # M×C  the truth; NaN where unknown
    label_sets: np.ndarray  # M×K×C bool
    logits: np.ndarray  # M×K×C  not calibrated
    drawn_with: np.ndarray  # M×K×C  log-probability with which a label was drawn or passed over

    def marginals(self, prior: np.ndarray, fitted: tuple[float, float]) -> np.ndarray:
        """P(label in set | image), M×C, with T and w as `fitted`.

        The average of a label's probability given the labels before it, over the sets. Each set
        counts by how much more probable `fitted` makes those labels than they were when the set
        was drawn (importance sampling).
        """
        z = self.logits / fitted[0] + fitted[1] * prior
        gained = (
            scipy.special.log_expit(np.where(self.label_sets, z, -z)) - self.drawn_with
        ).cumsum(2)
        before = np.pad(gained[..., :-1], ((0, 0), (0, 0), (1, 0)))
        return (scipy.special.softmax(before, axis=1) * scipy.special.expit(z)).sum(
            1, dtype=np.float64
        )  # 1 - p > 0


def refine_calibration(
    start: tuple[float, float],
    targets: np.ndarray,
    logits: np.ndarray,
    prior: np.ndarray,
    sampled: SampledSets,
) -> tuple[float, float]:
    """T and w for a decoder that reads labels: those that suit its marginals, too.

    `fit_calibration` sees each label given the true labels before it. A marginal is an average
    over labels that the decoder chose itself, whose mistakes add up: it is too extreme. So this
    fit adds the marginals' binary cross-entropy to that of the conditionals, both per image.

    start: what `fit_calibration` found. Targets, logits N×C and
    prior as there; targets are NaN where unknown.
    """
    known, of_sampled = ~np.isnan(targets), ~np.isnan(sampled.targets)
    signs = np.where(targets == 1, 1.0, -1.0)
    scale = len(targets) / len(sampled.targets)

    def loss(values: np.ndarray) -> float:
        fitted = np.exp(values[0]), values[1]
        conditionals = scipy.special.log_expit(signs * (logits / fitted[0] + fitted[1] * prior))
        marginals = sampled.marginals(prior, fitted).clip(EPSILON, 1 - EPSILON)
        marginals = np.where(sampled.targets == 1, marginals, 1 - marginals)
        nats = -conditionals[known].sum() - scale * np.log(marginals[of_sampled]).sum()
        return nats + 16 * values @ values  # each of both sums has fit_calibration's prior

    begin, bounds = (np.log(start[0]), start[1]), [(-2, 2), (-1, 1)]
    log_temperature, weight = scipy.optimize.minimize(
        loss, begin, bounds=bounds, options={"ftol": 1e-6}
    ).x
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
