"""Convolutions of small feature maps as matrix products (im2col): faster on a CPU in bfloat16.

PyTorch's CPU kernels process a feature map row by row. In a ResNet's last stage the maps are 7×7
for images of 224 pixels and 2×2 for 64 pixels: the rows are too short to keep the CPU's matrix
units (AMX) busy. Here the patch around each output position becomes a row of a matrix (im2col),
so a whole batch is one matrix product. This is faster if the map has few output positions. The
gradient of the weights alone is faster up to larger maps.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from util.compat import cpu_capabilities
from util.device import in_bfloat16

# output positions (height × width) up to which matrix products were faster, measured for each
# convolution of a ResNet at 64, 128 and 224 pixels; benchmarks/speed/bench_convolutions.py shows
# the sum over all of them
MAX_FOR_ALL, MAX_FOR_WEIGHT_GRADIENT = 16, 49


class MatmulConv2d(nn.Conv2d):
    """A plain square convolution. Small maps in bfloat16 on a CPU with AMX: matrix products."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D'×h'×w'."""
        if not (in_bfloat16(x) and has_matrix_units()):
            return super().forward(x)
        (k, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        height, width = ((side + 2 * padding - k) // stride + 1 for side in x.shape[2:])
        if height * width > MAX_FOR_WEIGHT_GRADIENT:
            return super().forward(x)
        use_for_all = height * width <= MAX_FOR_ALL
        return _Matmul.apply(x.bfloat16(), self.weight, stride, padding, use_for_all)


@functools.cache
def has_matrix_units() -> bool:
    """Whether this CPU has AMX. With vector units alone matrix products are not faster."""
    return "amx_bf16" in cpu_capabilities()


def use_matmul_convs(module: nn.Module) -> nn.Module:
    """Turn the module's plain square convolutions into MatmulConv2d, in place; returns it.

    Parameters and their names stay the same.
    """
    for part in module.modules():
        if type(part) is nn.Conv2d and is_plain(part):
            part.__class__ = MatmulConv2d
    return module


def is_plain(convolution: nn.Conv2d) -> bool:
    """Square, zero padding, no bias, groups or dilation: all convolutions of a ResNet are."""
    c = convolution
    simple = c.bias is None and c.groups == 1 and c.dilation == (1, 1)
    sides = c.kernel_size, c.stride, c.padding
    square = not isinstance(c.padding, str) and all(height == width for height, width in sides)
    return simple and square and c.padding_mode == "zeros"


class _Matmul(torch.autograd.Function):
    """x B×D×h×w bfloat16, weight D'×D×k×k float32 -> B×D'×h'×w' bfloat16.

    use_for_all: compute everything with matrix products, else only the gradient of the weights.
    It can be differentiated once.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int, use_for_all: bool
    ) -> Tensor:
        weight = weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.use_for_all = (stride, padding), use_for_all
        if not use_for_all:
            return F.conv2d(x, weight, None, stride, padding)
        patches = im2col(x, weight.shape[2], stride, padding)
        return (patches @ as_matrix(weight).T).permute(0, 3, 1, 2)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = matmul_input_gradient if ctx.use_for_all else conv_input_gradient
            x_gradient = input_gradient(gradient, x, weight, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            k = weight.shape[2]
            # computed again: to keep the patches of the forward pass takes k² times the memory
            patches = im2col(x, k, *ctx.geometry).flatten(0, 2)
            rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
            weight_gradient = (rows.T @ patches).float().view(len(weight), k, k, -1)
            weight_gradient = weight_gradient.permute(0, 3, 1, 2)
        return x_gradient, weight_gradient, None, None, None


def im2col(x: Tensor, k: int, stride: int, padding: int) -> Tensor:
    """B×D×h×w -> B×h'×w'×kkD: the k×k patch for each output position, padded with zeros."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
    windows = padded.unfold(1, k, stride).unfold(2, k, stride)  # B×h'×w'×D×k×k
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).contiguous()


def as_matrix(weight: Tensor) -> Tensor:
    """The weight as im2col orders it: D'×D×k×k -> D'×kkD."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def matmul_input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient for x, B×D×h×w: each output position adds its part to its k×k inputs."""
    k, (rows, columns) = weight.shape[2], gradient.shape[2:]
    parts = gradient.permute(0, 2, 3, 1) @ as_matrix(weight)
    parts = parts.unflatten(-1, (k, k, -1))  # B×h'×w'×k×k×D
    sides = [side + 2 * padding for side in x.shape[2:]]
    summed = parts.new_zeros(len(x), *sides, x.shape[1], dtype=torch.float32)
    for i in range(k):
        for j in range(k):
            down, across = (slice(a, a + stride * n, stride) for a, n in ((i, rows), (j, columns)))
            summed[:, down, across] += parts[:, :, :, i, j]
    inner = [slice(padding, padding + side) for side in x.shape[2:]]
    return summed[(slice(None), *inner)].to(x.dtype).permute(0, 3, 1, 2)


def conv_input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The same with PyTorch's kernel."""
    geometry = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
    wanted = [True, False, False]  # the gradients for x, weight and bias
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted)[0]
