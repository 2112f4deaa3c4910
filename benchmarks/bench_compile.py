"""Whether torch.compile pays: a training step with the encoder compiled, against the step as it is.

Needs a C++ compiler (on a GPU, Triton). Compiling itself is not counted; the log says how long it
took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from material import NUM_LABELS, wait
from timing import Ratio, side_by_side

from model import STAGES_READ, HybridNet
from utils import autocast, log, pick_device

SIZE, BATCH_SIZE = 224, 32


def measure() -> Iterator[Ratio]:
    """A row for each of two encoders."""
    device = pick_device("auto")
    images = torch.randint(0, 256, (BATCH_SIZE, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    targets = (torch.rand(BATCH_SIZE, NUM_LABELS) < 0.04).float()
    amp = autocast(device, "auto")
    for arch in ("resnet18", "resnet50"):
        model = HybridNet(arch, NUM_LABELS, stages=STAGES_READ).to(device)

        def step(see: Callable, model: HybridNet = model) -> None:
            model.zero_grad()
            model.see = see
            with amp:
                losses = model(images, targets)
            (losses["set_nll"] + losses["cnn_bce"]).mean().backward()
            wait()

        plain, compiled = model.see, torch.compile(model.see)
        started = time.perf_counter()
        step(compiled)
        log(f"{arch}: compiled in {time.perf_counter() - started:.0f} s")
        name = f"training step, {arch}, compiled : as it is"
        yield side_by_side(name, partial(step, compiled), partial(step, plain), 9)
