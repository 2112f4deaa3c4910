"""The comparison with rivals: each of them trains and decodes, is what it says, and is run once."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO

from inference.predictions import decode
from labels.vocabulary import Vocabulary
from training.state import LossError
from util.errors import UsageError

sys.path.insert(0, str(REPO / "benchmarks/quality"))
import ablations
import quality
import quality_sets
import rivals

VOCABULARY = Vocabulary(("person", "dog", "cat"), (9, 5, 2), 12)
EVERYONE = ablations.EVERYONE


def random_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, (torch.rand(4, len(VOCABULARY), generator=generator) < 0.4).float()


@pytest.mark.parametrize("name", EVERYONE)
def test_everyone_learns_and_decodes(name):
    torch.manual_seed(0)
    contender = EVERYONE[name]
    model = contender.build(contender.vocabulary(VOCABULARY, seed=0))
    images, targets = random_batch()
    losses = model(images, targets)["set_nll"]
    losses.sum().backward()
    assert losses.shape == (4,)
    assert torch.isfinite(losses).all()
    assert model.encoder.conv1.weight.grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        p = decode(model, model.encode(images), targets)
    assert p.marginals.shape == (4, 3)
    assert np.isfinite(p.set_nll).all()


def test_label_orders():
    orders = {
        name: EVERYONE[name].vocabulary(VOCABULARY, 1).labels
        for name in ("softmax", "softmax-rare", "softmax-random")
    }
    assert orders["softmax"] == VOCABULARY.labels
    assert orders["softmax-rare"] == VOCABULARY.labels[::-1]
    assert sorted(orders["softmax-random"]) == sorted(VOCABULARY.labels)
    many = {EVERYONE["softmax-random"].vocabulary(VOCABULARY, seed).labels for seed in range(20)}
    assert len(many) > 3
    rare = EVERYONE["softmax-rare"].vocabulary(VOCABULARY, 1)
    assert dict(zip(rare.labels, rare.counts, strict=True)) == {"person": 9, "dog": 5, "cat": 2}


def test_asymmetric_loss_is_its_formula():
    """Ridnik et al., equations 4-7: gamma 0 and 4, probabilities of negatives shifted by 0.05."""
    torch.manual_seed(0)
    model = rivals.CONTENDERS["asymmetric"].build(VOCABULARY).train()
    images, targets = random_batch()
    losses = model(images, targets)["set_nll"].detach().numpy()
    p = model.encode(images).cnn_logits.detach().sigmoid().double().numpy()
    shifted = np.maximum(p - 0.05, 0)
    positive = -np.log(p)
    negative = -(shifted**4) * np.log(1 - shifted)
    expected = np.where(targets.numpy() == 1, positive, negative).sum(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


def test_calibration_finds_scale_and_shift():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (20_000, 3))
    truth = rng.random(scores.shape) < 1 / (1 + np.exp(-(0.5 * scores - 1)))
    model = rivals.CONTENDERS["asymmetric"].build(VOCABULARY)
    model.calibrate(scores, truth)
    np.testing.assert_allclose(model.scale_and_shift.numpy(), [0.5, -1], atol=0.05)


def test_pooling_of_the_ablations():
    features = torch.randn(2, 512, 2, 2)
    for kind, share in {"none": 0.5, "average": 1, "chain-maximum": 0}.items():
        model = EVERYONE[kind].build(VOCABULARY)
        maps = model.classifier(features)
        expected = share * maps.mean((2, 3)) + (1 - share) * maps.amax((2, 3))
        stages = [torch.zeros(2, c.in_features, 1, 1) for c in model.stage_heads][::-1]
        scores = model.encode_features([*stages, features]).cnn_logits
        torch.testing.assert_close(scores, expected)


def test_decoders_of_the_ablations():
    torch.manual_seed(0)
    images, targets = random_batch()

    def scores(name: str, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        model = EVERYONE[name].build(VOCABULARY).eval()
        with torch.no_grad():
            for p in model.decoder.parameters():
                p.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
            encoding = model.encode(images)
            return model.set_logits(encoding, targets) - encoding.cnn_logits

    # once a label is read, an image that enters before the first one only has nothing to say
    targets[:, 0] = 1
    assert scores("chain", images, targets)[:, 1].std() > 1e-3
    assert scores("chain-image-first", images, targets)[:, 1].std() < 1e-6
    untied = EVERYONE["chain-untied"].build(VOCABULARY).decoder
    assert untied.output_embedding.shape == untied.label_embedding.shape == (3, 256)
    start = EVERYONE["chain-random-start"].build(VOCABULARY).decoder
    assert start.project_output.weight.abs().min() > 0


def test_sampled_prefixes_are_the_models_own(monkeypatch):
    """With no label replaced the losses are the chain's; with all, they depend on the draw."""
    images, targets = random_batch()
    torch.manual_seed(0)
    model = EVERYONE["chain-sampled"].build(VOCABULARY).eval()
    model.decoder.project_output.reset_parameters()
    with torch.no_grad():
        expected = super(ablations.SampledPrefixes, model).forward(images, targets)["set_nll"]
        monkeypatch.setattr(ablations.SampledPrefixes, "SHARE", 0.0)
        assert torch.equal(model(images, targets)["set_nll"], expected)
        monkeypatch.setattr(ablations.SampledPrefixes, "SHARE", 1.0)
        drawn = {tuple(model(images, targets)["set_nll"].tolist()) for _ in range(5)}
    assert len(drawn) > 1


