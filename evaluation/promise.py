"""Thresholds that promise a precision or a recall, fitted on the hold-out.

    targets N×C (0/1)   truth          marginals N×C   label probabilities
    known   N×C bool    the image-label pairs whose truth is known; None: all of them

A promise holds on new images like these with probability CONFIDENCE, for any N and any model. The
method is Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, 2021, arXiv 2110.01052):
each threshold of GRID is a hypothesis, "precision is below the target here". The thresholds are
tested in an order that does not depend on these images, so that with probability CONFIDENCE no
wrong one is accepted. Of the accepted thresholds the one with the highest recall is used.

The image is the unit: labels of the same image are not independent. So precision over all labels
is tested rank by rank, because an image has one label of each rank: if the labels of each rank are
right often enough, all of them are. Where an image counts at most once, the number of right labels
is binomial, and the test is exact (Clopper and Pearson, 1934).

A pair whose truth is unknown is neither right nor wrong: it is not counted as said, and the
promise is about known pairs alone.

The guarantee needs images that chose nothing else, see docs/PROMISE.md.
"""

from __future__ import annotations

import numpy as np
import scipy
import torch

from evaluation.ranking import unknown_last
from inference.promises import CONFIDENCE, MOST, NEVER, TARGETS, rank_labels

# thresholds that are tried, from high to low; float32, as marginals and checkpoints are
GRID = (1 / (1 + np.exp(np.linspace(-9, 9, 181)))).astype(np.float32)
STARTS = (0.0, 0.5)  # where tests of precision begin, as shares of the way from target to 1
BETS = np.array([1, 1 / 2, 1 / 4, 1 / 8, 1 / 16])  # shares of the highest bet
T_VALUES = np.array(TARGETS)[:, None]  # T×1


def fit_promises(
    targets: np.ndarray,
    marginals: np.ndarray,
    most_labels: int = 0,
    known: np.ndarray | None = None,
) -> dict:
    """The checkpoint's part `promises`, see inference/promises.py.

    most_labels: the most labels that an image can have, for recall over all labels; 0: C.
    """
    num_labels, marginals = targets.shape[1], marginals.astype(np.float32)
    truth, scores = unknown_last(targets, marginals, known)
    order = rank_labels(marginals)[0][:, :MOST]  # an unknown label has its rank, too
    of_ranks = count_above(*(np.take_along_axis(a, order, axis=1) for a in (truth, scores)))
    of_labels = count_above(truth, scores)
    found = {
        "precision": rank_precision(*of_ranks),
        "recall": recall_over_all(truth, marginals, most_labels or num_labels)[:, None],
        "label_precision": label_precision(*of_labels),
        "label_recall": label_recall(of_labels[1], truth.sum(0)),
    }
    tensors = {kind: torch.from_numpy(rows.astype(np.float32)) for kind, rows in found.items()}
    return {"num_images": len(targets), **tensors}


