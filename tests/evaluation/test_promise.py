"""Promised precision and recall: brute-force oracles, and whether promises are kept."""

import argparse
from functools import cache
from math import comb, fsum

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtr

from evaluation import promise
from evaluation.promise import GRID, fit_promises
from evaluation.promise_results import promise_results, rule_meaning
from inference.promises import (
    KINDS,
    MOST,
    NEVER,
    TARGETS,
    decision,
    find_thresholds,
    say,
)
from util.errors import UsageError


def draw(rng, num_images, num_labels=6, spread=2.0, dependence=0.5):
    """Calibrated marginals, and truths that depend on each other within an image."""
    common = rng.normal(size=(num_images, 1))
    p = expit(-1 + spread * rng.normal(size=(num_images, num_labels)) + 0.5 * common).astype("f4")
    own = rng.normal(size=(num_images, num_labels))
    shared = rng.normal(size=(num_images, 1))
    u = ndtr(dependence**0.5 * shared + (1 - dependence) ** 0.5 * own)
    return u < p, p


@cache
def binomial_tail(hits: int, total: int, target: float) -> float:
    """P(Binomial(total, target) >= hits), term by term."""
    powers = (target**k * (1 - target) ** (total - k) for k in range(hits, total + 1))
    return fsum(comb(total, hits + i) * power for i, power in enumerate(powers))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30))
def test_p_values_are_binomial_tails(hits, more):
    found = promise.p_values(np.array([[hits]]), np.array([[hits + more]]))[0, :, 0]
    expected = [binomial_tail(hits, hits + more, target) for target in TARGETS]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def slow_precision(right, scores, target, level):
    """The fallback procedure for one column, image by image and threshold by threshold."""
    starts = [
        min(range(len(GRID)), key=lambda g: abs(float(GRID[g]) - (target + s * (1 - target))))
        for s in promise.STARTS
    ]
    budget, accepted = 0.0, []
    for g, threshold in enumerate(GRID):
        budget += level * starts.count(g) / len(starts)
        said = [r for r, score in zip(right, scores, strict=True) if score >= threshold]
        if budget and binomial_tail(sum(said), len(said), target) <= budget:
            accepted.append(float(threshold))
        else:
            budget = 0.0
    return accepted, budget


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.5, 2.0, 6.0]))
def test_precision_is_as_by_brute_force(seed, num_images, spread):
    targets, p = draw(np.random.default_rng(seed), num_images, 3, spread)
    p = np.round(p, 1)  # ties
    found, row = fit_promises(targets, p), TARGETS.index(0.8)
    for c in range(3):
        accepted, _ = slow_precision(targets[:, c].tolist(), p[:, c].tolist(), 0.8, 0.1)
        expected = min(accepted, default=NEVER)
        assert float(found["label_precision"][row, c]) == pytest.approx(expected)
    left, lowest = 0.0, 0.0
    for k in range(3):
        ranked = [sorted(range(3), key=lambda c, x=x: (-x[c], c))[k] for x in p]
        right = [bool(t[c]) for t, c in zip(targets, ranked, strict=True)]
        scores = [float(x[c]) for x, c in zip(p, ranked, strict=True)]
        accepted, left = slow_precision(right, scores, 0.8, 0.1 / 2 ** (k + 1) + left)
        lowest = min((t for t in accepted if t >= lowest), default=NEVER)
        assert float(found["precision"][row, k]) == pytest.approx(lowest)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_recall_is_as_by_brute_force(seed, num_images):
    targets, p = draw(np.random.default_rng(seed), num_images, 3, 4.0)
    found, row = fit_promises(targets, p, most_labels=3), TARGETS.index(0.8)
    for c in range(3):
        expected = 0.0
        for threshold in GRID[::-1]:
            hits = int((targets[:, c] & (p[:, c] >= threshold)).sum())
            if binomial_tail(hits, int(targets[:, c].sum()), 0.8) > 0.1:
                break
            expected = float(threshold)
        assert float(found["label_recall"][row, c]) == pytest.approx(expected)
    expected = 0.0
    for threshold in GRID[::-1]:
        wealth = []
        for share in (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16):
            product = 1.0
            for true, x in zip(targets, p, strict=True):
                lost = 0.8 * true.sum() - (true & (x >= threshold)).sum()
                product *= max(1 - share * lost / (0.8 * 3), 0)
            wealth.append(product)
        if np.mean(wealth) < 10:
            break
        expected = float(threshold)
    assert float(found["recall"][row, 0]) == pytest.approx(expected)


@pytest.mark.parametrize("dependence", [0.0, 0.9])
def test_promises_are_kept(dependence):
    """By the true precision and recall, known from many images; 90 % of hold-outs, up to chance."""
    rng, trials = np.random.default_rng(0), 40
    targets, p = draw(rng, 5_000, dependence=dependence)
    rules = [f"{kind}={target:g}" for kind in KINDS for target in (0.5, 0.8, 0.9)]
    broken, made = dict.fromkeys(rules, 0.0), dict.fromkeys(rules, 0.0)
    for _ in range(trials):
        some = rng.choice(len(p), 200)
        found = fit_promises(targets[some], p[some])
        for rule in rules:
            kind, target = rule.split("=")
            thresholds = found[kind][TARGETS.index(float(target))].numpy()
            said = say(p, thresholds, rule)
            axis = 0 if kind.startswith("label_") else None
            hits = (said & targets).sum(axis)
            total = (targets if kind.endswith("recall") else said).sum(axis)
            broken[rule] += np.mean(hits < float(target) * total)
            made[rule] += np.mean((thresholds > 0) & (thresholds < NEVER))
    # 9 of 40 or more: probability 0.015 for a procedure that is broken in 10 % of the hold-outs
    assert max(broken.values()) < 9
    assert all(made[f"{kind}=0.5"] > 0.1 * trials for kind in KINDS), "otherwise it says nothing"


