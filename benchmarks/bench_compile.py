"""Whether torch.compile pays: an encoder's forward and backward pass, compiled, against as it is.

torchvision's own encoder, in the precision of --amp auto: what `convolutions.py` does on CPUs with
matrix units, torch.compile cannot follow. Needs a C++ compiler (on a GPU, Triton). Compiling itself
is not counted; the log says how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from material import plain_encoder, wait
from timing import Ratio, side_by_side

from utils import autocast, log, pick_device

SIZE, BATCH_SIZE = 224, 32


def measure() -> Iterator[Ratio]:
    """A row for each of two encoders."""
    device = pick_device("auto")
    amp = autocast(device, "auto")
    images = torch.randn(BATCH_SIZE, 3, SIZE, SIZE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    for arch in ("resnet18", "resnet50"):
        encoder = plain_encoder(arch, device)

        def step(see: Callable, encoder: torch.nn.Module = encoder) -> None:
            encoder.zero_grad()
            with amp:
                loss = see(images).float().mean()
            loss.backward()
            wait()

        compiled = torch.compile(encoder)
        started = time.perf_counter()
        step(compiled)
        log(f"{arch}: compiled in {time.perf_counter() - started:.0f} s")
        name = f"forward + backward, {arch}, compiled : as it is"
        yield side_by_side(name, partial(step, compiled), partial(step, encoder), 9)
