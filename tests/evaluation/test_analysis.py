"""Revealed labels, flipped annotations and label influence, checked by enumeration and counting."""

import itertools
import math

import numpy as np
import pytest
import torch
from enumeration import ALL_SETS, NUM_IMAGES, NUM_LABELS, TRAINED, enumerate_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.analysis import (
    co_occurrence,
    flip_each_label,
    label_issues,
    metrics_of_the_rest,
    reveal_labels,
)
from evaluation.metrics import average_precision
from model import DECODERS
from report.influence import clustered_order, colour_limit, save_influence

SETS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 9)))


@given(SETS, st.integers(1, 10), st.integers(0, 3))
def test_revealed_labels_are_true_and_as_many_as_asked(targets, num_revealed, seed):
    known = reveal_labels(targets, num_revealed, seed)
    assert not known[~targets].any()
    assert (known.sum(1) == np.minimum(targets.sum(1), num_revealed)).all()
    assert np.array_equal(known, reveal_labels(targets, num_revealed, seed))


def test_every_true_label_is_revealed_equally_often():
    targets = np.tile([True, False, True, True], (9000, 1))
    share = reveal_labels(targets, 1).mean(0)
    assert np.abs(share - [1 / 3, 0, 1 / 3, 1 / 3]).max() < 5 * math.sqrt(2 / 9 / 9000)


@given(SETS, st.integers(0, 100))
def test_metrics_of_the_rest_leave_out_known_pairs(targets, seed):
    scores = np.random.default_rng(seed).random(targets.shape).round(1)
    known = reveal_labels(targets, 1)
    found = metrics_of_the_rest(targets, scores, known == 0, 0.5)
    ap = [
        average_precision(targets[rest, c : c + 1], scores[rest, c : c + 1])[0]
        for c, rest in enumerate(known.T == 0)
    ]
    if np.isfinite(ap).any():
        assert found["mAP"] == pytest.approx(100 * np.nanmean(ap))
    rest = known == 0
    hits = (targets & (scores >= 0.5))[rest].sum()
    sizes = targets[rest].sum() + (scores >= 0.5)[rest].sum()
    assert found["OF1"] == pytest.approx(100 * 2 * hits / max(sizes, 1))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(DECODERS), st.sampled_from([0, 1, TRAINED]), st.integers(0, 63))
def test_flips_agree_with_enumeration(decoder, seed, row):
    """flip_logit from the probabilities of all sets; influence as a ratio of summed odds."""
    model, encoding, log_probs, _ = enumerate_sets(decoder, seed)
    targets = ALL_SETS[row].expand(NUM_IMAGES, -1)
    flips = flip_each_label(model, encoding, targets)
    weights = 2 ** torch.arange(NUM_LABELS).flip(0)
    for label, weight in enumerate(weights.tolist()):
        expected = log_probs[:, row ^ weight] - log_probs[:, row]
        torch.testing.assert_close(flips.flip_logit[:, label].double(), expected, atol=1e-4, rtol=0)
    for i, j in itertools.product(range(NUM_LABELS), repeat=2):
        if j <= i:
            assert flips.influence[i, j] == 0
            continue
        others = [k for k in range(j) if k != i]
        agree = (ALL_SETS[:, others] == targets[0, others]).all(1)

        def log_p(there_i, there_j, agree=agree, i=i, j=j):
            cell = agree & (ALL_SETS[:, i] == there_i) & (ALL_SETS[:, j] == there_j)
            return log_probs[:, cell].logsumexp(1)

        ratio = log_p(1, 1) + log_p(0, 0) - log_p(1, 0) - log_p(0, 1)
        assert float(flips.influence[i, j]) == pytest.approx(float(ratio.sum()), abs=2e-3)


