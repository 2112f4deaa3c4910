"""evaluate.py as a user runs it, on a table that does not say of every label if it is there."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import LABEL_SETS, RANKED, call, refusal, run, write_table

import evaluate

IMAGES = ("--image_path", "data/images", "--num_workers", 0, "--keep_unlabelled", "--split", "all")
ASKED = ("--report", "--label_issues", 99, "--reveal", 1, "--influence", "--protocol", "coco")


def write_labels(folder, name: str, unknown: np.ndarray) -> None:
    """A table with 1, 0, or ? where `unknown`, 12×5 bool."""
    rows = [
        [f"img_{i:02d}.jpg", *("?" if u else int(x in s) for x, u in zip(RANKED, row, strict=True))]
        for i, (s, row) in enumerate(zip(LABEL_SETS, unknown, strict=True))
    ]
    write_table(folder, ["file_name", *RANKED], rows, name)


@pytest.fixture(scope="module")
def partial(trained):
    """The tiny set with two of five labels known, and nothing of one image; what is printed."""
    unknown = np.random.default_rng(1).random((len(LABEL_SETS), len(RANKED))) < 0.6
    unknown[3] = True
    write_labels(trained.folder, "partial.csv", unknown)
    best = ("--checkpoint", trained.output / "best.pt", "--output_dir", "partial")
    flags = (*best, *IMAGES, "--annotations", "partial.csv", *ASKED)
    result = run("evaluate.py", *flags, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    kept = [i for i in range(len(LABEL_SETS)) if i != 3]
    folder = trained.folder / "partial"
    return SimpleNamespace(
        folder=folder,
        known=~unknown[kept],
        targets=np.array([[x in LABEL_SETS[i] for x in RANKED] for i in kept]),
        results=json.loads((folder / "metrics.json").read_text()),
        arrays=dict(np.load(folder / "predictions.npz")),
        out=result.stdout,
        err=result.stderr,
    )


def test_known_pairs_are_counted_and_printed(partial):
    known, found = partial.known, partial.results
    pairs = f"{known.sum()} of {known.size} image-label pairs are known; only these count"
    assert pairs in partial.out
    assert pairs in (partial.folder / "report.html").read_text("utf-8")
    assert "-log P(known labels | image)" in partial.out
    assert "1 where no label is known (not used)" in partial.err
    assert found["pairs"] == {"known": known.sum(), "all": known.size}
    assert found["num_images"] == 11
    truth = partial.targets & known
    assert [row["support"] for row in found["per_label"]] == truth.sum(0).tolist()
    assert [row["known"] for row in found["per_label"]] == known.sum(0).tolist()


def test_predictions_do_not_call_unknown_labels_absent(partial):
    arrays = partial.arrays
    assert arrays["labels"].tolist() == list(RANKED)
    assert np.array_equal(arrays["unknown"], ~partial.known)
    assert np.array_equal(arrays["targets"], partial.targets & partial.known)
    assert np.isfinite(arrays["set_nll"]).all()


def test_metrics_are_those_of_a_loop_over_known_pairs(partial):
    known, targets, found = partial.known, partial.targets, partial.results
    marginals = partial.arrays["marginals"]
    sets = {"threshold": marginals >= found["threshold"], "map": partial.arrays["best_sets"]}
    sets["top3"] = np.array([p >= np.sort(p)[-3] for p in marginals])
    for rule, predicted in sets.items():
        pairs = list(zip(targets[known], predicted[known], strict=True))
        hits, true, said = sum(t & z for t, z in pairs), *map(sum, zip(*pairs, strict=True))
        expected = {"OP": 100 * hits / max(said, 1), "OR": 100 * hits / true}
        rows = [k for k in range(len(known)) if known[k].any()]
        exact = [(targets[i] == predicted[i])[known[i]].all() for i in rows]
        expected["EM"] = 100 * np.mean(exact)
        for name, value in expected.items():
            assert found["predicted_sets"][rule][name] == pytest.approx(value), (rule, name)
    assert found["set_nll"] == pytest.approx(partial.arrays["set_nll"].mean())
    assert found["paper"]["mAP"] == found["mAP"]
    assert sum(b["count"] for b in found["calibration"]) == known.sum()


def test_only_known_labels_may_be_wrong(partial):
    """All known annotations are listed, and no other; a corrected table keeps what is unknown."""
    rows = partial.results["label_issues"]
    listed = {(row["file_name"], row["label"]) for row in rows}
    names = partial.arrays["file_names"]
    known = {(names[i], RANKED[c]) for i, c in zip(*partial.known.nonzero(), strict=True)}
    assert listed == known
    assert len(rows) == len(listed)
    assert "checked_labels" in (partial.folder / "label_issues.html").read_text("utf-8")
    revealed = partial.results["revealed"]
    assert set(revealed["before"]) == set(revealed["after"]) == {"mAP", "CF1", "OF1"}


def test_runs_are_compared_on_the_same_known_pairs(partial, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained.folder)
    ours = partial.folder / "metrics.json"
    call(evaluate, "--compare", ours, ours)
    known = partial.known
    assert f"{known.sum()} of {known.size} image-label pairs are known" in capsys.readouterr().out
    other = np.zeros((len(LABEL_SETS), len(RANKED)), bool)
    other[3] = True  # the same images
    write_labels(trained.folder, "other.csv", other)
    best = ("--checkpoint", trained.output / "best.pt", "--output_dir", "other")
    call(evaluate, *best, *IMAGES, "--annotations", "other.csv")
    assert "pairs are known" not in capsys.readouterr().out, "nothing is unknown of the others"
    refused = refusal(evaluate, "--compare", ours, trained.folder / "other/metrics.json")
    assert "different images or annotations" in refused
