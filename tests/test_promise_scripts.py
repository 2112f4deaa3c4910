"""--decide precision=0.5 and the like, as users of evaluate.py and sample.py see it."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVALUATE, RANKED, REPO, call, load, refusal

import evaluate
import sample
from inference import predictor
from inference.promises import KINDS, NEVER, NONE_HELD_OUT, TARGETS

sys.path.insert(0, str(REPO / "benchmarks/quality"))
import promise as benchmark

ROW = TARGETS.index(0.5)


@pytest.fixture
def best(trained, workdir):
    """A checkpoint with promises as a larger hold-out would give them."""
    checkpoint = load(trained.output / "best.pt")
    rows = {
        "precision": [0.2, 0.3, NEVER, NEVER, NEVER],
        "recall": [0.15],
        "label_precision": [0.2, NEVER, 0.1, 0.3, 0.9],
        "label_recall": [0.2, 0.1, 0.0, 0.3, 0.9],
    }
    for kind, row in rows.items():
        assert checkpoint["promises"][kind].shape == (len(TARGETS), len(row)), "as train.py wrote"
        checkpoint["promises"][kind][ROW] = torch.tensor(row)
    torch.save(checkpoint, "best.pt")
    return Path("best.pt")


def evaluated(best, capsys, *flags):
    """The tables, metrics.json, and the predictions."""
    call(evaluate, *EVALUATE, "--checkpoint", best, "--output_dir", "o", "--num_workers", 0, *flags)
    tables = capsys.readouterr().out
    with np.load("o/predictions.npz") as file:
        arrays = file["targets"], file["marginals"]
    return tables, json.loads(Path("o/metrics.json").read_text()), *arrays


def test_evaluate_keeps_a_promise_by_rank(best, capsys):
    tables, found, targets, p = evaluated(best, capsys, "--decide", "precision=0.5", "--report")
    said = np.zeros(p.shape, bool)
    for row, marginals in zip(said, p, strict=True):
        first, second = np.argsort(-marginals, kind="stable")[:2]
        row[first], row[second] = marginals[first] >= 0.2, marginals[second] >= 0.3
    hits = (said & targets).sum()
    promise = found["promise"]
    assert (promise["kind"], promise["target"], promise["said"]) == ("precision", 50, said.sum())
    assert promise["precision"] == pytest.approx(100 * hits / said.sum())
    assert promise["recall"] == pytest.approx(100 * hits / targets.sum())
    assert found["predicted_sets"]["precision=0.5"]["OP"] == pytest.approx(promise["precision"])
    assert promise["thresholds"] == [0.2, 0.3, None, None, None]
    assert "promise: precision of at least 50 % over all labels, with 90 % confidence" in tables
    assert "probability 0.2000 on, the next ones from 0.3000, and no more" in tables
    assert f"here: precision {promise['precision']:.1f}, recall {promise['recall']:.1f}" in tables
    assert "no test of the promise: this checkpoint was trained on" in tables
    assert "promises a precision of at least 0.5" in Path("o/report.html").read_text("utf-8")


def test_evaluate_says_which_labels_have_no_promise(best, capsys):
    for rule, word, label in (("precision", "never", 1), ("recall", "always", 2)):
        tables, found, _, p = evaluated(best, capsys, "--decide", f"label_{rule}=0.5")
        rows = found["promise"]["per_label"]
        assert tuple(row["label"] for row in rows) == RANKED
        assert rows[label]["said"] == (0 if word == "never" else len(p))
        words = tables[tables.index("promise: ") :].splitlines()
        assert [line.split()[1] == word for line in words[2:7]] == [i == label for i in range(5)]
        assert "nothing can be promised of 1 of 5 labels" in tables
    tables, found, _, p = evaluated(best, capsys, "--decide", "recall=0.5")
    assert found["promise"]["said"] == (p >= np.float32(0.15)).sum()
    assert "a label is said from probability 0.1500 on" in tables


def test_sample_says_the_same_labels(best, capsys):
    """As evaluate.py for as many samples; one image, and a folder with predictions.csv."""
    for kind in KINDS:
        rule = ("--decide", f"{kind}=0.5")
        _, found, _, _ = evaluated(best, capsys, *rule)
        flags = ("--checkpoint", best, *rule, "--num_samples", 128, "--num_workers", 0)
        call(sample, "data/images", *flags, "--output", f"out-{kind}", "--num_slides", 0)
        capsys.readouterr()
        with open(f"out-{kind}/predictions.csv", encoding="utf-8-sig", newline="") as file:
            rows = {row["file_name"]: row for row in csv.DictReader(file)}
        names = np.load("o/predictions.npz")["file_names"].tolist()
        said = [label for name in names for label in filter(None, rows[name]["labels"].split("|"))]
        assert len(said) == found["promise"]["said"]
        call(sample, "data/images/img_02.jpg", *flags, "--json")
        result = json.loads(capsys.readouterr().out)
        assert result["decided_by"] == f"{kind}=0.5"
        assert ("thresholds" in result) == (kind != "precision")
        assert "|".join(result["predicted"]) == rows["img_02.jpg"]["labels"]


def test_what_cannot_be_promised_is_refused(trained, best):
    """The hold-out of a tiny set is too small; older checkpoints have nothing."""
    checkpoint = load(best)
    rule, photo = ("--decide", "precision=0.9"), "data/images/img_02.jpg"
    for script, images in ((sample, (photo,)), (evaluate, EVALUATE)):
        sentence = refusal(script, *images, "--checkpoint", best, *rule)
        assert "precision=0.9 cannot be promised of" in sentence
    half = ("--decide", "precision=0.5")
    sentence = refusal(sample, photo, "--checkpoint", best, *half, "--known", "dog")
    assert "leave out --known" in sentence
    assert "leave out --folds" in refusal(evaluate, "--checkpoint", best, *half, "--folds", 2)
    Path("rules.txt").write_text("cat -> person\n")
    rules = ("--rules", "rules.txt", "--checkpoint", best, *half)
    assert "leave out --rules" in refusal(evaluate, *EVALUATE, *rules)
    assert "and --rules" in refusal(sample, photo, *rules)
    torch.save({**checkpoint, "selected_on": NONE_HELD_OUT}, "none.pt")
    for script, images in ((sample, (photo,)), (evaluate, EVALUATE)):
        sentence = refusal(script, *images, "--checkpoint", "none.pt", *half)
        assert "or no image was held out. Train again" in sentence
    for promises, words in (
        (None, "has no promises: either older code trained it, or no image"),
        ({**checkpoint["promises"], "recall": [0.5]}, "is damaged"),
        ({**checkpoint["promises"], "precision": torch.zeros(1, 5)}, "is damaged"),
        ({"num_images": 3}, "is damaged"),
    ):
        torch.save({**checkpoint, "promises": promises}, "other.pt")
        assert words in refusal(evaluate, *EVALUATE, "--checkpoint", "other.pt", *half)
    model = predictor.load(best)
    for rule in ("best", "precision=0.93"):
        with pytest.raises(ValueError, match=f"^decide is '{rule}'; it .*must be one of"):
            model.predict(photo, decide=rule)


def test_the_benchmark_counts_kept_promises(tmp_path, capsys):
    """A perfect model keeps all; one whose probabilities mean nothing has nothing to keep."""
    rng = np.random.default_rng(0)
    targets = rng.random((120, 3)) < 0.5
    perfect = np.where(targets, 0.95, 0.05).astype(np.float32)
    for name, p in (("a", perfect), ("b", rng.permutation(perfect))):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "predictions.npz", targets=targets, marginals=p)
    call(benchmark, tmp_path / "a", tmp_path / "b", "--splits", 3)
    a, b = capsys.readouterr().out.split(f"{tmp_path / 'b'}: ")
    rows = {line.split()[0]: line.split()[1:] for line in a.splitlines()[2:]}
    assert rows["precision=0.8"][:3] == ["3", "100.0", "%"]
    assert 80 <= float(rows["precision=0.8"][3]) < 100, "as many labels as the promise allows"
    assert rows["label_precision=0.8"][0] == "9"
    assert "precision=0.8               0       -" in b
    assert "has no predictions.npz" in refusal(benchmark, tmp_path)
