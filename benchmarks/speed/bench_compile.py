"""Does torch.compile pay? An encoder compiled, against the same encoder not compiled.

It is torchvision's encoder, in the precision of --amp auto: torch.compile cannot follow the matrix
products of util/amx_conv.py. Needs a C++ compiler (on a GPU, Triton). Compiling is not part of the
times; the log says how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from material import encoder_step, plain_encoder, random_images, wait
from timing import Ratio, side_by_side

from util.device import autocast, pick_device
from util.log import log

STEPS = 8  # in a round


def measure() -> Iterator[Ratio]:
    """Rows for two encoders: forward and backward, and forward only."""
    device = pick_device("auto")
    amp = autocast(device, "auto")
    size, batch_size = (448, 64) if device.type == "cuda" else (224, 32)
    images = random_images(batch_size, size, device)

    def train(encoder: Callable) -> None:
        for _ in range(STEPS):
            encoder_step(encoder, images, amp)
        wait()

    @torch.no_grad()
    def forward(encoder: Callable) -> None:
        for _ in range(STEPS):
            with amp:
                encoder(images)
        wait()

    for arch in ("resnet18", "resnet50"):
        for name, work in (("forward + backward", train), ("forward", forward)):
            encoder = plain_encoder(arch, device).train(work is train)
            compiled = torch.compile(encoder)
            started = time.perf_counter()
            work(compiled)
            log(f"{arch}, {name}: compiled in {time.perf_counter() - started:.0f} s")
            ways = (partial(work, each) for each in (compiled, encoder))
            row = side_by_side(f"{name}, {arch}, {size} px, compiled : not compiled", *ways)
            yield row.with_rates(STEPS * batch_size)
