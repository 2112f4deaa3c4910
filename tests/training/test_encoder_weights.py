"""Encoder weights: a partial state dict is copied by name, that of another encoder is an error."""

import pytest
import torch

from model import HybridNet
from training.setup import load_encoder_weights


def test_partial_weights_are_copied_and_named():
    source = HybridNet(2, "resnet18", "none").encoder.state_dict()
    part = {k: v + 1 for k, v in source.items() if k.startswith(("conv1", "layer1"))}
    model = HybridNet(2, "resnet18", "none")
    loaded, missing = load_encoder_weights(model.encoder, {**part, "fc.weight": torch.zeros(1)})
    assert set(loaded) == set(part)
    assert set(loaded) | set(missing) == set(source)
    assert not set(loaded) & set(missing)
    own = model.encoder.state_dict()
    assert all(torch.equal(own[k], part[k]) for k in part)


def test_weights_of_another_arch_are_an_error_and_not_copied():
    source = HybridNet(2, "resnet50", "none").encoder.state_dict()
    model = HybridNet(2, "resnet18", "none")
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    with pytest.raises(ValueError, match="shape"):
        load_encoder_weights(model.encoder, source)
    with pytest.raises(ValueError, match="none of its tensors"):
        load_encoder_weights(model.encoder, {"a": torch.zeros(1)})
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
