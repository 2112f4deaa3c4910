"""The backward pass of depthwise convolutions in bfloat16 on a CPU, where PyTorch's own is slow.

PyTorch has fast kernels for the forward pass. Its backward pass falls back to slow reference code
in two cases: the gradient of the input if the stride is above 1, and the gradient of a filter of
5×5 or more. Here the first is a forward convolution with the flipped filter, of the output's
gradient spread out with zeros; the second is computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from util.device import in_bfloat16


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution: one square filter for each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D×h'×w'."""
        if not (in_bfloat16(x) and torch.is_grad_enabled()):
            return super().forward(x)
        return _Depthwise.apply(
            x.bfloat16(), self.weight, self.bias, self.stride[0], self.padding[0]
        )


class SameDepthwiseConv2d(DepthwiseConv2d):
    """The same with TensorFlow's padding "same": uneven if the stride is above 1."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D×ceil(h/stride)×ceil(w/stride)."""
        (k, _), (stride, _) = self.kernel_size, self.stride
        sides = []
        for side in (x.shape[3], x.shape[2]):  # F.pad takes the last dimension first
            missing = max((-(-side // stride) - 1) * stride + k - side, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, sides))


def use_fast_depthwise_convs(module: nn.Module) -> nn.Module:
    """Turn the module's depthwise convolutions into DepthwiseConv2d, in place; returns it.

    Parameters and their names stay the same.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and is_depthwise(part):
            if type(part) is nn.Conv2d:
                part.__class__ = DepthwiseConv2d
            elif type(part).__name__ == "Conv2dSame":  # timm's, which pads by itself
                part.__class__ = SameDepthwiseConv2d
    return module


def is_depthwise(convolution: nn.Conv2d) -> bool:
    """One square filter for each channel, no dilation, less padding than the filter's side."""
    c = convolution
    if isinstance(c.padding, str) or c.padding_mode != "zeros" or c.dilation != (1, 1):
        return False
    square = all(height == width for height, width in (c.kernel_size, c.stride, c.padding))
    one_each = c.groups == c.in_channels == c.out_channels > 1
    return one_each and square and 1 < c.kernel_size[0] > c.padding[0]


class _Depthwise(torch.autograd.Function):
    """x B×D×h×w bfloat16, weight D×1×k×k and bias D or None in float32 -> B×D×h'×w' bfloat16.

    It can be differentiated once.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        weight, bias = (part if part is None else part.bfloat16() for part in (weight, bias))
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        x_gradient = weight_gradient = bias_gradient = None
        if needs_x:
            x_gradient = input_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        if needs_weight:
            weight_gradient = filter_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        if needs_bias:
            bias_gradient = gradient.float().sum((0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None, None


def input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient of x, from that of the output."""
    k = weight.shape[2]
    if stride > 1:
        # rows and columns of x after the last place of the filter get no gradient
        rest = [(side + 2 * padding - k) % stride for side in x.shape[2:]]
        sides = [(n - 1) * stride + 1 + r for n, r in zip(gradient.shape[2:], rest, strict=True)]
        shape = (*gradient.shape[:2], *sides)
        spread = torch.empty(shape, dtype=gradient.dtype, memory_format=_layout(x)).zero_()
        spread[:, :, : sides[0] - rest[0] : stride, : sides[1] - rest[1] : stride] = gradient
        gradient = spread
    flipped = weight.to(gradient.dtype).flip(2, 3)
    return F.conv2d(gradient, flipped, None, 1, k - 1 - padding, groups=len(weight))


def filter_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient of the weight; in float32, unless the filter is small.

    In bfloat16 oneDNN leaves a part of it unwritten if the output is one column wide.
    """
    if weight.shape[2] > 3 or gradient.shape[3] == 1:
        gradient, x = gradient.float(), x.float()
    geometry = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight)
    only_weight = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight.to(x.dtype), None, *geometry, only_weight
    )[1].float()


def _layout(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
