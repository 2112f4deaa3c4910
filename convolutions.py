"""Convolutions over small maps by matrix products: much quicker on a CPU in bfloat16.

PyTorch's kernels for the CPU work row by row of a map. Those of a ResNet's last stage are 7×7 at
224 pixels and 2×2 at 64, too short for matrix units (AMX) to be busy. With the neighbourhood of
every place laid out as a row of a matrix, a whole batch is one product instead; that pays where
there are few places, and for the gradient of the weights where there are not many.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

FEW, NOT_MANY = 16, 49  # places of the result; python benchmarks/bench.py convolutions


class Conv2d(nn.Conv2d):
    """A square convolution without bias or groups, computed in the quickest way."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D'×h'×w'."""
        (k, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        height, width = ((side + 2 * padding - k) // stride + 1 for side in x.shape[2:])
        low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if x.device.type == "cpu" and low and height * width <= NOT_MANY:
            return _Products.apply(x.bfloat16(), self.weight, stride, padding)
        return super().forward(x)


def with_products(module: nn.Module) -> nn.Module:
    """The same module, parameters and all, with its convolutions computed as above."""
    for part in module.modules():
        if type(part) is nn.Conv2d:
            part.__class__ = Conv2d
    return module


class _Products(torch.autograd.Function):
    """x B×D×h×w bfloat16, weight D'×D×k×k float32 -> B×D'×h'×w' bfloat16."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        low = weight.bfloat16()
        ctx.save_for_backward(x, low)
        ctx.geometry = stride, padding
        height, width = ((s + 2 * padding - weight.shape[2]) // stride + 1 for s in x.shape[2:])
        if height * width > FEW:
            return F.conv2d(x, low, None, stride, padding)
        seen = neighbourhoods(x, weight.shape[2], stride, padding)
        return (seen @ as_matrix(low).T).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding) = ctx.saved_tensors, ctx.geometry
        rows = gradient.permute(0, 2, 3, 1)  # B×h'×w'×D', as channels_last has it in memory
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = input_gradient(rows, x, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            k = weight.shape[2]  # to have kept the neighbourhoods would have taken k² the memory
            seen = neighbourhoods(x, k, stride, padding).flatten(0, 2)
            of_weight = (rows.flatten(0, 2).T @ seen).float()  # D'×kkD
            of_weight = of_weight.view(len(weight), k, k, -1).permute(0, 3, 1, 2)
        return of_x, of_weight, None, None


def neighbourhoods(x: Tensor, k: int, stride: int, padding: int) -> Tensor:
    """B×D×h×w -> B×h'×w'×kkD: the k×k places around each, with zeros beyond the edges."""
    places = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
    windows = places.unfold(1, k, stride).unfold(2, k, stride)  # B×h'×w'×D×k×k
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).contiguous()


def as_matrix(weight: Tensor) -> Tensor:
    """D'×D×k×k -> D'×kkD."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def input_gradient(rows: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The loss's gradient by x, from that by the result, B×h'×w'×D'."""
    (_, down, across, _), k = rows.shape, weight.shape[2]
    if down * across > FEW:
        arguments = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, False, False]
        gradient = rows.permute(0, 3, 1, 2)
        return torch.ops.aten.convolution_backward(gradient, x, weight, None, *arguments)[0]
    each = (rows @ as_matrix(weight)).view(*rows.shape[:3], k, k, -1)
    height, width = x.shape[2:]
    padded = rows.new_zeros(
        len(x), height + 2 * padding, width + 2 * padding, x.shape[1], dtype=torch.float32
    )
    for i in range(k):
        for j in range(k):
            padded[
                :, i : i + stride * down : stride, j : j + stride * across : stride
            ] += each[..., i, j, :]
    inner = padded[:, padding : padding + height, padding : padding + width]
    return inner.to(x.dtype).permute(0, 3, 1, 2)
