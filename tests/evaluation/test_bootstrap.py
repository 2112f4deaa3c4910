"""The bootstrap against metrics.py and known truths; comparing runs."""

import json

import numpy as np
import pytest
from conftest import call, refusal, run, write_json
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluate
from evaluation import metrics
from evaluation.bootstrap import WeightedMetrics, bootstrap_intervals, metric_intervals
from evaluation.compare import compare, read_run, save_predictions
from inference.predictions import Predictions, predicted_sets


def random_case(seed: int, num_images: int = 40, num_labels: int = 7):
    """Targets, scores with ties, two rules' label sets and set NLLs."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.uniform(0.02, 0.6, num_labels)
    levels = rng.integers(2, 30)
    scores = (rng.integers(0, levels, targets.shape) / levels).astype(np.float32)
    sets = {"threshold": scores > 0.6, "map": rng.random(targets.shape) < 0.3}
    return targets, scores, sets, rng.exponential(5, num_images).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_weighted_metrics_are_those_of_the_images_drawn(seed, each_once):
    """The same as metrics.py on a copy of each image for each time it is drawn."""
    targets, scores, sets, set_nll = random_case(seed)
    drawn = np.random.default_rng(seed).integers(0, len(targets), len(targets))
    drawn = np.arange(len(targets)) if each_once else drawn
    weights = np.bincount(drawn, minlength=len(targets))
    weighted = WeightedMetrics(targets, scores, sets, set_nll)
    found = dict(zip(weighted.names, weighted(weights[:, None])[:, 0], strict=True))
    expected = metrics.all_metrics(
        targets[drawn], scores[drawn], {rule: predicted[drawn] for rule, predicted in sets.items()}
    )
    assert found["set_nll",] == pytest.approx(set_nll[drawn].mean(), rel=1e-5)
    assert found["mAP",] == pytest.approx(expected["mAP"], nan_ok=True)
    for rule in sets:
        for name in metrics.SET_METRICS:
            value = expected["predicted_sets"][rule][name]
            assert found["predicted_sets", rule, name] == pytest.approx(value, nan_ok=True)


def test_interval_of_a_mean_is_the_textbook_one():
    """The set NLL is a plain mean: 1.96 standard errors on either side."""
    targets, scores, sets, _ = random_case(0, 400)
    set_nll = np.random.default_rng(1).normal(5, 2, 400)
    low, high = metric_intervals(WeightedMetrics(targets, scores, sets, set_nll))["set_nll"]
    margin = 1.96 * set_nll.std() / 20
    assert low == pytest.approx(set_nll.mean() - margin, abs=0.05)
    assert high == pytest.approx(set_nll.mean() + margin, abs=0.05)


def test_95_percent_intervals_hold_the_truth_in_95_of_100_cases():
    """Samples from a distribution whose metrics are known."""
    rng = np.random.default_rng(3)
    base = np.linspace(0, -2, 6)

    def draw(num_images: int) -> WeightedMetrics:
        z = base + 1.5 * rng.normal(size=(num_images, 6)) + 0.5 * rng.normal(size=(num_images, 1))
        scores = 1 / (1 + np.exp(-z))
        targets = rng.random(z.shape) < scores
        nll = -np.log(np.where(targets, scores, 1 - scores)).sum(1)
        return WeightedMetrics(targets, scores, {"threshold": scores > 0.4}, nll)

    world = draw(200_000)
    truth = world(np.ones((200_000, 1), int))[:, 0]
    held = []
    for seed in range(300):
        low, high = bootstrap_intervals(draw(300), 300, num_resamples=200, seed=seed).T
        held.append((low <= truth) & (truth <= high))
    share = dict(zip(world.names, np.mean(held, 0), strict=True))
    for name in (("set_nll",), ("mAP",), *(n for n in world.names if n[-1] in ("OF1", "EBF1"))):
        assert 0.88 <= share[name] <= 0.99, (name, share[name])  # standard error 0.015


def test_intervals_of_one_image_and_with_no_true_label():
    targets, scores, sets, set_nll = random_case(0, 1)
    found = metric_intervals(WeightedMetrics(targets, scores, sets, set_nll))
    assert np.isnan(found["set_nll"]).all()
    targets, scores, sets, set_nll = random_case(0, 5)
    found = metric_intervals(WeightedMetrics(targets & False, scores, sets, set_nll))
    assert np.isnan(found["mAP"]).all()
    assert not np.isnan(found["predicted_sets"]["map"]["EM"]).any()


def write_run(folder, quality: float, labels=("a", "b", "c", "d", "e"), seed: int = 0, **changes):
    """metrics.json and predictions.npz of a made-up model; the truth depends on `seed` alone."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    targets = rng.random((200, len(labels))) < 0.3
    noise = np.random.default_rng(seed + 1).normal(size=targets.shape)
    scores = (1 / (1 + np.exp(-(quality * (targets - 0.5) + noise)))).astype(np.float32)
    nll = -np.log(np.where(targets, scores, 1 - scores)).sum(1)
    p = Predictions(targets, scores, scores > 0.6, scores > 0.4, targets.any(1), nll)
    save_predictions(p, labels, [f"{i}.jpg" for i in range(200)], folder)
    sets = predicted_sets(p, 0.5, 0.4)
    results = {
        "set_nll": float(nll.mean()),
        "threshold": 0.5,
        "label_thresholds": 0.4,
        "per_label": metrics.per_label(labels, targets, scores, sets["map"]),
        **metrics.all_metrics(targets, scores, sets),
        **{"checkpoint": "best.pt", "decoder": "chain", "epoch": 3, "protocol": "images"},
        **{"command": "python evaluate.py", "num_images": 200, "num_samples": 128},
        **{"annotations": "val.json", **changes},
    }
    return write_json(results, folder / "metrics.json")


