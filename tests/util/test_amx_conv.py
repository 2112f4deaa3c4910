"""Convolutions by matrix products give what PyTorch's own give."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from util import amx_conv
from util.amx_conv import ProductConv2d, with_products

BF16 = torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(autouse=True)
def matrix_units(monkeypatch):
    """Products whatever this CPU has."""
    monkeypatch.setattr(amx_conv, "has_matrix_units", lambda: True)


def results(convolution, x, amp):
    """The result and the gradients by input and weight of a loss that weighs all places."""
    x = x.clone().requires_grad_()
    convolution.zero_grad()
    with amp:
        y = convolution(x)
    generator = torch.Generator().manual_seed(1)
    (y.float() * whole_numbers(y.shape, generator)).sum().backward()
    return y, x.grad, convolution.weight.grad


def whole_numbers(shape, generator=None):
    """From -2 to 2: exact in bfloat16, and so are sums of up to 64 products."""
    return torch.randint(-2, 3, shape, generator=generator).float()


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
def test_as_pytorch_in_double_precision(kernel, stride, height, width, inputs, outputs, images):
    torch.manual_seed(0)
    plain = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    plain.weight.data.copy_(whole_numbers(plain.weight.shape))
    x = whole_numbers((images, inputs, height, width))
    expected = results(plain.double(), x.double(), torch.autocast("cpu", enabled=False))
    ours = with_products(copy.deepcopy(plain).float())
    found = results(ours, x.contiguous(memory_format=torch.channels_last), BF16)
    assert type(ours) is ProductConv2d
    for mine, theirs in zip(found, expected, strict=True):
        # a sum of more is rounded once, to 8 bits
        assert_close(mine.double(), theirs, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("side", "is_ours", "by_products"), [(8, False, 0), (7, True, 0), (4, True, 1)]
)
def test_few_not_many_and_many_places(side, is_ours, by_products, monkeypatch):
    """Each way is taken where it should be, and agrees with PyTorch's."""
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 8, 3, padding=1, bias=False)
    x = torch.randn(4, 16, side, side).bfloat16().float()
    calls = []
    original = amx_conv.products_by_input
    spy = lambda *args: calls.append(1) or original(*args)  # noqa: E731
    monkeypatch.setattr(amx_conv, "products_by_input", spy)
    found = results(with_products(copy.deepcopy(plain)), x, BF16)
    assert (found[0].grad_fn.name() == "_ProductsBackward") == is_ours
    assert len(calls) == by_products
    for mine, theirs in zip(found, results(plain, x, BF16), strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert_close(mine, theirs, rtol=0.02, atol=0.05)


def test_only_what_is_asked_for_is_computed():
    ours = with_products(nn.Conv2d(4, 4, 3, padding=1, bias=False))
    x = torch.randn(2, 4, 3, 3)
    with BF16:
        ours(x).sum().backward()  # as for a first layer: the images need no gradient
    assert x.grad is None
    assert ours.weight.grad.abs().sum() > 0
    ours.zero_grad()
    ours.requires_grad_(False)
    x.requires_grad_()
    with BF16:
        ours(x).sum().backward()  # a frozen encoder
    assert ours.weight.grad is None
    assert x.grad.abs().sum() > 0


def test_float32_is_left_to_pytorch():
    plain = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(with_products(copy.deepcopy(plain))(x), plain(x))


def test_other_kinds_are_left_alone():
    kinds = [{"groups": 2}, {"bias": True}, {"dilation": 2}, {"kernel_size": (1, 3)}]
    kinds += [{"padding_mode": "circular"}, {"stride": (1, 2)}, {"padding": "same"}]
    for kind in kinds:
        given = {"kernel_size": 3, "bias": False, **kind}
        assert type(with_products(nn.Conv2d(4, 4, **given))) is nn.Conv2d


def test_without_matrix_units_all_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(amx_conv, "has_matrix_units", lambda: False)
    with BF16:
        y = with_products(nn.Conv2d(4, 4, 3, padding=1, bias=False))(torch.randn(2, 4, 3, 3))
    assert y.grad_fn.name() != "_ProductsBackward"


def test_no_image_at_all_and_copies():
    """A process's share of a batch may be empty; the averaged weights are a copy."""
    ours = copy.deepcopy(with_products(nn.Conv2d(4, 6, 3, padding=1, bias=False)))
    assert type(ours) is ProductConv2d
    with BF16:
        y = ours(torch.randn(0, 4, 3, 3))
    y.sum().backward()
    assert y.shape == (0, 6, 3, 3)
    assert ours.weight.grad.abs().sum() == 0
