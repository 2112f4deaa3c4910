"""Metrics against scikit-learn and examples worked by hand, and with awkward inputs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from evaluation import calibration, metrics, ranking

SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed: int, num_images: int = 40, num_labels: int = 7):
    """Targets with a label that has no positives and scores with many ties."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.uniform(0.05, 0.6, num_labels)
    targets[:, rng.integers(num_labels)] = False
    scores = rng.integers(0, rng.integers(2, 12), targets.shape) / 11
    return targets, scores


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_average_precision_is_scikit_learns(seed):
    targets, scores = random_case(seed)
    ap = metrics.average_precision(targets, scores)
    for c in range(targets.shape[1]):
        if targets[:, c].any():
            assert ap[c] == pytest.approx(
                sk.average_precision_score(targets[:, c], scores[:, c]), abs=1e-12
            )
        else:
            assert np.isnan(ap[c])


def test_average_precision_of_equal_scores_is_the_share_of_positives():
    """Other implementations give 1.0 or 0.026 here, depending on the order of the rows."""
    targets = np.zeros((100, 1), bool)
    targets[:5] = True
    assert metrics.average_precision(targets, np.ones((100, 1)))[0] == pytest.approx(0.05)
    assert metrics.average_precision(targets[::-1], np.ones((100, 1)))[0] == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_set_metrics_are_scikit_learns(seed):
    targets, scores = random_case(seed)
    predicted = scores > 0.5
    ours = metrics.set_metrics(targets, predicted)
    present = targets.any(0)
    macro = sk.precision_recall_fscore_support(
        targets[:, present], predicted[:, present], average="macro", zero_division=0
    )
    micro = sk.precision_recall_fscore_support(targets, predicted, average="micro", zero_division=0)
    cp, cr = macro[:2]
    expected = {
        "CP": cp,
        "CR": cr,
        "CF1": 2 * cp * cr / (cp + cr) if cp + cr else 0,
        "macroF1": macro[2],
        "OP": micro[0],
        "OR": micro[1],
        "OF1": micro[2],
        "EM": sk.accuracy_score(targets, predicted),
        "EBF1": sk.f1_score(targets, predicted, average="samples", zero_division=1),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(100 * value, abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_weighted_metrics_are_those_of_repeated_images(seed):
    """Three weightings at once, of images that count 0 to 3 times."""
    targets, scores = random_case(seed)
    predicted = scores > 0.5
    weights = np.random.default_rng(seed).integers(0, 4, (len(targets), 3))
    ap = metrics.average_precision(targets, scores, weights=weights)
    found = metrics.set_metrics(targets, predicted, weights=weights)
    for b in range(3):
        rows = np.repeat(np.arange(len(targets)), weights[:, b])
        expected = metrics.average_precision(targets[rows], scores[rows])
        assert ap[:, b] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        for name, value in metrics.set_metrics(targets[rows], predicted[rows]).items():
            assert found[name][b] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_weighted_average_precision_is_scikit_learns(seed):
    targets, scores = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(targets))
    ap = metrics.average_precision(targets, scores, weights=weights[:, None])[:, 0]
    for c in range(targets.shape[1]):
        if weights[targets[:, c]].any():
            theirs = sk.average_precision_score(targets[:, c], scores[:, c], sample_weight=weights)
            assert ap[c] == pytest.approx(theirs, abs=1e-12)
        else:
            assert np.isnan(ap[c])


def test_cf1_is_not_macro_f1():
    targets = np.array([[1, 1], [1, 0], [0, 0], [0, 0]])
    predicted = np.array([[1, 1], [0, 1], [0, 1], [0, 1]])
    found = metrics.set_metrics(targets, predicted)
    cp, cr = (1 + 1 / 4) / 2, (1 / 2 + 1) / 2
    assert found["CF1"] == pytest.approx(100 * 2 * cp * cr / (cp + cr))
    assert found["macroF1"] == pytest.approx(100 * (2 / 3 + 2 / 5) / 2)


def test_two_empty_sets_agree():
    empty = np.zeros((1, 3), bool)
    found = metrics.set_metrics(empty, empty)
    assert found["EBF1"] == found["EM"] == 100
    assert np.isnan(found["CF1"])  # no label has a positive


def test_top_k_and_its_tie_rule():
    scores = np.array([[0.2, 0.9, 0.9, 0.2, 0.2], [0.6, 0.4, 0.1, 0.0, 0.7]])
    assert metrics.top_k(scores, 3).tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 1]]
    assert metrics.top_k(scores, 3, above=0.5).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert metrics.top_k(scores, 9).all()


