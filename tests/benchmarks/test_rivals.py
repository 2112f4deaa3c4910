"""The rivals and ablations: each model trains and decodes, and is what it claims."""

import sys

import numpy as np
import pytest
import torch
import torchvision
from conftest import REPO

from inference.predictions import decode
from labels.vocabulary import Vocabulary

sys.path.insert(0, str(REPO / "benchmarks/quality"))
sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import ablations
import rivals
from tiny_network import tiny_resnet

VOCABULARY = Vocabulary(("person", "dog", "cat"), (9, 5, 2), 12)
EVERYONE = ablations.EVERYONE


def random_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, (torch.rand(4, len(VOCABULARY), generator=generator) < 0.4).float()


@pytest.mark.parametrize("name", EVERYONE)
def test_everyone_learns_and_decodes(name, monkeypatch):
    monkeypatch.setattr(torchvision.models, "resnet18", tiny_resnet)
    torch.manual_seed(0)
    contender = EVERYONE[name]
    model = contender.build(contender.vocabulary(VOCABULARY, seed=0))
    images, targets = random_batch()
    losses = model(images, targets)["set_nll"]
    losses.sum().backward()
    assert losses.shape == (4,)
    assert torch.isfinite(losses).all()
    gradient = model.encoder.conv1.weight.grad
    assert gradient is None if model.freeze_encoder else gradient.abs().sum() > 0
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

    # an image that enters only before the first label has no influence once a label was read
    targets[:, 0] = 1
    assert scores("chain", images, targets)[:, 1].std() > 1e-3
    assert scores("chain-image-first", images, targets)[:, 1].std() < 1e-6
    untied = EVERYONE["chain-untied"].build(VOCABULARY).decoder
    assert untied.output_embedding.shape == untied.label_embedding.shape == (3, 256)
    start = EVERYONE["chain-random-start"].build(VOCABULARY).decoder
    assert start.project_output.weight.abs().min() > 0


def test_sampled_prefixes_are_the_models_own(monkeypatch):
    """With no label replaced, the losses are the chain's; with all replaced, they are random."""
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