def test_no_difference_between_a_run_and_itself(tmp_path, capsys):
    path = write_run(tmp_path / "a", 2)
    found = compare([path, path])
    for row in found["metrics"]:
        assert row["differences"] == [0]
        assert row["intervals"] == [[0, 0]]
    assert found["wilcoxon"] == [{"labels": 5, "higher": 0, "lower": 0, "p": 1.0}]
    call(evaluate, "--compare", path, path)
    assert "0 is outside" in capsys.readouterr().out.splitlines()[-1]


def test_a_known_difference_has_the_right_sign(tmp_path):
    """The better model has a higher mAP and a lower NLL, and no interval holds zero."""
    labels = tuple("abcdefghij")
    paths = [write_run(tmp_path / str(q), q, labels) for q in (1, 2)]
    rows = {row["metric"]: row for row in compare(paths)["metrics"]}
    (low, high), (difference,) = rows["mAP"]["intervals"][0], rows["mAP"]["differences"]
    assert 0 < low < difference < high
    assert difference == rows["mAP"]["values"][1] - rows["mAP"]["values"][0]
    assert rows["set_nll"]["intervals"][0][1] < 0
    test = compare(paths)["wilcoxon"][0]
    assert test["higher"] == test["labels"] == 10
    assert test["p"] == pytest.approx(2 / 2**10)  # all ten signs are equal: 2 cases of 1024
    back = {row["metric"]: row for row in compare(paths[::-1])["metrics"]}
    assert back["mAP"]["differences"] == [-difference]


def test_paired_intervals_are_narrower_than_separate_ones(tmp_path):
    """Both runs err on the same images, so their difference varies less than either metric."""
    a, b = (write_run(tmp_path / str(q), q) for q in (1.5, 1.6))
    (row,) = (r for r in compare([a, b])["metrics"] if r["metric"] == "mAP")
    low, high = row["intervals"][0]
    p = read_run(a).predictions
    alone = metric_intervals(WeightedMetrics(p.targets, p.marginals, {}, p.set_nll))["mAP"]
    assert high - low < (alone[1] - alone[0]) / 3


def test_compare_refuses(tmp_path):
    a = write_run(tmp_path / "a", 2)
    other_labels = write_run(tmp_path / "labels", 2, tuple("vwxyz"))
    other_truth = write_run(tmp_path / "truth", 2, seed=5)
    assert "two metrics.json or more" in refusal(evaluate, "--compare", a)
    assert "different labels" in refusal(evaluate, "--compare", a, other_labels)
    assert "different images" in refusal(evaluate, "--compare", a, other_truth)
    assert "leave out --limit" in refusal(evaluate, "--compare", a, a, "--limit", 3)
    assert "cannot read" in refusal(evaluate, "--compare", a, tmp_path / "absent.json")
    for content in ([1], {}, "text", {"set_nll": 1}):
        path = write_json(content, tmp_path / "bad/metrics.json")
        assert "is not a metrics.json" in refusal(evaluate, "--compare", a, path)
    alone = write_json(json.loads(a.read_text()), tmp_path / "alone/metrics.json")
    assert "is missing" in refusal(evaluate, "--compare", a, alone)
    mixed = write_run(tmp_path / "mixed", 2, set_nll=1.0)
    assert "from different evaluations" in refusal(evaluate, "--compare", a, mixed)


def test_compare_never_unpickles(tmp_path):
    a = write_run(tmp_path / "a", 2)
    arrays = tmp_path / "a/predictions.npz"
    with np.load(arrays) as file:
        content = dict(file)
    np.savez(arrays, **{**content, "labels": np.array([{"an": "object"}] * 5, object)})
    assert "damaged" in refusal(evaluate, "--compare", a, a)
    arrays.write_bytes(b"PK\x03\x04" + bytes(99))
    assert "damaged" in refusal(evaluate, "--compare", a, a)


def test_compare_from_the_command_line(tmp_path, monkeypatch, capsys):
    """The console, the JSON and the page show the same numbers."""
    for q in (1, 2):
        write_run(tmp_path / f"quality{q}", q)
    paths = ("quality1/metrics.json", "quality2/metrics.json")
    text = run("evaluate.py", "--compare", *paths, "--report", cwd=tmp_path)
    assert text.returncode == 0, text.stderr
    monkeypatch.chdir(tmp_path)
    call(evaluate, "--compare", *paths, "--json")
    found = json.loads(capsys.readouterr().out)
    page = (tmp_path / "quality1/comparison.html").read_text("utf-8")
    for row in found["metrics"]:
        digits = 3 if row["metric"] == "set_nll" else 2
        name = "set NLL" if row["metric"] == "set_nll" else row["metric"]
        line = next(x for x in text.stdout.splitlines() if x.startswith(f"{name} "))
        numbers = [f"{v:.{digits}f}" for v in row["values"]]
        numbers += [f"{v:+.{digits}f}" for v in (*row["differences"], *row["intervals"][0])]
        for number in numbers:
            assert number in line.split()
            assert number in page
