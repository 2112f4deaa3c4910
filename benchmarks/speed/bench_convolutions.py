"""Forward and backward pass with our convolutions, against PyTorch's.

ResNets: small maps by matrix products. EfficientNet-Lite0: the backward pass of depthwise filters.
In the precision of --amp auto. In float32, or on a GPU, both sides are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import timm
import torch
from material import encoder_step, plain_encoder, random_images, wait
from timing import Ratio, side_by_side
from torch import Tensor, nn

from util.amx_conv import use_matmul_convs
from util.depthwise_conv import use_fast_depthwise_convs
from util.device import autocast, pick_device

SIZES = {64: 64, 128: 32, 224: 32}  # pixels -> images
DEPTHWISE = "tf_efficientnet_lite0"


def measure() -> Iterator[Ratio]:
    """A row for each encoder and image size."""
    device = pick_device("auto")
    amp = autocast(device, "auto")
    for arch in ("resnet18", "resnet50"):
        plain = plain_encoder(arch, device)
        ours = use_matmul_convs(copy.deepcopy(plain))
        for size, batch_size in SIZES.items():
            images = random_images(batch_size, size, device)
            steps = (partial(step, each, images, amp) for each in (ours, plain))
            name = f"forward + backward, {arch}, {size} px, products : without"
            yield side_by_side(name, *steps, 9)
    plain = timm.create_model(DEPTHWISE, num_classes=0)
    plain = plain.to(device, memory_format=torch.channels_last)
    ours = use_fast_depthwise_convs(copy.deepcopy(plain))
    for size, batch_size in SIZES.items():
        images = random_images(batch_size, size, device)
        steps = (partial(step, each, images, amp) for each in (ours, plain))
        name = f"forward + backward, {DEPTHWISE}, {size} px, our depthwise : PyTorch's"
        yield side_by_side(name, *steps, 9)


def step(encoder: nn.Module, images: Tensor, amp: torch.autocast) -> None:
    """Forward and backward, finished."""
    encoder_step(encoder, images, amp)
    wait()
