"""Parts of the report: PR curves, calibration bins, set sizes, example images, class maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sk

from evaluation import metrics
from evaluation.calibration import calibration_bins
from evaluation.metrics import label_set_sizes
from evaluation.ranking import pr_curve
from inference.predictions import Predictions
from report.gallery import choose_examples, overlay


def random_scores(seed: int):
    """One label's targets and scores, with equal scores."""
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < rng.uniform(0.05, 0.9)
    truth[0] = True
    return truth, rng.integers(0, rng.integers(1, 40), 60) / 40


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_pr_curve_equals_scikit_learns_where_recall_increases(seed):
    truth, scores = random_scores(seed)
    precision, recall, thresholds = sk.precision_recall_curve(truth, scores)
    precision, recall, thresholds = precision[-2::-1], recall[-2::-1], thresholds[::-1]
    increases = np.diff(recall, prepend=0) > 0
    expected = np.stack([thresholds, recall, precision], 1)[increases]
    assert pr_curve(truth, scores) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_calibration_bins_are_those_of_the_ece(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 30, (rng.integers(1, 40), 5)) / 29
    targets = rng.random(scores.shape) < scores
    bins = calibration_bins(targets, scores)
    assert sum(b["count"] for b in bins) == targets.size
    error = sum(b["count"] * abs(b["score"] - b["true"]) for b in bins) / targets.size
    assert 100 * error == pytest.approx(metrics.expected_calibration_error(targets, scores))


def test_label_set_sizes():
    annotated = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    sizes = label_set_sizes(annotated, {"map": annotated & [True, False, False]})
    assert sizes == {"annotated": [1, 0, 1, 1], "map": [1, 2, 0, 0]}


def test_choice_of_example_images():
    """Labels a, b, c on five images: b instead of a twice, two exactly right, c missed once."""
    truth = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1], [0, 1, 0]], bool)
    predicted = np.array([[0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 0]], bool)
    nll = np.array([3.0, 9.0, 2.0, 4.0, 1.0])
    p = Predictions(truth, predicted.astype(np.float32), predicted, predicted, truth.any(1), nll)
    shown = choose_examples(p, predicted, ("a", "b", "c"), how_many=3)
    assert [i for i, _ in shown["best"]] == [
        2,
        4,
        3,
    ]  # two labels before one, then the best wrong one
    assert [words for _, words in shown["best"]] == ["all right"] * 2 + ["one of the best"]
    assert [i for i, _ in shown["worst"]] == [1, 3, 0]
    assert shown["typical"][0] == (0, "“b” in place of “a” (2 photos)")
    assert (3, "“c” missed (1 photo)") in shown["typical"]


def test_without_mistakes_there_is_no_typical_or_bad_one():
    truth = np.array([[1, 0], [0, 1]], bool)
    p = Predictions(truth, truth.astype(np.float32), truth, truth, truth.any(1), np.ones(2))
    shown = choose_examples(p, truth, ("a", "b"))
    assert shown["typical"] == shown["worst"] == []
    assert choose_examples(p, ~truth, ("a", "b"))["best"] == []


def test_the_overlay_is_bright_where_the_class_map_is_high():
    photo = Image.new("RGB", (200, 100), "grey")
    class_map = np.zeros((4, 4), np.float32)
    class_map[0, 3] = 5.0  # top right
    picture = np.asarray(overlay(photo, class_map), int).sum(2)
    assert picture.shape == (75, 150)
    row, across = np.unravel_index(picture.argmax(), picture.shape)
    assert row < 20
    assert across > 110
    flat = np.asarray(overlay(photo, np.ones((2, 2), np.float32)))
    assert (flat == flat[0, 0]).all()
