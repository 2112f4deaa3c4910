"""Convolutions as matrix products give the same results as PyTorch's convolutions."""

import copy
from functools import partial

import convolutions
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from util import amx_conv
from util.amx_conv import MatmulConv2d, use_matmul_convs

BF16 = torch.autocast("cpu", torch.bfloat16)
results = partial(convolutions.results, most=2)


@pytest.fixture(autouse=True)
def matrix_units(monkeypatch):
    """Use matrix products on any CPU."""
    monkeypatch.setattr(amx_conv, "has_matrix_units", lambda: True)


@given(
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 5),
    images=st.integers(1, 3),
)
@example(kernel=3, stride=1, height=15, width=13, inputs=1, outputs=2, images=3)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_equals_pytorch_in_double_precision(kernel, stride, height, width, inputs, outputs, images):
    torch.manual_seed(0)
    plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    plain.weight.data.copy_(convolutions.small_integers(plain.weight.shape, most=2))
    x = convolutions.small_integers((images, inputs, height, width), most=2)
    expected = results(plain.double(), x.double(), torch.autocast("cpu", enabled=False))
    ours = use_matmul_convs(copy.deepcopy(plain).float())
    found = results(ours, x.contiguous(memory_format=torch.channels_last), BF16)
    assert type(ours) is MatmulConv2d
    for mine, theirs in zip(found, expected, strict=True):
        # larger sums are rounded once, to 8 bits
        assert_close(mine.double(), theirs, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("side", "is_matmul", "all_matmul"), [(8, False, 0), (7, True, 0), (4, True, 1)]
)
def test_size_of_the_map_chooses_the_method(side, is_matmul, all_matmul, monkeypatch):
    """Each method is used for its sizes; matrix products agree with double precision."""
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 8, 3, padding=1, bias=False)
    x = torch.randn(4, 16, side, side).bfloat16().float()
    calls = []
    original = amx_conv.matmul_input_gradient
    spy = lambda *args: calls.append(1) or original(*args)  # noqa: E731
    monkeypatch.setattr(amx_conv, "matmul_input_gradient", spy)
    found = results(use_matmul_convs(copy.deepcopy(plain)), x, BF16)
    assert (found[0].grad_fn.name() == "_MatmulBackward") == is_matmul
    assert len(calls) == all_matmul
    pytorch = results(plain, x, BF16)
    low = copy.deepcopy(plain).bfloat16().double()  # PyTorch's bfloat16 is less exact on some CPUs
    exact = results(low, x.double(), torch.autocast("cpu", enabled=False))
    used = all_matmul, all_matmul, is_matmul  # for the output and the gradients of x and weight
    for mine, theirs, truth, is_own in zip(found, pytorch, exact, used, strict=True):
        assert mine.dtype == theirs.dtype
        if is_own:
            assert_close(mine.double(), truth, rtol=0.02, atol=0.02)
        else:
            assert_close(mine, theirs, rtol=0.02, atol=0.05)


def test_computes_only_the_gradients_needed():
    ours = use_matmul_convs(nn.Conv2d(4, 4, 3, padding=1, bias=False))
    x = torch.randn(2, 4, 3, 3)
    with BF16:
        ours(x).sum().backward()  # like a first layer: images need no gradient
    assert x.grad is None
    assert ours.weight.grad.abs().sum() > 0
    ours.zero_grad()
    ours.requires_grad_(False)
    x.requires_grad_()
    with BF16:
        ours(x).sum().backward()  # a frozen encoder
    assert ours.weight.grad is None
    assert x.grad.abs().sum() > 0


def test_float32_uses_pytorch():
    plain = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(use_matmul_convs(copy.deepcopy(plain))(x), plain(x))


def test_other_kinds_of_convolutions_stay():
    kinds = [{"groups": 2}, {"bias": True}, {"dilation": 2}, {"kernel_size": (1, 3)}]
    kinds += [{"padding_mode": "circular"}, {"stride": (1, 2)}, {"padding": "same"}]
    for kind in kinds:
        given = {"kernel_size": 3, "bias": False, **kind}
        assert type(use_matmul_convs(nn.Conv2d(4, 4, **given))) is nn.Conv2d


def test_without_matrix_units_pytorch_is_used(monkeypatch):
    monkeypatch.setattr(amx_conv, "has_matrix_units", lambda: False)
    with BF16:
        y = use_matmul_convs(nn.Conv2d(4, 4, 3, padding=1, bias=False))(torch.randn(2, 4, 3, 3))
    assert y.grad_fn.name() != "_MatmulBackward"


def test_empty_batches_and_copies():
    """A process may get no image of a batch. The averaged model is a copy."""
    ours = copy.deepcopy(use_matmul_convs(nn.Conv2d(4, 6, 3, padding=1, bias=False)))
    assert type(ours) is MatmulConv2d
    with BF16:
        y = ours(torch.randn(0, 4, 3, 3))
    y.sum().backward()
    assert y.shape == (0, 6, 3, 3)
    assert ours.weight.grad.abs().sum() == 0