def test_labels_of_one_image_do_not_count_as_independent():
    """All labels of an image are right or wrong together: 30 images are no 180 tests."""
    targets = np.repeat(np.arange(30) > 0, 6).reshape(30, 6)
    p = np.full((30, 6), 0.99, np.float32)
    found = fit_promises(targets, p)
    assert found["precision"][TARGETS.index(0.95)].min() >= NEVER
    assert found["precision"][TARGETS.index(0.5)].min() < NEVER


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30))
def test_form_and_order_of_promises(seed, num_images, num_labels):
    """Shapes; more recall never has a higher threshold; the order of images does not matter."""
    rng = np.random.default_rng(seed)
    targets, p = draw(rng, num_images, num_labels, 5.0)
    found, order = fit_promises(targets, p), rng.permutation(num_images)
    again = fit_promises(targets[order], p[order])
    columns = {"precision": min(num_labels, MOST), "recall": 1}
    assert found["num_images"] == num_images
    for kind in KINDS:
        rows = found[kind]
        assert rows.shape == (len(TARGETS), columns.get(kind, num_labels))
        assert rows.dtype == torch.float32
        assert torch.equal(rows, again[kind])
        if kind.endswith("recall"):
            assert (rows.diff(dim=0) <= 0).all()
    assert (found["precision"].diff(dim=1) >= 0).all()


def test_without_evidence_nothing_is_promised():
    """No positives, a single image, and images without labels."""
    for targets in (np.zeros((50, 3), bool), np.ones((1, 3), bool), np.zeros((1, 3), bool)):
        p = np.full(targets.shape, 0.9, np.float32)
        found = fit_promises(targets, p)
        for kind in ("precision", "label_precision"):
            assert (found[kind] == NEVER).all()
            with pytest.raises(UsageError, match=r"cannot be promised of x\.pt: its hold-out of"):
                find_thresholds(found, f"{kind}=0.9", "x.pt")
        for kind in ("recall", "label_recall"):
            assert (found[kind] == 0).all()
            assert say(p, find_thresholds(found, f"{kind}=0.9", "x.pt"), f"{kind}=0.9").all()


def test_most_labels_makes_recall_cheaper():
    """One label on each of 100 images: enough if no image can have more, not if it can have 40."""
    rng = np.random.default_rng(0)
    targets = np.eye(40, dtype=bool)[rng.integers(40, size=100)]
    p = (rng.random(targets.shape) + targets).astype(np.float32) / 2
    row = TARGETS.index(0.8)
    assert fit_promises(targets, p, most_labels=1)["recall"][row, 0] > 0.4
    assert fit_promises(targets, p)["recall"][row, 0] == 0


def test_say_takes_the_most_probable_labels_by_rank():
    p = np.array([[0.7, 0.9, 0.9], [0.2, 0.6, 0.65], [0.1, 0.2, 0.3]], np.float32)
    said = say(p, np.array([0.6, 0.9], np.float32), "precision=0.9")
    assert said.tolist() == [[False, True, True], [False, False, True], [False] * 3]
    said = say(p, np.array([NEVER, 0.6, 0.3], np.float32), "label_precision=0.9")
    assert said.tolist() == [[False, True, True], [False, True, True], [False, False, True]]


def test_decisions_are_read():
    assert [decision(text) for text in ("map", "recall=.9", "label_precision=0.950")] == [
        "map",
        "recall=0.9",
        "label_precision=0.95",
    ]
    for text, words in (
        ("best", "must be one of threshold, label_f1, map, f1, precision=0.9,"),
        ("precision=95", "precision= must be one of 0.5, "),
        ("precision", "precision= must be one of 0.5, "),
        ("recall=nan", "recall= must be one of 0.5, "),
        ("f1=0.9", "must be one of threshold"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=words):
            decision(text)
    assert rule_meaning("label_recall=0.9").startswith("promises a recall of each label")
    with pytest.raises(UsageError, match=r"x\.pt has no promises"):
        find_thresholds(None, "recall=0.9", "x.pt")


def test_results_of_a_promise():
    targets = np.array([[1, 0, 1], [1, 1, 0]], bool)
    said = np.array([[1, 0, 0], [1, 0, 1]], bool)
    thresholds = np.array([0.5, NEVER, 0.25], np.float32)
    found = promise_results(
        "label_precision=0.8", {"num_images": 7}, thresholds, targets, said, ("a", "b", "c")
    )
    assert (found["said"], found["hold_out_images"]) == (3, 7)
    assert (found["precision"], found["recall"]) == pytest.approx((200 / 3, 50))
    assert found["thresholds"] == [0.5, None, 0.25]
    a, b, c = found["per_label"]
    assert (a["precision"], a["recall"], c["precision"], c["recall"]) == (100, 100, 0, 0)
    assert (b["threshold"], b["said"], b["recall"]) == (None, 0, 0)
    assert np.isnan(b["precision"])
