"""The defaults that follow the start, and learning rates that fall towards the image."""

from itertools import pairwise

import pytest
import torch

import train
from model import HybridNet
from training.recipe import PRETRAINED, RANDOM
from training.state import TrainState, build_optimizer


@pytest.mark.parametrize("start", [["--pretrained"], ["--weights", "a"], ["--start_from", "b"]])
def test_defaults_follow_the_start(start):
    parse = train.get_args_parser().parse_args
    assert vars(parse([])).items() >= RANDOM.items()
    assert vars(parse(start)).items() >= PRETRAINED.items()
    given = ["--learning_rate", "0.5", "--num_epochs", "3"]
    args = vars(parse([*start, *given]))
    assert args.items() >= (PRETRAINED | {"learning_rate": 0.5, "num_epochs": 3}).items()


@pytest.mark.parametrize("arch", ["resnet18", "test_efficientnet", "test_vit"])
def test_each_layer_learns_at_a_share_of_the_next_ones_rate(arch):
    model = HybridNet(3, arch, image_size=64)
    optimizer = build_optimizer(model, 0.1, 0.01, layer_decay=0.5)
    rate = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(list(model.parameters()))  # each once
    layers = model.encoder.layers()
    encoder = [p for layer in layers for p in layer]
    assert len(set(encoder)) == len(encoder) == len(list(model.encoder.parameters()))
    for back, layer in enumerate(reversed(layers), start=1):
        assert {rate[p] for p in layer} == {0.1 * 0.5**back}
    assert {rate[p] for p in set(rate) - set(encoder)} == {0.1}
    first = next(model.encoder.parameters())
    assert rate[first] == min(rate.values())
    decayed = {p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {p for p in rate if p.ndim > 1}


def test_the_schedule_keeps_the_shares():
    """OneCycleLR would give all groups the same rate."""
    model = HybridNet(3, "resnet18")
    state = TrainState(model, torch.device("cpu"), 10, 1, 0.1, layer_decay=0.5)
    for _ in range(10):
        rates = sorted({group["lr"] for group in state.optimizer.param_groups}, reverse=True)
        for next_layers, layers in pairwise(rates):
            assert layers == pytest.approx(next_layers / 2)
        state.optimizer.step()
        state.scheduler.step()


def test_without_layer_decay_all_layers_learn_alike():
    optimizer = build_optimizer(HybridNet(3, "resnet18"), 0.1, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
