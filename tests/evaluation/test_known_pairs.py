"""Metrics and fits where the truth of some image-label pairs is unknown: only the known ones count.

Each is compared with a loop over the known pairs that never sees the others. Unknown pairs are
filled with a wrong truth here, so that a metric which looks at one is found out.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from evaluation import calibration, metrics
from evaluation.bootstrap import WeightedMetrics
from evaluation.promise import GRID, fit_promises
from evaluation.ranking import voc07_average_precision
from inference.promises import rank_labels

SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed: int, num_images: int = 30, num_labels: int = 6):
    """Targets, scores with ties, and a mask; one image and one label are wholly unknown."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.uniform(0.05, 0.7, num_labels)
    scores = rng.integers(0, rng.integers(2, 40), targets.shape) / 40  # 0 is a score, too
    known = rng.random(targets.shape) < rng.uniform(0.2, 0.9, num_labels)
    known[rng.integers(num_images)], known[:, rng.integers(num_labels)] = False, False
    return targets, scores, known


def percent_or_nan(values: list[float]) -> float:
    return 100 * np.mean(values) if values else np.nan


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_label_ranks_the_images_where_it_is_known(seed):
    targets, scores, known = random_case(seed)
    found = metrics.average_precision(targets, scores, known=known)
    eleven = voc07_average_precision(targets, scores, known)
    for c in range(targets.shape[1]):
        truth, column = targets[known[:, c], c], scores[known[:, c], c]
        if not truth.any():
            assert np.isnan(found[c])
            assert np.isnan(eleven[c])
            continue
        assert found[c] == pytest.approx(sk.average_precision_score(truth, column), abs=1e-12)
        alone = voc07_average_precision(truth[:, None], column[:, None])
        assert eleven[c] == pytest.approx(alone[0], abs=1e-12)