def test_label_issues_are_sorted_and_named():
    flip_logit = np.array([[-3.0, 2.0], [0.0, 5.0]])
    targets = np.array([[True, False], [True, True]])
    (a, b, c) = label_issues(flip_logit, targets, 3)
    assert a == (1, 1, "surplus", pytest.approx(1 / (1 + math.exp(5))))
    assert b == (0, 1, "missing", pytest.approx(1 / (1 + math.exp(2))))
    assert c == (1, 0, "surplus", 0.5)
    assert len(list(label_issues(flip_logit, targets, 99))) == 4


def test_label_issues_follow_bayes_rule():
    """The order is that of the odds of an error, by enumeration of truth and annotation.

    A true label is forgotten at one rate; each label is added wrongly as often as it is forgotten.
    """
    rng = np.random.default_rng(0)
    targets = rng.random((40, 3)) < (0.6, 0.2, 0.05)
    p = rng.beta(1, 3, targets.shape)  # P(label on the image | image, other annotations)
    flip_logit = np.where(targets, np.log((1 - p) / p), np.log(p / (1 - p)))
    rate = 1e-6  # of both kinds of error; so small that it cancels
    added = rate * targets.sum(0) / ((~targets).sum(0) + 1)
    wrong = np.where(targets, (1 - p) * added, p * rate)
    right = np.where(targets, p * (1 - rate), (1 - p) * (1 - added))
    expected = np.argsort(-(wrong / right), axis=None)
    found = [3 * image + label for image, label, *_ in label_issues(flip_logit, targets, 120)]
    assert found == expected.tolist()


def test_a_rare_label_is_no_error_because_it_is_rare():
    """A model that knows only how frequent labels are doubts no annotated label more than others"""
    targets = np.zeros((999, 2), bool)
    targets[::3, 0], targets[:5, 1] = True, True
    p = targets.sum(0) / 1000
    flip_logit = np.where(targets, np.log((1 - p) / p), np.log(p / (1 - p)))
    found = list(label_issues(flip_logit, targets, int(targets.sum())))
    assert {kind for _, _, kind, _ in found} == {"surplus"}
    assert {label for _, label, *_ in found} == {0, 1}


@given(SETS)
def test_co_occurrence_is_the_log_odds_ratio_of_the_counts(targets):
    ratio = co_occurrence(targets)
    share = targets.mean(0)
    for i, j in itertools.combinations(range(targets.shape[1]), 2):
        expected = 0.0
        if 0 < share[i] < 1 and 0 < share[j] < 1:
            cells = []
            for a, b in ((1, 1), (0, 0), (1, 0), (0, 1)):
                counted = ((targets[:, i] == a) & (targets[:, j] == b)).sum()
                odds = (1 if a else 1 / share[i] - 1) * (1 if b else 1 / share[j] - 1)
                cells.append(counted + odds)
            expected = math.log(cells[0] * cells[1] / (cells[2] * cells[3]))
        assert ratio[i, j] == pytest.approx(ratio[j, i]) == pytest.approx(expected, abs=1e-9)
    assert sorted(clustered_order(ratio)) == list(range(targets.shape[1]))


def test_labels_that_go_together_are_placed_side_by_side():
    scene = np.random.default_rng(0).random((200, 2)) < 0.5
    targets = scene[:, [0, 1, 0, 1, 0, 1]]
    order = clustered_order(co_occurrence(targets))
    assert [c % 2 for c in order] in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_few_labels_and_odd_names_can_be_drawn(tmp_path, num_labels):
    labels = ["$x^2$", "a,b", 'say "hi"'][:num_labels]
    zeros = np.zeros((num_labels, num_labels))
    save_influence(zeros, zeros, labels, tmp_path / "m")
    assert (tmp_path / "m.png").stat().st_size > 0
    assert len((tmp_path / "m.csv").read_text().splitlines()) == num_labels + 1


def test_colour_limit_is_the_strongest_pair_even_if_few_are_not_zero():
    ratio = np.zeros((60, 60))
    assert colour_limit(ratio) == 1
    ratio[3, 5] = ratio[5, 3] = -2.5
    assert colour_limit(ratio) == 2.5
