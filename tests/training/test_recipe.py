"""The defaults that follow the start, and what they keep of it."""

from itertools import pairwise

import pytest
import torch

import train
from model import HybridNet
from training.recipe import PRETRAINED, PRETRAINED_RESNET, RANDOM
from training.resume import Changes
from training.state import TrainState, build_optimizer
from util.errors import UsageError


@pytest.mark.parametrize("start", [["--pretrained"], ["--weights", "a"], ["--start_from", "b"]])
def test_defaults_follow_the_start(start):
    parse = train.get_args_parser().parse_args
    assert vars(parse([])).items() >= RANDOM.items()
    for arch, recipe in (("resnet50", PRETRAINED_RESNET), ("test_efficientnet", PRETRAINED)):
        words = [*start, "--arch", arch]
        assert vars(parse(words)).items() >= recipe.items()
        args = vars(parse([*words, "--learning_rate", "0.5", "--num_epochs", "3"]))
        assert args.items() >= (recipe | {"learning_rate": 0.5, "num_epochs": 3}).items()


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


def state_with(start_decay: float, seed: int = 0, **settings: object) -> TrainState:
    torch.manual_seed(seed)
    model = HybridNet(3, "resnet18", stages=1, **settings)
    return TrainState(model, torch.device("cpu"), 10, 1, 0.1, 0.0, start_decay=start_decay)


def take_steps(state: TrainState, number: int) -> None:
    """Steps with gradients that depend on the step only."""
    for _ in range(number):
        torch.manual_seed(state.steps)
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        state.optimizer.step()
        state.decay_to_start()
        state.scheduler.step()
        state.steps += 1


def test_start_decay_moves_the_encoder_towards_its_first_weights():
    """After each step of the optimizer, the distance shrinks by learning rate times decay."""
    state = state_with(2.0)
    first = [p.detach().clone() for p in state.model.encoder.parameters()]
    take_steps(state, 2)
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    state.optimizer.step()
    moved = [p.detach().clone() for p in parameters]
    state.decay_to_start()
    rate = state.optimizer.param_groups[0]["lr"]
    for start, before, now in zip(
        first, moved, parameters, strict=False
    ):  # the encoder's come first
        torch.testing.assert_close(now, start + (1 - 2.0 * rate) * (before - start))
    assert all(
        torch.equal(a, b) for a, b in list(zip(moved, parameters, strict=True))[len(first) :]
    )


def test_a_decay_of_all_the_distance_or_more_stays_at_the_start():
    state = state_with(1e6)
    first = [p.detach().clone() for p in state.model.encoder.parameters()]
    take_steps(state, 3)
    assert all(map(torch.equal, first, state.model.encoder.parameters()))


def test_a_continued_run_decays_to_the_first_weights_of_the_run():
    whole, earlier = state_with(2.0), state_with(2.0)
    take_steps(whole, 6)
    take_steps(earlier, 3)
    checkpoint = {"training": earlier.state_dict(), "weights": earlier.ema.state_dict()}
    continued = state_with(2.0, seed=1)  # its own first weights are others
    continued.load(checkpoint)
    take_steps(continued, 3)
    assert all(map(torch.equal, whole.model.parameters(), continued.model.parameters()))


def test_start_decay_costs_nothing_where_it_has_no_use():
    assert state_with(0.0).start == {} == state_with(2.0, freeze_encoder=True).start


def test_a_run_without_start_decay_cannot_get_it(tmp_path):
    """Its first weights are in no checkpoint."""
    changes = Changes(flags={"start_decay": "--start_decay was 0.0, is 6.0"})
    with pytest.raises(UsageError, match="--start_decay cannot change"):
        changes.check(tmp_path, accepted=True)
