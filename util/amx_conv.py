"""Convolutions over small maps by matrix products: much quicker on a CPU in bfloat16.

PyTorch's kernels for the CPU work row by row of a map. Those of a ResNet's last stage are 7×7 at
224 pixels and 2×2 at 64, too short for matrix units (AMX) to be busy. With the neighbourhood of
every place laid out as a row of a matrix, a whole batch is one product instead; that pays where
there are few places, and for the gradient of the weights where there are not many.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

# places of the result up to which all, and the weights' gradient alone, were quicker: a ResNet's
# shapes at 64, 128 and 224 pixels timed one by one (benchmarks/speed/bench_convolutions.py: the sum)
FEW, NOT_MANY = 16, 49


class ProductConv2d(nn.Conv2d):
    """A plain square convolution; in bfloat16, over small maps, on matrix units: by products."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D'×h'×w'."""
        bf16 = torch.is_autocast_enabled("cpu") and (
            torch.get_autocast_dtype("cpu") == torch.bfloat16
        )
        if not (bf16 and x.device.type == "cpu" and has_matrix_units()):
            return super().forward(x)
        (k, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        height, width = ((side + 2 * padding - k) // stride + 1 for side in x.shape[2:])
        if height * width > NOT_MANY:
            return super().forward(x)
        return _Products.apply(x.bfloat16(), self.weight, stride, padding, height * width <= FEW)


@functools.cache
def has_matrix_units() -> bool:
    """Whether this CPU has AMX: with vector units alone, products are no quicker."""
    return torch.cpu.get_capabilities().get("amx_bf16", False)


def with_products(module: nn.Module) -> nn.Module:
    """The same module; its plain square convolutions become ProductConv2d, parameters and all."""
    for part in module.modules():
        if type(part) is nn.Conv2d and is_plain(part):
            part.__class__ = ProductConv2d
    return module


def is_plain(convolution: nn.Conv2d) -> bool:
    """Square, padded with zeros, without bias, groups or dilation: as ResNets have them."""
    c = convolution
    simple = c.bias is None and c.groups == 1 and c.dilation == (1, 1)
    sides = c.kernel_size, c.stride, c.padding
    square = not isinstance(c.padding, str) and all(high == wide for high, wide in sides)
    return simple and square and c.padding_mode == "zeros"


class _Products(torch.autograd.Function):
    """x B×D×h×w bfloat16, weight D'×D×k×k float32 -> B×D'×h'×w' bfloat16.

    few: everything by products; else no more than the gradient of the weights. It can be
    differentiated once.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int, few: bool
    ) -> Tensor:
        low = weight.bfloat16()
        ctx.save_for_backward(x, low)
        ctx.geometry, ctx.few = (stride, padding), few
        if not few:
            return F.conv2d(x, low, None, stride, padding)
        seen = neighbourhoods(x, weight.shape[2], stride, padding)
        return (seen @ as_matrix(low).T).permute(0, 3, 1, 2)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            by_input = products_by_input if ctx.few else convolution_by_input
            of_x = by_input(gradient, x, weight, *ctx.geometry)
        if ctx.needs_input_grad[1]:
            k = weight.shape[2]  # to have kept the neighbourhoods would have taken k² the memory
            seen = neighbourhoods(x, k, *ctx.geometry).flatten(0, 2)
            rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
            of_weight = (rows.T @ seen).float().view(len(weight), k, k, -1).permute(0, 3, 1, 2)
        return of_x, of_weight, None, None, None


def neighbourhoods(x: Tensor, k: int, stride: int, padding: int) -> Tensor:
    """B×D×h×w -> B×h'×w'×kkD: the k×k places around each, with zeros beyond the edges."""
    places = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
    windows = places.unfold(1, k, stride).unfold(2, k, stride)  # B×h'×w'×D×k×k
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).contiguous()


def as_matrix(weight: Tensor) -> Tensor:
    """D'×D×k×k -> D'×kkD."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def products_by_input(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient by x: every place of the result gives each of its neighbours its share."""
    k, (rows, columns) = weight.shape[2], gradient.shape[2:]
    shares = gradient.permute(0, 2, 3, 1) @ as_matrix(weight)
    shares = shares.unflatten(-1, (k, k, -1))  # B×h'×w'×k×k×D
    sides = [side + 2 * padding for side in x.shape[2:]]
    summed = shares.new_zeros(len(x), *sides, x.shape[1], dtype=torch.float32)
    for i in range(k):
        for j in range(k):
            down, across = (slice(a, a + stride * n, stride) for a, n in ((i, rows), (j, columns)))
            summed[:, down, across] += shares[:, :, :, i, j]
    inner = [slice(padding, padding + side) for side in x.shape[2:]]
    return summed[(slice(None), *inner)].to(x.dtype).permute(0, 3, 1, 2)


def convolution_by_input(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int
) -> Tensor:
    """The same by PyTorch's own kernel."""
    geometry = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
    only = [True, False, False]
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, only)[0]
