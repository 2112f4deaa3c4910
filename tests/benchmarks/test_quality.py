"""The comparison with rivals: the table, and each run is made once."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision
from conftest import REPO, run
from filelock import FileLock

from images.part import Part
from inference.checkpoint import load_checkpoint, restore
from inference.predictions import Predictions
from labels.annotated import AnnotatedImages
from labels.vocabulary import Vocabulary
from training.data import TrainAndVal
from training.saver import LossError

sys.path.insert(0, str(REPO / "benchmarks/quality"))
sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import ablations
import quality
import quality_results
import quality_sets
import recipe
from hidden_labels import HIDDEN, hide_labels
from tiny_network import tiny_resnet

COMPARISON = quality_results.Comparison(
    data="scenes",
    recipe=quality_sets.SETS["scenes"].recipe,
    limit=None,
    epochs=20,
    learning_rates=[0.001, 0.002],
    seeds=[0, 1],
)


def result_of(name: str, rate: float, seed: int, nll: float, mean_ap: float) -> dict:
    """A line of results.jsonl."""
    metrics = {
        "set_nll": nll,
        "mAP": mean_ap,
        "ECE": 1.0,
        "predicted_sets": {
            rule: {"CF1": 1.0, "OF1": 1.0, "EM": 1.0, "EBF1": 1.0}
            for rule in ("threshold", "label_f1", "map", "f1")
        },
    }
    return {
        **asdict(COMPARISON.run(name, rate, seed)),
        "about": name,
        "parameters": 10**6,
        "training_seconds": 60,
        "holdout": metrics,
        "val": {**metrics, "set_nll": 100 - nll},
    }


def diverged(name: str, rate: float, seed: int) -> dict:
    return {**asdict(COMPARISON.run(name, rate, seed)), "diverged": "the loss is nan at step 3"}


def results_in(path: Path, *rows: dict) -> quality_results.Results:
    """The rows, written and read."""
    path.unlink(missing_ok=True)
    for row in rows:
        quality_results.append_result(row, path)
    return quality_results.read_results(path)


def table_lines(results: quality_results.Results, *models: str) -> list[str]:
    return quality_results.format_table(results, COMPARISON, models, "val").splitlines()


def test_a_run_that_diverged_is_kept_and_never_chosen(tmp_path):
    results = results_in(
        tmp_path / "results.jsonl",
        result_of("chain", 0.001, 0, nll=5.0, mean_ap=40.0),
        diverged("chain", 0.002, 0),
        diverged("chain", 0.001, 1),
    )
    assert len(results) == 3
    assert COMPARISON.best_rate(results, "chain") == 0.001
    assert table_lines(results, "chain")[2].endswith("| 1.0 | 1 |")


def test_rate_is_chosen_on_the_holdout_and_spread_is_over_seeds(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [
        result_of("chain", 0.001, 0, nll=5.0, mean_ap=40.0),
        result_of("chain", 0.002, 0, nll=6.0, mean_ap=90.0),  # better on val: does not count
        result_of("chain", 0.001, 1, nll=5.0, mean_ap=44.0),
        result_of("average", 0.002, 0, nll=5.0, mean_ap=50.0),
    ]
    results = results_in(path, *rows)
    assert COMPARISON.best_rate(results, "chain") == 0.001
    lines = table_lines(results, "chain", "average")
    assert len(lines) == 4
    assert "| 42.00 ± 2.83 |" in lines[2]
    assert lines[2].endswith("| 0.001 | 1.0 M | 1.0 | 2 |")
    assert "| **50.00** |" in lines[3]
    assert lines[0].count("CF1") == 2
    # a seed counts as soon as both learning rates have it
    results = results_in(path, *rows, result_of("chain", 0.002, 1, nll=3.0, mean_ap=40.0))
    assert COMPARISON.best_rate(results, "chain") == 0.002


def test_a_column_that_a_result_lacks_is_left_out(tmp_path):
    old = result_of("average", 0.002, 0, nll=5.0, mean_ap=50.0)
    del old["val"]["predicted_sets"]["label_f1"]
    new = result_of("chain", 0.001, 0, nll=5.0, mean_ap=40.0)
    results = results_in(tmp_path / "results.jsonl", old, new)
    assert table_lines(results, "chain", "average")[0].count("CF1") == 1
    assert table_lines(results, "chain")[0].count("CF1") == 2


@pytest.mark.parametrize(
    "change",
    [{"recipe": "--image_size 32"}, {"epochs": 3}, {"limit": 500}, {"data": "ccp"}],
)
def test_results_of_another_training_are_not_used(tmp_path, change):
    other = {**result_of("chain", 0.001, 0, nll=5.0, mean_ap=40.0), **change}
    results = results_in(tmp_path / "results.jsonl", other)
    assert len(results) == 1
    assert COMPARISON.results_of(results, "chain", 0.001) == {}
    assert len(table_lines(results, "chain")) == 2


APPEND = """
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import quality_results
for i in range(200):
    quality_results.append_result({"who": sys.argv[2], "i": i, "text": "x" * 5000}, Path("r.jsonl"))