def count_above(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For G thresholds and K columns: how many scores N×K reach it, and how many true ones do."""
    counts = np.empty((2, len(GRID), scores.shape[1]), int)
    for k, (true, column) in enumerate(zip(truth.T, scores.T, strict=True)):
        for rows, values in zip(counts, (np.sort(column), np.sort(column[true])), strict=True):
            rows[:, k] = len(values) - np.searchsorted(values, GRID)
    return counts[0], counts[1]


def p_values(hits: np.ndarray, total: np.ndarray) -> np.ndarray:
    """P(Binomial(total, target) >= hits), G×T×K for each of TARGETS; hits, total: G×K.

    It is p of the hypothesis that the true share is below the target. 1 where nothing is hit.
    """
    hits, total = hits[:, None], total[:, None]
    return np.where(
        hits > 0, scipy.special.betainc(np.maximum(hits, 1), total - hits + 1.0, T_VALUES), 1.0
    )


def accept(p: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of G hypotheses are rejected, so their thresholds accepted: G×… bool; and levels.

    p: G×…, in the order of testing. levels: G×…, the level that each hypothesis is given. Where one
    is rejected, its level is added to that of the next one; else it is lost. The last one's is
    returned. The probability of any wrong rejection is at most the sum of the levels, for any
    dependence of the p (the fallback procedure: Wiens, Pharmaceutical Statistics 2, 2003).
    """
    level, accepted = np.zeros(p.shape[1:]), np.empty(p.shape, bool)
    for g in range(len(p)):
        level = level + levels[g]
        accepted[g] = (p[g] <= level) & (level > 0)  # a tiny p may be rounded to 0
        level = level * accepted[g]
    return accepted, level


def start_levels() -> np.ndarray:
    """G×T, each column with sum 1: how the level is shared between thresholds for precision.

    With calibrated marginals the labels above the target are right more often than the target. The
    test begins at several places: above the highest ones there may be too few labels.
    """
    starts = T_VALUES + np.array(STARTS) * (1 - T_VALUES)  # T×S
    nearest = np.abs(GRID[:, None, None] - starts).argmin(0)
    return (nearest == np.arange(len(GRID))[:, None, None]).mean(2)


def rank_precision(said: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """T×R thresholds for an image's most probable label, the next, …; a row never falls.

    said, hits: G×R. Rank k gets the level 2^-k (1 - CONFIDENCE), and that of the rank before it if
    that one is accepted down to the lowest threshold.
    """
    p, starts = p_values(hits, said), start_levels()
    thresholds = np.full((len(TARGETS), said.shape[1]), NEVER)
    left, lowest = 0.0, np.zeros(len(TARGETS))
    for k in range(said.shape[1]):
        level = (1 - CONFIDENCE) / 2 ** (k + 1) + left
        accepted, left = accept(p[:, :, k], level * starts)
        good = accepted & (lowest <= GRID[:, None])
        lowest = np.where(good, GRID[:, None], NEVER).min(0)
        thresholds[:, k] = lowest
        if (lowest >= NEVER).all():
            break
    return thresholds


def label_precision(said: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """T×C thresholds, each for one label alone; said, hits: G×C."""
    levels = (1 - CONFIDENCE) * start_levels()[..., None]
    accepted, _ = accept(p_values(hits, said), levels)
    return np.where(accepted, GRID[:, None, None], NEVER).min(0)


def label_recall(hits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """T×C thresholds, each for one label alone. hits: G×C; true: C, images with the label."""
    return _highest(p_values(hits, np.broadcast_to(true, hits.shape)))


def recall_over_all(truth: np.ndarray, marginals: np.ndarray, most: int) -> np.ndarray:
    """One threshold for each of TARGETS. most: labels that an image can have.

    An image with m labels, h of them said, loses target m - h: recall is below the target where
    the mean loss is above 0. A better bets against this, for each image the same share of the most
    that can be lost. If it is true, the expected wealth is at most 1, so wealth 1 / p has
    probability p (Waudby-Smith and Ramdas, JRSS B 2024, section 4). The wealth is the mean over
    several shares, so the order of the images does not matter.
    """
    images, labels = truth.nonzero()
    scores, num_true = marginals.astype(np.float32)[images, labels], truth.sum(1)
    most, base = max(most, num_true.max(initial=1)), num_true.max(initial=0) + 1
    bets = BETS / (T_VALUES * most)  # T×B
    p = np.ones((len(GRID), len(TARGETS)))
    for g, threshold in enumerate(GRID):
        hits = np.bincount(images[scores >= threshold], minlength=len(truth))
        kinds = np.bincount(num_true * base + hits)  # images with so many true and said labels
        true, hit = np.divmod(kinds.nonzero()[0], base)
        lost = bets[..., None] * (T_VALUES * true - hit)[:, None]  # T×B×kinds
        with np.errstate(divide="ignore"):  # all can be lost
            log_wealth = np.log1p(-np.minimum(lost, 1)) @ kinds[kinds > 0]
        p[g] = np.minimum(1 / np.exp(np.minimum(log_wealth, 500)).mean(1), 1)
    return _highest(p)


def _highest(p: np.ndarray) -> np.ndarray:
    """The highest thresholds that are accepted before any is not, from low to high; p: G×….

    Recall falls as the threshold rises, so all the level is given to the lowest one. 0 if that is
    not accepted: every label is said then, which is a recall of 1.
    """
    levels = np.zeros(len(GRID))
    levels[0] = 1 - CONFIDENCE
    accepted, _ = accept(p[::-1], levels)
    thresholds = GRID[::-1].reshape(-1, *[1] * (p.ndim - 1))
    return np.where(accepted, thresholds, 0).max(0)
