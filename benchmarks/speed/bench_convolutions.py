"""A ResNet's forward and backward pass with its small maps by matrix products, against without.

In the precision of --amp auto: where that is float32, or on a GPU, both sides are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from material import plain_encoder, wait
from timing import Ratio, side_by_side
from torch import nn

from util.amx_conv import use_matmul_convs
from util.device import autocast, pick_device

SIZES = {64: 64, 128: 32, 224: 32}  # pixels -> images


def measure() -> Iterator[Ratio]:
    """A row for each encoder and size of picture."""
    device = pick_device("auto")
    amp = autocast(device, "auto")
    for arch in ("resnet18", "resnet50"):
        plain = plain_encoder(arch, device)
        ours = use_matmul_convs(copy.deepcopy(plain))
        for size, batch_size in SIZES.items():
            images = torch.randn(batch_size, 3, size, size, device=device)
            images = images.contiguous(memory_format=torch.channels_last)

            def step(encoder: nn.Module, images: torch.Tensor = images) -> Callable[[], None]:
                def run() -> None:
                    encoder.zero_grad()
                    with amp:
                        loss = encoder(images).float().mean()
                    loss.backward()
                    wait()

                return run

            name = f"forward + backward, {arch}, {size} px, products : without"
            yield side_by_side(name, step(ours), step(plain), 9)