def write_result(folder, name: str, rate: float, seed: int, nll: float, mean_ap: float) -> None:
    found = {
        "set_nll": nll,
        "mAP": mean_ap,
        "ECE": 1.0,
        "predicted_sets": {
            rule: {"CF1": 1.0, "OF1": 1.0, "EM": 1.0, "EBF1": 1.0}
            for rule in ("threshold", "label_f1", "map", "f1")
        },
    }
    result = {
        "about": name,
        "learning_rate": rate,
        "parameters": 10**6,
        "training_seconds": 60,
        "holdout": found,
        "val": {**found, "set_nll": 100 - nll},
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-{rate:g}-{seed}.json").write_text(json.dumps(result))


def test_a_run_that_diverged_is_kept_and_never_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    folder = tmp_path / "scenes"
    write_result(folder, "chain", 0.001, 0, nll=5.0, mean_ap=40.0)
    for run in ("chain-0.002-0", "chain-0.001-1"):
        (folder / f"{run}.json").write_text('{"diverged": "the loss is nan at step 3"}')
    args = quality.get_args_parser().parse_args(["scenes"])
    assert quality.best_rate(args, "chain") == 0.001
    assert quality.table(args).splitlines()[2].endswith("| 1.0 | 1 |")


def test_rate_is_chosen_on_the_holdout_and_spread_is_over_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "RESULTS", tmp_path)
    folder = tmp_path / "scenes"
    write_result(folder, "chain", 0.001, 0, nll=5.0, mean_ap=40.0)
    write_result(folder, "chain", 0.002, 0, nll=6.0, mean_ap=90.0)  # better on val: of no account
    write_result(folder, "chain", 0.001, 1, nll=5.0, mean_ap=44.0)
    write_result(folder, "average", 0.002, 0, nll=5.0, mean_ap=50.0)
    flags = ("scenes", "--models", "chain", "average", "--learning_rates", "0.001", "0.002")
    args = quality.get_args_parser().parse_args([*flags, "--table"])
    assert quality.best_rate(args, "chain") == 0.001
    lines = quality.table(args).splitlines()
    write_result(folder, "chain", 0.002, 1, nll=3.0, mean_ap=40.0)
    assert quality.best_rate(args, "chain") == 0.002  # where both have the second seed, it counts
    assert len(lines) == 4
    assert "| 42.00 ± 2.83 |" in lines[2]
    assert lines[2].endswith("| 0.001 | 1.0 M | 1.0 | 2 |")
    assert "| **50.00** |" in lines[3]
    assert lines[0].count("CF1") == 2
    path = folder / "average-0.001-0.json"
    path.write_text('{"recipe": "--num_epochs 3", "diverged": ""}')
    with pytest.raises(UsageError, match="made with --num_epochs 3, not --image_size 64"):
        quality.table(args)
    path.unlink()
    old = folder / "average-0.002-0.json"  # of before there was a rule
    old.write_text(old.read_text().replace("label_f1", "no longer"))
    assert quality.table(args).splitlines()[0].count("CF1") == 1


@pytest.fixture
def tiny_scenes(workdir, monkeypatch):
    """A set of eight images in the place of the scenes, results in workdir/results."""
    files = (workdir / "data/images", workdir / "data/annotations/instances.json")
    flags = ("--image_size", "64", "--num_epochs", "1", "--batch_size", "4")
    monkeypatch.setitem(quality.SETS, "scenes", quality_sets.DataSet(files, files, "", flags))
    monkeypatch.setattr(quality, "RESULTS", workdir / "results")
    monkeypatch.setattr(quality, "ROOT", workdir)
    return workdir / "results/scenes"


def test_a_run_is_made_once(tiny_scenes, monkeypatch):
    """As a user runs it, on tiny data: the second command finds the result of the first."""
    flags = ["scenes", "--models", "chain", "asymmetric", "--seeds", "3"]
    args = quality.get_args_parser().parse_args([*flags, "--learning_rates", "0.001"])
    quality.main(args)
    found = json.loads((tiny_scenes / "asymmetric-0.001-3.json").read_text())
    assert 0 <= found["val"]["mAP"] <= 100
    monkeypatch.setattr(quality, "run", lambda *_: pytest.fail("it was run again"))
    quality.main(args)


def test_a_run_that_diverges_says_so_and_the_next_goes_on(tiny_scenes, monkeypatch):
    def diverge(*args: object) -> None:
        raise LossError("the loss is nan at step 3")

    monkeypatch.setattr(quality, "train_epoch", diverge)
    flags = ["scenes", "--models", "chain", "--seeds", "0", "--learning_rates", "0.001", "0.002"]
    quality.main(quality.get_args_parser().parse_args(flags))
    for rate in (0.001, 0.002):
        result = json.loads((tiny_scenes / f"chain-{rate:g}-0.json").read_text())
        assert result["diverged"] == "the loss is nan at step 3"
        assert (result["model"], result["learning_rate"], result["seed"]) == ("chain", rate, 0)


def test_help():
    command = [sys.executable, REPO / "benchmarks/quality/quality.py", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0
    assert "--learning_rates" in result.stdout