def first_labels(row: np.ndarray, k: int) -> list[int]:
    """The k best labels of one image: by score, then by rank."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), st.sampled_from([np.float32, np.float64]))
def test_top_k_and_map_at_k_with_ties(seed, k, kind):
    targets, scores = random_case(seed)
    scores = scores.astype(kind)
    chosen = metrics.top_k(scores, k)
    assert [row.nonzero()[0].tolist() for row in chosen] == [
        sorted(first_labels(row, k)) for row in scores
    ]
    ap = []
    for truth, row in zip(targets, scores, strict=True):
        hits = [truth[c] for c in first_labels(row, k)]
        precisions = [sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit]
        if truth.any():
            ap.append(sum(precisions) / min(k, truth.sum()))
    assert metrics.map_at_k(targets, scores, k) == pytest.approx(100 * np.mean(ap))


def test_map_at_k_by_hand():
    targets = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1]])
    first = (1 / 1 + 2 / 3) / 2  # hits at ranks 1 and 3 of 2 true labels
    assert metrics.map_at_k(targets, scores, 10) == pytest.approx(100 * (first + 1 / 2) / 2)
    assert metrics.map_at_k(targets, scores, 1) == pytest.approx(100 * (1 + 0) / 2)


def test_calibration_error_by_hand_and_for_calibrated_scores():
    scores = np.full((10, 3), 0.7)
    targets = np.ones((10, 3))
    assert metrics.expected_calibration_error(targets, scores) == pytest.approx(30)
    rng = np.random.default_rng(0)
    scores = rng.random((4000, 10))
    targets = rng.random(scores.shape) < scores
    assert metrics.expected_calibration_error(targets, scores) < 1.5
    assert metrics.expected_calibration_error(~targets, scores) > 20


def test_calibration_error_of_equal_scores_does_not_depend_on_their_order():
    """All scores are one half, and half of the labels are true: no error."""
    targets = np.arange(100).reshape(100, 1) < 50
    for rows in (targets, targets[::-1], np.random.default_rng(0).permutation(targets)):
        assert metrics.expected_calibration_error(rows, np.full((100, 1), 0.5)) == 0


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 20), st.integers(1, 5), st.sampled_from([np.float32, np.float64]))
def test_calibration_error_follows_its_definition(seed, num_bins, num_images, kind):
    """Also with more bins than scores, bins within a tie, and ties over many bins."""
    targets, scores = random_case(seed, num_images)
    pairs = sorted(zip(scores.ravel().tolist(), targets.ravel().tolist(), strict=True))
    shared = {s: np.mean([truth for other, truth in pairs if other == s]) for s, _ in pairs}
    ece = 0.0
    for members in np.array_split([s for s, _ in pairs], num_bins):
        if len(members):
            gap = np.mean(members) - np.mean([shared[s] for s in members])
            ece += abs(gap) * len(members) / len(pairs)
    ours = metrics.expected_calibration_error(targets, scores.astype(kind), num_bins)
    assert ours == pytest.approx(100 * ece, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_fitted_threshold_has_the_best_of1(seed):
    targets, scores = random_case(seed)
    best = max(metrics.set_metrics(targets, scores >= t)["OF1"] for t in [*np.unique(scores), 2.0])
    threshold = calibration.fit_threshold(targets, scores)
    assert metrics.set_metrics(targets, scores >= threshold)["OF1"] == pytest.approx(best)


def test_threshold_if_nothing_is_true():
    assert calibration.fit_threshold(np.zeros((3, 2), bool), np.ones((3, 2))) == 0.5


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_threshold_between_neighbouring_numbers(kind):
    """Half-way between them is rounded to one of them, which must not be the lower one."""
    for start in np.linspace(0.1, 0.9, 50, dtype=kind):
        scores = np.array([[start, np.nextafter(start, kind(1))]])
        threshold = calibration.fit_threshold(np.array([[False, True]]), scores)
        assert (scores >= threshold).tolist() == [[False, True]]
        assert (scores >= kind(threshold)).tolist() == [[False, True]]


NEED_NUMBERS = (
    *(metrics.average_precision, ranking.voc07_average_precision, metrics.map_at_k),
    *(ranking.Rankings, metrics.expected_calibration_error, calibration.calibration_bins),
    *(calibration.fit_threshold, lambda _, scores: calibration.fit_label_thresholds(scores)),
    lambda targets, scores: ranking.pr_curve(targets[:, 0], scores[:, 0]),
)


@pytest.mark.parametrize("metric", NEED_NUMBERS)
def test_scores_that_are_no_numbers(metric):
    """Sorted, nan comes last and would count as the best score."""
    scores = np.array([[0.9], [np.nan], [0.1]])
    with pytest.raises(ValueError, match="scores must be numbers, not nan"):
        metric(np.array([[False], [True], [False]]), scores)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 7))
def test_label_thresholds_have_the_highest_expected_f1(seed, num_images):
    """Against every cut: the F1 from the expected counts over all possible truths."""
    p = np.random.default_rng(seed).random((num_images, 2))
    found = calibration.fit_label_thresholds(p)
    for c, threshold in enumerate(found):
        expected = {}
        for cut in p[:, c]:
            chosen_images = p[:, c] >= cut
            truths = np.array(list(itertools.product([0, 1], repeat=num_images)))
            chance = np.where(truths, p[:, c], 1 - p[:, c]).prod(1)
            hits, true = chance @ (truths & chosen_images).sum(1), chance @ truths.sum(1)
            expected[cut] = 2 * hits / (chosen_images.sum() + true)
        chosen = p[p[:, c] >= threshold, c].min()
        assert expected[chosen] == pytest.approx(max(expected.values()))
        assert threshold == pytest.approx(max(expected.values()) / 2)


def test_label_thresholds_are_above_zero():
    """A threshold of 0 would predict an impossible label everywhere."""
    found = calibration.fit_label_thresholds(np.zeros((4, 2), np.float32))
    assert (found > 0).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(0.4, 3), st.floats(-0.5, 0.5))
def test_calibration_is_recovered_from_many_labels(seed, temperature, weight):
    rng, prior = np.random.default_rng(seed), np.array([0.0, -1, -2, -3, -4])
    truth = rng.normal(prior, 2, (8000, 5))  # log-odds
    targets = rng.random(truth.shape) < 1 / (1 + np.exp(-truth))
    logits = temperature * (truth - weight * prior)
    found = calibration.fit_calibration(targets, logits, prior)
    assert found == (pytest.approx(temperature, rel=0.08), pytest.approx(weight, abs=0.05))


def test_calibration_of_a_few_labels_stays_moderate():
    """Both predictions are right: without its prior, the temperature would go to 0."""
    found = calibration.fit_calibration(
        np.ones((1, 2), bool), np.full((1, 2), 3.0), np.full(2, -4.0)
    )
    assert 0.9 < found[0] < 1
    assert -0.05 < found[1] < 0


def test_all_metrics_of_one_image_one_label():
    one = np.ones((1, 1), bool)
    found = metrics.all_metrics(one, np.array([[0.3]]), {"threshold": one})
    assert found["mAP"] == found["mAP@10"] == found["predicted_sets"]["top3"]["EM"] == 100
    assert found["predicted_sets"]["top3@0.5"]["EM"] == 0
