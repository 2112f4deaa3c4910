"""Calibration for conditionals and marginals, against enumeration of all label sets."""

import numpy as np
import pytest
import torch
from enumeration import ALL_SETS, TRAINED, get_model, make_encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.set_probabilities import log_probs_of
from model import Encoding, HybridNet
from training import calibrate
from training.validation import validate
from util.device import autocast
from util.errors import RunError

NUM_IMAGES = 400
NAN = float("nan")


@pytest.fixture
def chain(monkeypatch):
    """A chain with strong dependences, and a fit that gets encodings instead of images."""
    monkeypatch.setattr(calibrate, "encode_batches", lambda model, batches, amp: batches)
    model = get_model("chain", TRAINED)
    before = model.decoder.temperature, model.decoder.prior_weight
    yield model, make_encoding(model, NUM_IMAGES)
    model.decoder.temperature, model.decoder.prior_weight = before


def probabilities(model, encoding, temperature, weight):
    """Of all label sets: B×2^C."""
    model.decoder.temperature, model.decoder.prior_weight = temperature, weight
    return log_probs_of(model, encoding, ALL_SETS.bool()).exp()


def fit(model, encoding, targets, batch_size=NUM_IMAGES):
    batches = [
        (
            Encoding(
                encoding.image_embedding[i : i + batch_size],
                encoding.cnn_logits[i : i + batch_size],
                [],
            ),
            targets[i : i + batch_size],
            torch.arange(i, min(i + batch_size, len(targets))),
        )
        for i in range(0, len(targets), batch_size)
    ]
    calibrate.fit_calibration_on(model, batches, None)
    return model.decoder.temperature, model.decoder.prior_weight


def draw(p, seed=0):
    """A label set for each image, from probabilities of all sets."""
    generator = torch.Generator().manual_seed(seed)
    return ALL_SETS[p.multinomial(1, generator=generator).squeeze(1)]


def marginal_nats(model, encoding, targets, fitted):
    p = (probabilities(model, encoding, *fitted) @ ALL_SETS.double()).numpy()
    return -np.log(np.where(targets.numpy() == 1, p, 1 - p)).sum(1).mean()


def test_a_right_model_gets_its_own_calibration(chain):
    model, encoding = chain
    targets = draw(probabilities(model, encoding, 1.5, 0.4))
    temperature, weight = fit(model, encoding, targets)
    assert temperature == pytest.approx(1.5, rel=0.15)
    assert weight == pytest.approx(0.4, abs=0.15)


def test_unknown_labels_leave_the_calibration_right(chain):
    model, encoding = chain
    targets = draw(probabilities(model, encoding, 1.5, 0.4))
    targets[torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = NAN
    temperature, weight = fit(model, encoding, targets)
    assert temperature == pytest.approx(1.5, rel=0.25)
    assert weight == pytest.approx(0.4, abs=0.25)


def test_marginals_of_a_wrong_model_become_better(chain, monkeypatch):
    """The images' labels do not depend on each other, as the chain believes."""
    model, encoding = chain
    marginals = probabilities(model, encoding, 1, 0) @ ALL_SETS.double()
    targets = marginals.bernoulli(generator=torch.Generator().manual_seed(2)).float()
    both = fit(model, encoding, targets)
    monkeypatch.setattr(calibrate, "refine_calibration", lambda start, *rest: start)
    conditionals = fit(model, encoding, targets)
    nats = [marginal_nats(model, encoding, targets, f) for f in (both, conditionals)]
    assert nats[0] < nats[1] - 0.02


def test_batches_and_a_limit_of_the_sets_change_little(chain, monkeypatch):
    model, encoding = chain
    targets = draw(probabilities(model, encoding, 1.5, 0.4))
    whole = fit(model, encoding, targets)
    assert fit(model, encoding, targets, batch_size=64) == pytest.approx(whole, abs=1e-4)
    monkeypatch.setattr(calibrate, "MOST_LOGITS", targets.numel() * calibrate.NUM_SAMPLES // 4)
    assert fit(model, encoding, targets, batch_size=50) == pytest.approx(whole, abs=0.2)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.7, 2), st.floats(-0.3, 0.5), st.integers(0, 99))
def test_reweighted_marginals_agree_with_enumeration(temperature, weight, seed):
    """Sets drawn with one calibration give the marginals of another one."""
    model = get_model("chain", TRAINED)
    decoder, before = model.decoder, (model.decoder.temperature, model.decoder.prior_weight)
    encoding = make_encoding(model, 3, seed)
    try:
        exact = probabilities(model, encoding, temperature, weight) @ ALL_SETS.double()
        decoder.temperature, decoder.prior_weight = 1.3, 0.2
        encoded = [(encoding, torch.zeros(3, ALL_SETS.shape[1]), torch.arange(3))]
        number, calibrate.NUM_SAMPLES = calibrate.NUM_SAMPLES, 2048
        sampled = calibrate._sample(model, encoded, every=1)
    finally:
        calibrate.NUM_SAMPLES = number
        decoder.temperature, decoder.prior_weight = before
    found = sampled.marginals(decoder.prior.numpy(), (temperature, weight))
    assert np.abs(found - exact.numpy()).max() < 0.04


def test_weights_that_are_not_finite_fail_the_run():
    """As a failed run, with what to do, not as wrong input."""
    model = HybridNet(3, "resnet18", "chain", 8, 8, stages=1)
    model.classifier.weight.data.fill_(NAN)
    batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3), torch.arange(2)
    with pytest.raises(RunError, match="validation loss is not finite; continue with --amp off"):
        validate(model, [batch], autocast(torch.device("cpu"), "off"))
