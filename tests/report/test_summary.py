"""The report's sentences: shares, best and worst labels, what is left out; its choice of photos."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from inference.predictions import Predictions
from report.gallery import choose_photos
from report.summary import _sureness, percent, summarise, wilson

NAMES = ("person", "cat", "dog", "fig", "kiwi", "lime")


def summary(targets, predicted, intervals=((60, 80), (60, 80)), **more) -> dict:
    """`summarise` of N×C label sets; intervals: of precision and recall in percent."""
    targets, predicted = np.array(targets, bool), np.array(predicted, bool)
    hits = (targets & predicted).sum()
    metrics = {"OP": 100 * hits / max(predicted.sum(), 1), "OR": 100 * hits / max(targets.sum(), 1)}
    return summarise(
        {
            "num_images": len(targets),
            "per_label": [{"label": name} for name in NAMES[: targets.shape[1]]],
            "predicted_sets": {"threshold": metrics},
            "intervals": {
                "predicted_sets": {"threshold": dict(zip(("OP", "OR"), intervals, strict=True))}
            },
            "decide": "threshold",
            "threshold": 0.314,
            "folds": None,
            **more,
        },
        targets,
        predicted,
    )


def columns(*counts: tuple[int, int, int], num_images: int = 100):
    """N×C label sets, a label for each (right, missed, false alarms)."""
    targets = np.zeros((num_images, len(counts)), bool)
    predicted = targets.copy()
    for c, (right, missed, added) in enumerate(counts):
        targets[: right + missed, c] = True
        predicted[:right, c] = predicted[right + missed : right + missed + added, c] = True
    return targets, predicted


def names(rows: list[dict]) -> list[str]:
    return [row["label"] for row in rows]


def test_shares_of_many_tags_are_percentages():
    found = summary(*columns((71, 40, 29), num_images=200), intervals=((62, 80), (58, 70)))
    assert found["first"] == [
        "Of the tags it gives, 71 % are right; of the tags that are there, it finds 64 %.",
        "All tags are right on 131 of the 200 photos.",
        "With so few photos, these shares may be off by about 9 percentage points.",
    ]
    assert found["given"] == "its probability is at least 31.4 %"


def test_few_tags_are_counted():
    first, exact, _ = summary(*columns((3, 17, 1), num_images=29))["first"]
    assert first == (
        "Of the 4 tags it gives, 3 are right; of the 20 tags that are there, it finds 3."
    )
    assert exact == "All tags are right on 11 of the 29 photos."
    assert summary([[1]], [[0]])["first"][0] == "It gives 0 tags to these photos; 1 tag is there."
    nan = (float("nan"),) * 2
    sure = summary([[1]], [[1]], intervals=(nan, nan))["first"]
    assert sure[0] == "Of the 1 tag it gives, 1 is right; of the 1 tag that is there, it finds 1."
    assert sure[2] == "One photo says nothing about others."


def test_digits_follow_the_interval():
    assert percent(71.25, [66.1, 76.0]) == "71 %"
    assert percent(71.25, [71.0, 71.5]) == "71.2 %"
    assert percent(71.25, [float("nan")] * 2) == "71 %"


def test_best_and_worst_labels():
    found = summary(*columns((30, 5, 5), (1, 30, 0), (4, 0, 0), (10, 10, 0)))
    assert names(found["best"]) == ["person", "fig"]  # dog is on fewer than 5 photos
    assert names(found["worst"]) == ["cat"]
    assert found["worst"][0]["words"] == "1 of 31 found, 0 false alarms"


def test_a_label_of_every_photo_is_no_best_one():
    found = summary(*columns((70, 0, 30), (10, 2, 0), (9, 20, 3)))
    assert names(found["best"]) == ["cat"]
    assert "It gives this tag to every photo, which says nothing." in found["labels"][0]["about"]


def test_a_label_without_error_is_no_worst_one():
    assert summary(*columns((20, 0, 0), (21, 0, 0), (22, 0, 0)))["worst"] == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx(tuple(expected), abs=1e-4)


def test_what_is_left_out_is_said():
    left = {"rare": {"plum": 2, "sloe": 0}, "unknown": {"yak": 1}}
    trained = {"images": 50, "counts": [40, 0]}
    targets, predicted = columns((20, 5, 5), (0, 0, 1))
    found = summary(targets, predicted, left_out=left, training=trained)
    assert found["notes"] == [
        "Too rare in training, so never given and not counted: plum (on 2 photos), sloe.",
        "Unknown to the model, so never given and not counted: yak (on 1 photo).",
        "On no training photo, so not learned: cat.",
        "On none of these photos, so not judged: cat.",
    ]
    assert "Of the 50 photos listed for training, 40 had it." in found["labels"][0]["about"]
    few = summary(*columns((2, 1, 0)))
    assert "too few photos to say" in few["notes"][0]
    assert few["best"] == few["worst"] == []


def test_what_a_label_is_confused_with():
    targets = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    predicted = [[0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]]
    about = summary(targets, predicted)["labels"]
    assert "Where it misses this tag, it most often adds: cat (2), dog (1)." in about[0]["about"]
    said = "Where it gives this tag wrongly, it most often misses: person (2)."
    assert said in about[1]["about"]
    assert not any("most often" in s for s in summary([[1]], [[1]])["labels"][0]["about"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 60))
def test_every_label_gets_its_photos(seed, most):
    """An example of each kind of error of each label, no photo twice, and no more than asked."""
    rng = np.random.default_rng(seed)
    targets, scores = rng.random((300, 4)) < [0.5, 0.2, 0.05, 0.01], rng.random((300, 4))
    predicted = scores > 0.8
    p = Predictions(targets, scores, predicted, predicted, targets.any(1), scores.sum(1))
    rows = choose_photos(p, predicted, [7, 3, 7], most)
    assert rows[:2] == [7, 3]
    assert len(set(rows)) == len(rows) <= most
    chosen = np.isin(np.arange(300), rows)
    for kind in (targets & ~predicted, predicted & ~targets, targets & predicted):
        assert (kind[chosen].any(0) == kind.any(0)).all()
    assert choose_photos(p, predicted, [5], 300) == [5, *(i for i in range(300) if i != 5)]


@pytest.mark.parametrize(
    ("num_images", "said"),
    [
        (14, "With so few photos, these shares may be off by about 21 percentage points."),
        (1000, "these shares may differ by less than 1 point."),
    ],
)
def test_no_error_on_a_few_photos_is_no_certainty(num_images, said):
    """Bootstrap intervals have no width where everything is right."""
    all_right = {"OP": [100.0, 100.0], "OR": [100.0, 100.0]}
    r = {"intervals": {"predicted_sets": {"map": all_right}}, "decide": "map"}
    assert _sureness(r | {"num_images": num_images}).endswith(said)
