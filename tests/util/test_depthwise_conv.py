"""Depthwise convolutions with our backward pass give PyTorch's results."""

import copy

import pytest
import torch
from convolutions import results, small_integers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from util.compat import can_export
from util.depthwise_conv import DepthwiseConv2d, SameDepthwiseConv2d, use_fast_depthwise_convs

BF16 = torch.autocast("cpu", torch.bfloat16)
OFF = torch.autocast("cpu", enabled=False)


def make(channels, kernel, stride, padding, bias, same=False):
    """PyTorch's or timm's convolution, with small integers as weights."""
    if same:
        kind = pytest.importorskip("timm.layers", reason="timm has Conv2dSame").Conv2dSame
        plain = kind(channels, channels, kernel, stride, groups=channels, bias=bias)
    else:
        plain = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=bias)
    for parameter in plain.parameters():
        parameter.data.copy_(small_integers(parameter.shape))
    return plain


@st.composite
def geometries(draw):
    kernel = draw(st.integers(2, 7))
    padding = draw(st.integers(0, kernel - 1))
    sides = st.integers(max(1, kernel - 2 * padding), 15)
    convolution = (draw(st.integers(2, 5)), kernel, draw(st.integers(1, 3)), padding)
    flags = draw(st.booleans()), draw(st.booleans())
    return (*convolution, *flags), (draw(st.integers(0, 3)), draw(sides), draw(sides))


@given(geometry=geometries(), last=st.booleans())
@example(geometry=((2, 2, 3, 1, False, False), (3, 3, 2)), last=True)
@settings(max_examples=80, deadline=None)
def test_equals_pytorch_in_double_precision(geometry, last):
    """Also TensorFlow's padding "same", even kernels, and batches without an image."""
    torch.manual_seed(0)
    convolution, (images, height, width) = geometry
    plain, x = make(*convolution), small_integers((images, convolution[0], height, width))
    expected = results(copy.deepcopy(plain).double(), x.double(), OFF)
    ours = use_fast_depthwise_convs(copy.deepcopy(plain))
    assert type(ours) is (SameDepthwiseConv2d if convolution[-1] else DepthwiseConv2d)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    for mine, theirs in zip(results(ours, x, BF16), expected, strict=True):
        assert_close(mine.double(), theirs, rtol=2**-7, atol=0)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("height", range(1, 9))
@pytest.mark.parametrize("width", [1, 2])
def test_an_output_of_one_column(stride, height, width):
    """oneDNN's bfloat16 leaves some of the weight's gradient unwritten: what memory held before."""
    for seed in range(3):
        torch.manual_seed(seed)
        plain, x = make(2, 3, stride, 1, False), small_integers((3, 2, height, width))
        x = x.contiguous(memory_format=torch.channels_last)
        expected = results(copy.deepcopy(plain).double(), x.double(), OFF)
        used = [torch.full((size,), 3e24) for size in (18, 36, 4096)]
        del used
        ours = use_fast_depthwise_convs(copy.deepcopy(plain))
        for mine, theirs in zip(results(ours, x, BF16), expected, strict=True):
            assert_close(mine.double(), theirs, rtol=2**-7, atol=0)


@pytest.mark.parametrize("same", [False, True])
def test_outside_autocast_it_is_pytorchs_to_the_bit(same):
    torch.manual_seed(0)
    plain = make(6, 5, 2, 2, True, same)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    ours, x = use_fast_depthwise_convs(copy.deepcopy(plain)), torch.randn(2, 6, 9, 12)
    assert list(ours.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    copied = copy.deepcopy(ours)
    assert type(copied) is type(ours)
    for mine in (ours, copied):
        for a, b in zip(results(mine, x, OFF), results(plain, x, OFF), strict=True):
            assert torch.equal(a, b)
    with BF16, torch.no_grad():
        assert torch.equal(ours(x), plain(x)), "there is nothing to gain without gradients"


def test_computes_only_the_gradients_needed():
    ours = use_fast_depthwise_convs(nn.Conv2d(4, 4, 5, 2, 2, groups=4))
    x = torch.randn(2, 4, 9, 9)
    with BF16:
        ours(x).sum().backward()
    assert x.grad is None
    assert ours.weight.grad.abs().sum() > 0
    ours.zero_grad()
    ours.requires_grad_(False)
    x.requires_grad_()
    with BF16:
        y = ours(x)
        y.sum().backward()
    assert y.grad_fn.name() == "_DepthwiseBackward"
    assert ours.weight.grad is None
    assert x.grad.abs().sum() > 0


def test_other_kinds_of_convolutions_stay():
    kinds = [{"groups": 2}, {"groups": 1}, {"dilation": 2}, {"kernel_size": (1, 3)}]
    kinds += [{"padding_mode": "circular"}, {"stride": (1, 2)}, {"padding": "same"}]
    kinds += [{"kernel_size": 1}, {"padding": 3}, {"out_channels": 8}]
    for kind in kinds:
        given = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4, **kind}
        assert type(use_fast_depthwise_convs(nn.Conv2d(**given))) is nn.Conv2d, kind


@pytest.mark.skipif(not can_export(), reason="this torch cannot export the networks")
@pytest.mark.parametrize("same", [False, True])
def test_torch_exports_it_for_any_number_of_images(same):
    ours = use_fast_depthwise_convs(make(4, 5, 2, 2, True, same)).requires_grad_(False)
    batch = {"x": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(ours, (torch.randn(2, 4, 9, 9),), dynamic_shapes=batch)
    x = torch.randn(3, 4, 9, 9)
    assert_close(program.module()(x), ours(x))