"""


def test_lines_that_several_processes_append_stay_whole(tmp_path):
    command = [sys.executable, "-c", APPEND, str(REPO / "benchmarks/quality")]
    processes = [subprocess.Popen([*command, who], cwd=tmp_path) for who in "abcd"]
    assert [process.wait() for process in processes] == [0] * 4
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    found = {who: [row["i"] for row in rows if row["who"] == who] for who in "abcd"}
    assert found == {who: list(range(200)) for who in "abcd"}


def test_the_stored_results_are_distinct_and_fill_the_table():
    lines = quality.RESULTS.read_text("utf-8").splitlines()
    results = quality_results.read_results(quality.RESULTS)
    assert len(results) == len(lines) >= 145
    for name in {each.data for each in results}:
        data = quality_sets.SETS[name]
        rates = [0.0005, 0.001, 0.002]
        comparison = quality_results.Comparison(
            name, data.recipe, None, data.num_epochs, rates, [0, 1, 2]
        )
        assert comparison.results_of(results, "chain", comparison.best_rate(results, "chain"))
        assert {each.model for each in results} <= set(ablations.EVERYONE)


@pytest.fixture
def tiny_scenes(workdir, monkeypatch):
    """A data set of a dozen images in the place of the scenes; returns the path of its results."""
    files = (workdir / "data/images", workdir / "data/annotations/instances.json")
    flags = ("--image_size", "64", "--batch_size", "4")
    monkeypatch.setitem(quality.SETS, "scenes", quality_sets.DataSet(files, files, "", 1, flags))
    monkeypatch.setattr(quality, "RESULTS", workdir / "results.jsonl")
    monkeypatch.setattr(quality, "RUNS", workdir / "runs")
    return workdir / "results.jsonl"


def test_a_run_is_made_once(tiny_scenes, monkeypatch):
    """On tiny data: the second command finds the results of the first."""
    monkeypatch.setattr(torchvision.models, "resnet18", tiny_resnet)
    flags = ["scenes", "--models", "chain", "asymmetric", "--seeds", "3"]
    args = quality.get_args_parser().parse_args([*flags, "--learning_rates", "0.001"])
    quality.main(args)
    chain, asymmetric = (json.loads(line) for line in tiny_scenes.read_text().splitlines())
    assert 0 <= asymmetric["val"]["mAP"] <= 100
    assert (chain["model"], chain["epochs"], chain["limit"]) == ("chain", 1, None)
    monkeypatch.setattr(quality, "train_and_test", lambda *_: pytest.fail("it was run again"))
    quality.main(args)
    saved = list((tiny_scenes.parent / "runs").rglob("best.pt"))
    assert len(saved) == 1  # of HybridNet itself
    model, vocabulary, _ = restore(load_checkpoint(saved[0]), saved[0])
    assert model.decoder.temperature == chain["temperature"]
    assert model.decoder.num_labels == len(vocabulary)


def test_recipe_compares_what_is_missing(tiny_scenes, capsys, monkeypatch):
    """A line for each combination; a combination that is there is not trained again."""
    tiny = quality.SETS["scenes"]
    tuned = dataclasses.replace(tiny, tuned=quality_sets.tuned_flags(1.0, "light"))
    monkeypatch.setitem(recipe.SETS, "ccp-lite0", tuned)
    monkeypatch.setattr(recipe, "RESULTS", quality.RESULTS)
    flags = ["ccp-lite0", "--layer_decays", "1", "0.5", "--augmentations", "light", "strong"]
    recipe.main(recipe.get_args_parser().parse_args([*flags, "--table"]))
    assert capsys.readouterr().out.count("| – |") == 4 * 2  # two cells share a bar
    recipe.main(recipe.get_args_parser().parse_args(["ccp-lite0", "--layer_decays", "0.5"]))
    assert "layer_decay 0.5 --augmentation light" in tiny_scenes.read_text()
    capsys.readouterr()
    recipe.main(recipe.get_args_parser().parse_args([*flags, "--table"]))
    lines = [line for line in capsys.readouterr().out.splitlines() if "–" not in line]
    assert len(lines) == 2 + 1


def test_results_that_name_no_recipe_are_found():
    """Those of ccp, and those from before --start_decay: they are not trained again."""
    ccp = quality.SETS["ccp"]
    assert recipe.vary(ccp, 1.0, "light", 0.0) == ccp
    other = recipe.vary(ccp, 0.5, "strong", 2.0)
    assert other.recipe == f"{ccp.recipe} --layer_decay 0.5 --augmentation strong --start_decay 2"
    posters = recipe.vary(quality.SETS["posters"], 1.0, "light", 0.0)
    assert posters.recipe.endswith("--layer_decay 1 --augmentation light")
    for data_set, start_decay in ((ccp, 0), (posters, 0), (other, 2)):
        assert data_set.args(quality.EVERYONE["chain"], 0.1, 0).start_decay == start_decay


def test_a_run_that_another_process_works_on_is_left_to_it(tiny_scenes, monkeypatch):
    """It comes last, and is not run if the other process has finished it by then."""
    runs = [COMPARISON.run(model, 0.001, 0) for model in ("chain", "average")]
    folder = quality.run_folder(runs[0])
    folder.mkdir(parents=True)
    other = FileLock(folder / "lock")
    other.acquire()
    order = []

    def train_and_test(run: quality_results.Run, *_: object) -> dict:
        order.append(run.model)
        quality_results.append_result(diverged("chain", 0.001, 0), tiny_scenes)
        other.release()
        return diverged(run.model, run.learning_rate, run.seed)

    monkeypatch.setattr(quality, "train_and_test", train_and_test)
    quality.run_missing(runs, quality.SETS["scenes"], 0)
    assert order == ["average"]
    assert len(tiny_scenes.read_text().splitlines()) == 2


def test_a_run_that_diverges_is_recorded_and_the_next_one_starts(tiny_scenes, monkeypatch):
    def diverge(*args: object) -> None:
        raise LossError("the loss is nan at step 3")

    monkeypatch.setattr(quality, "train_one_epoch", diverge)
    flags = ["scenes", "--models", "chain", "--seeds", "0", "--learning_rates", "0.001", "0.002"]
    quality.main(quality.get_args_parser().parse_args(flags))
    rows = [json.loads(line) for line in tiny_scenes.read_text().splitlines()]
    assert [row["diverged"] for row in rows] == ["the loss is nan at step 3"] * 2
    found = [(row["model"], row["learning_rate"], row["seed"]) for row in rows]
    assert found == [("chain", 0.001, 0), ("chain", 0.002, 0)]


@pytest.mark.parametrize(
    "script",
    [
        "quality/quality.py",
        "quality/coco_photos.py",
        "quality/planted_errors.py",
        "quality/scene_rules.py",
        "robustness/kills.py",
        "robustness/mutations.py",
        "speed/bench.py",
    ],
)
def test_every_benchmark_starts(script, tmp_path):
    """Also from another folder."""
    result = run(f"benchmarks/{script}", "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"python benchmarks/{script}" in result.stdout


def part_of(targets: np.ndarray) -> Part:
    names = [f"{i}.jpg" for i in range(len(targets))]
    images = AnnotatedImages("made", names, [()] * len(names), ["a", "b", "c"])
    return Part(images, [Path(name) for name in names], targets)


@pytest.mark.parametrize("as_absent", [False, True])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_labels(hidden, as_absent):
    rng = np.random.default_rng(0)
    train, val = (part_of(rng.random((number, 3)) < 0.5) for number in (4000, 500))
    vocabulary = Vocabulary(("a", "b", "c"), (2300, 2200, 2100), 4500)
    images = TrainAndVal(train, val, vocabulary, "made")
    found = hide_labels(images, hidden, 1, as_absent)
    again = hide_labels(images, hidden, 1, not as_absent)
    truth = train.targets[[int(path.stem) for path in found.train.paths]]
    unknown = again.train.unknown if as_absent else found.train.unknown
    if hidden == "positives":
        assert len(found.train.targets) == 400
        assert (unknown == ~truth).all()
    else:
        share = int(hidden) / 100
        assert unknown.mean() == pytest.approx(share, abs=0.03 + share**3)
        assert not unknown.all(1).any()
    assert (found.train.targets == (truth & ~unknown)).all()
    assert (found.train.unknown is None) == as_absent
    assert found.vocabulary.counts == tuple(found.train.targets.sum(0))
    known = len(truth) if as_absent else (~unknown).sum(0)
    with np.errstate(divide="ignore"):
        odds = (truth & ~unknown).sum(0) + 0.5, known - (truth & ~unknown).sum(0) + 0.5
    assert found.vocabulary.prior_logits() == pytest.approx(np.log(odds[0] / odds[1]))


def test_metrics_count_known_labels_of_the_holdout():
    """What the annotations do not say has no part in the stored metrics."""
    rng = np.random.default_rng(0)
    targets, unknown = rng.random((40, 3)) < 0.5, rng.random((40, 3)) < 0.5
    marginals = rng.random((40, 3))
    holdout = SimpleNamespace(threshold=0.5, label_thresholds=[0.5] * 3)

    def found(truth):
        sets = marginals > 0.5
        p = Predictions(truth, marginals, sets, sets, sets[:, 0], np.ones(40), unknown=unknown)
        return quality.metrics_of(p, holdout)

    assert found(targets | unknown) == found(targets & ~unknown)
    assert found(targets & ~unknown) != found(~targets & ~unknown)