def set_metrics_in_a_loop(targets, predicted, known) -> dict[str, float]:
    """SET_METRICS from lists of known pairs."""

    def scores(true, said, if_empty=0.0) -> tuple[float, float, float]:
        hits, both = sum(true & said), sum(true) + sum(said)
        f1 = 2 * hits / both if both else if_empty
        return hits / sum(said) if any(said) else 0, hits / sum(true) if any(true) else 0, f1

    columns = zip(targets.T, predicted.T, known.T, strict=True)
    per_label = [scores(t[k], z[k]) for t, z, k in columns if any(t[k])]
    cp, cr, macro = np.mean(per_label, 0) if per_label else (np.nan,) * 3
    cf1 = 2 * cp * cr / max(cp + cr, 1e-12)
    pooled = scores(targets[known], predicted[known])
    rows = [r for r in zip(targets, predicted, known, strict=True) if any(r[2])]
    exact = [all(t[k] == z[k]) for t, z, k in rows]
    f1 = [scores(t[k], z[k], if_empty=1.0)[2] for t, z, k in rows]
    values = [cp, cr, cf1, macro, *pooled, np.mean(exact), np.mean(f1)]
    return dict(zip(metrics.SET_METRICS, 100 * np.array(values, float), strict=True))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_sets_are_compared_on_the_known_labels(seed):
    targets, scores, known = random_case(seed)
    predicted = scores > 0.4
    found = metrics.set_metrics(targets, predicted, known=known)
    expected = set_metrics_in_a_loop(targets, predicted, known)
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_an_image_with_nothing_known_is_not_exactly_right():
    targets, known = np.zeros((2, 3), bool), np.array([[False] * 3, [True] * 3])
    predicted = np.array([[False] * 3, [True, False, False]])
    found = metrics.set_metrics(targets, predicted, known=known)
    assert found["EM"] == found["EBF1"] == 0


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_all_metrics_and_per_label_of_known_pairs(seed):
    """top3 is chosen among all labels, mAP@10 ranks the known ones."""
    targets, scores, known = random_case(seed)
    predicted = scores > 0.5
    found = metrics.all_metrics(targets, scores, {"threshold": predicted}, known)
    pairs = targets[known], scores[known]
    assert found["ECE"] == pytest.approx(metrics.expected_calibration_error(*pairs))
    ap = [
        metrics.map_at_k(t[None, k], s[None, k], 10)
        for t, s, k in zip(targets, scores, known, strict=True)
        if t[k].any()
    ]
    assert found["mAP@10"] == pytest.approx(np.mean(ap) if ap else np.nan, nan_ok=True)
    for rule, sets in {"threshold": predicted, "top3": metrics.top_k(scores, 3)}.items():
        expected = set_metrics_in_a_loop(targets, sets, known)
        assert found["predicted_sets"][rule] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    rows = metrics.per_label(tuple("abcdef"), targets, scores, predicted, known)
    assert found["mAP_labels"] == sum(row["support"] > 0 for row in rows)
    assert [row["support"] for row in rows] == [(targets & known)[:, c].sum() for c in range(6)]
    assert [row["known"] for row in rows] == [known[:, c].sum() for c in range(6)]
    m_ap = percent_or_nan([row["AP"] / 100 for row in rows if row["support"]])
    assert found["mAP"] == pytest.approx(m_ap, nan_ok=True)
    for protocol in metrics.PROTOCOLS:
        paper = metrics.protocol_metrics(protocol, targets, scores, known)
        assert paper["mAP"] == pytest.approx(m_ap, nan_ok=True)
    assert paper["AP11"] == pytest.approx(
        100 * voc07_average_precision(targets, scores, known), nan_ok=True
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_weighted_metrics_of_known_pairs(seed, each_once):
    """The bootstrap's metrics are those of a copy of each image for each time it is drawn."""
    targets, scores, known = random_case(seed)
    rng = np.random.default_rng(seed)
    drawn = np.arange(len(targets)) if each_once else rng.integers(0, len(targets), len(targets))
    weights, sets = np.bincount(drawn, minlength=len(targets)), {"map": scores > 0.3}
    weighted = WeightedMetrics(targets, scores, sets, rng.exponential(5, len(targets)), known)
    found = dict(zip(weighted.names, weighted(weights[:, None])[:, 0], strict=True))
    drawn_sets = {"map": sets["map"][drawn]}
    expected = metrics.all_metrics(targets[drawn], scores[drawn], drawn_sets, known[drawn])
    assert found["mAP",] == pytest.approx(expected["mAP"], nan_ok=True)
    for name, value in expected["predicted_sets"]["map"].items():
        assert found["predicted_sets", "map", name] == pytest.approx(value, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_what_is_unknown_has_no_influence(seed):
    """Any other truth of the unknown pairs, and NaN, gives the same metrics and fits."""
    targets, scores, known = random_case(seed)
    rng = np.random.default_rng(seed)
    other = np.where(known, targets, rng.random(targets.shape) < 0.5)
    lacking = np.where(known, targets, np.nan).astype(np.float32)
    logits, prior = rng.normal(size=targets.shape), rng.normal(size=targets.shape[1])

    def everything(truth: np.ndarray) -> list:
        promises = fit_promises(truth, scores, known=known)
        return [
            metrics.all_metrics(truth, scores, {"threshold": scores > 0.4}, known),
            calibration.fit_threshold(truth, scores, known),
            calibration.fit_calibration(truth, logits, prior, known),
            calibration.calibration_bins(truth, scores, known=known),
            {k: v if k == "num_images" else v.tolist() for k, v in promises.items()},
        ]

    assert str(everything(targets)) == str(everything(other)) == str(everything(lacking))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_mask_with_nothing_unknown_changes_nothing(seed):
    targets, scores, known = random_case(seed)
    rng, known = np.random.default_rng(seed), np.ones_like(known)
    sets = {"threshold": scores > 0.4}
    found, expected = (metrics.all_metrics(targets, scores, sets, k) for k in (known, None))
    assert str(found) == str(expected)
    logits, prior = rng.normal(size=targets.shape), rng.normal(size=targets.shape[1])
    found, expected = (
        calibration.fit_calibration(targets, logits, prior, k) for k in (known, None)
    )
    assert found == pytest.approx(expected, rel=1e-6)
    found, expected = (fit_promises(targets, scores, known=k) for k in (known, None))
    assert str(found) == str(expected)
    found, expected = (calibration.fit_threshold(targets, scores, k) for k in (known, None))
    assert found == expected
    weights = rng.integers(0, 3, (len(targets), 2))
    pairs = (targets, scores, sets, scores[:, 0])
    found, expected = (WeightedMetrics(*pairs, k)(weights) for k in (known, None))
    assert np.array_equal(found, expected, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_fitted_threshold_has_the_best_of1_of_known_pairs(seed):
    targets, scores, known = random_case(seed)
    threshold = calibration.fit_threshold(targets, scores, known)
    if not targets[known].any():
        assert threshold == 0.5
        return
    truth, p = targets[known], scores[known]
    best = max(2 * (truth & (p >= t)).sum() / (truth.sum() + (p >= t).sum()) for t in np.unique(p))
    said = p >= threshold
    assert 2 * (truth & said).sum() / (truth.sum() + said.sum()) == pytest.approx(best)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_calibration_is_fitted_to_known_pairs(seed):
    """Each known pair by itself, as an image of one label with a prior of its own."""
    targets, _, known = random_case(seed)
    rng = np.random.default_rng(seed)
    logits, prior = rng.normal(0, 2, targets.shape), rng.normal(size=targets.shape[1])
    found = calibration.fit_calibration(targets, logits, prior, known)
    images, labels = known.nonzero()
    alone = calibration.fit_calibration(targets[images, labels], logits[known], prior[labels])
    assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_calibration_error_of_unknown_pairs_is_not_that_of_absent_ones():
    """Calibrated probabilities, six of ten pairs unknown: as absent labels they would look wrong"""
    rng = np.random.default_rng(0)
    scores = rng.random((4000, 10))
    targets, known = rng.random(scores.shape) < scores, rng.random(scores.shape) < 0.4
    assert metrics.expected_calibration_error(targets, scores, known=known) < 1.5
    assert metrics.expected_calibration_error(targets & known, scores) > 20
    bins = calibration.calibration_bins(targets, scores, known=known)
    assert sum(b["count"] for b in bins) == known.sum()
    assert all(b["true"] == pytest.approx(b["score"], abs=0.05) for b in bins)


def test_metrics_of_single_pairs_do_not_depend_on_the_share_that_is_known():
    """Pairs that are unknown at random: the known ones are a sample of all pairs."""
    rng = np.random.default_rng(1)
    scores = rng.beta(0.5, 2, (40_000, 5))
    targets, known = rng.random(scores.shape) < scores**1.3, rng.random(scores.shape) < 0.4
    sets = {"threshold": scores > 0.4}
    some, every = (metrics.all_metrics(targets, scores, sets, k) for k in (known, None))
    for name in ("mAP", "ECE"):
        assert some[name] == pytest.approx(every[name], abs=0.7)
    for rule in ("threshold", "top3"):
        for name in ("CP", "CR", "CF1", "macroF1", "OP", "OR", "OF1"):
            values = (found["predicted_sets"][rule][name] for found in (some, every))
            assert next(values) == pytest.approx(next(values), abs=0.7), (rule, name)
    assert calibration.fit_threshold(targets, scores, known) == pytest.approx(
        calibration.fit_threshold(targets, scores), abs=0.05
    )


def test_promises_count_known_pairs():
    """Images of which nothing is known change no threshold."""
    rng = np.random.default_rng(2)
    scores = rng.beta(1, 1, (600, 4)).astype(np.float32)
    targets = rng.random(scores.shape) < scores
    twice = [np.repeat(array, 2, axis=0) for array in (targets, scores)]
    every_second = np.repeat((np.arange(1200) % 2 == 0)[:, None], 4, axis=1)
    found, expected = fit_promises(*twice, known=every_second), fit_promises(targets, scores)
    for kind in ("precision", "recall", "label_precision", "label_recall"):
        assert (found[kind] == expected[kind]).all(), kind


def test_a_rank_with_an_unknown_label_is_neither_right_nor_wrong():
    """The second label of an image does not move up if the first one is unknown."""
    scores = np.tile(np.float32([0.9, 0.6]), (400, 1))
    targets, known = np.tile([False, True], (400, 1)), np.ones((400, 2), bool)
    wrong = fit_promises(targets, scores, known=known)
    known[:, 0] = False
    found = fit_promises(targets, scores, known=known)
    row = 0  # a precision of 0.5
    assert (rank_labels(scores)[0] == [0, 1]).all()
    assert wrong["precision"][row, 0] > 1, "the most probable label is always wrong"
    assert found["precision"][row, 0] > 1, "nothing is known of it"
    assert found["label_precision"][row, 1] <= 0.6
    assert (GRID <= 1).all()


@pytest.mark.parametrize("kind", ["label_precision", "label_recall", "precision", "recall"])
def test_promises_hold_for_the_complete_truth_if_pairs_are_unknown_at_random(kind):
    """Fitted on 40 % of the pairs, tested on all pairs of other images; at most 10 % may fail."""
    rng, row, failed = np.random.default_rng(4), 5, 0  # 0.75

    def draw(num_images: int) -> tuple[np.ndarray, np.ndarray]:
        scores = rng.beta(1, 1, (num_images, 3)).astype(np.float32)
        return rng.random(scores.shape) < scores, scores

    for _ in range(40):
        targets, scores = draw(400)
        known = rng.random(targets.shape) < 0.4
        thresholds = fit_promises(targets, scores, known=known)[kind][row].numpy()
        truth, marginals = draw(8000)
        if kind == "precision":
            order, ranked = rank_labels(marginals)
            said = np.zeros(truth.shape, bool)
            np.put_along_axis(said, order, ranked >= thresholds, axis=1)
        else:
            said = marginals >= thresholds
        if kind.startswith("label"):
            hit, said, true = (n[..., 0].sum() for n in (truth & said, said, truth))
        else:
            hit, said, true = (n.sum() for n in (truth & said, said, truth))
        share = hit / (said if kind.endswith("precision") else true) if said else 1
        failed += share < 0.75
    assert failed <= 9  # of 40, with probability 0.995 if each fails with probability 0.1
