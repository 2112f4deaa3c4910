"""What stands in for parts that the oldest torch lacks does the same."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from util import compat

NAMES = ("amx_bf16", "avx512_bf16", "avx2")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists them in a file")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="torch does not list them")
def test_the_capabilities_of_the_cpu_without_torch(monkeypatch):
    ours = compat.cpu_capabilities()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    linux = compat.cpu_capabilities()
    assert linux
    assert [name in linux for name in NAMES] == [name in ours for name in NAMES]


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_clipping_without_get_total_norm(monkeypatch, size):
    """The same to the bit, whether gradients are clipped or not; a parameter may have none."""
    gradients = [size * torch.randn(3, 5), size * torch.randn(3)]

    def clipped() -> list[torch.Tensor]:
        net = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
        net[0].weight.grad, net[0].bias.grad = (gradient.clone() for gradient in gradients)
        compat.clip_to_norm(net, 10.0)
        assert net[1].weight.grad is None
        return [net[0].weight.grad, net[0].bias.grad]

    ours = clipped()
    monkeypatch.delattr(nn.utils, "get_total_norm", raising=False)
    for a, b, gradient in zip(ours, clipped(), gradients, strict=True):
        assert torch.equal(a, b)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        torch.testing.assert_close(a, gradient * min(1, 10 / float(norm)))


@pytest.mark.parametrize("function", [lambda x, rng=None: x, lambda x, random_state=None: x])
def test_random_numbers_under_either_name(function):
    arguments = compat.random_numbers(function, 3)
    function(1, **arguments)
    (numbers,) = arguments.values()
    assert numbers.random() == np.random.default_rng(3).random()
