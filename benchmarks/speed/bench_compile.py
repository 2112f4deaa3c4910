"""Whether torch.compile pays: an encoder's passes, compiled, against as it is.

torchvision's own encoder, in the precision of --amp auto: what `convolutions.py` does on CPUs with
matrix units, torch.compile cannot follow. Needs a C++ compiler (on a GPU, Triton). Compiling itself
is not counted; the log says how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from material import plain_encoder, wait
from timing import Ratio, side_by_side

from util.device import autocast, pick_device
from util.log import log

STEPS = 8  # a round


def measure() -> Iterator[Ratio]:
    """Rows for two encoders: training, and the way forward in test mode."""
    device = pick_device("auto")
    amp = autocast(device, "auto")
    size, batch_size = (448, 64) if device.type == "cuda" else (224, 32)
    images = torch.randn(batch_size, 3, size, size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def train(encoder: torch.nn.Module, see: Callable) -> None:
        for _ in range(STEPS):
            encoder.zero_grad()
            with amp:
                loss = see(images).float().mean()
            loss.backward()
        wait()

    @torch.no_grad()
    def look(encoder: torch.nn.Module, see: Callable) -> None:
        for _ in range(STEPS):
            with amp:
                see(images)
        wait()

    for arch in ("resnet18", "resnet50"):
        for name, work in (("forward + backward", train), ("forward", look)):
            encoder = plain_encoder(arch, device).train(work is train)
            compiled = torch.compile(encoder)
            started = time.perf_counter()
            work(encoder, compiled)
            log(f"{arch}, {name}: compiled in {time.perf_counter() - started:.0f} s")
            ways = (partial(work, encoder, see) for see in (compiled, encoder))
            row = side_by_side(f"{name}, {arch}, {size} px, compiled : as it is", *ways)
            rates = [STEPS * batch_size / seconds for seconds in (row.ours, row.reference)]
            yield replace(row, note=f"{rates[0]:,.0f} and {rates[1]:,.0f} images/s")
