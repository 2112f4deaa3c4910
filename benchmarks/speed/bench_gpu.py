"""A GPU's rows: large ResNets at 448 px, trained on JPEGs and applied to them, against the encoder.

Shares of the encoder's own rate, and of what the GPU reaches in one large bfloat16 matrix product.
Without a GPU there is nothing to measure. bench_compile.py says what torch.compile would gain.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from bench_training import BareEncoder, InMemory, OurLoop
from material import label_sets, wait, write_photos
from timing import Ratio, side_by_side
from torch.utils.flop_counter import FlopCounterMode

from data_loader import LabelledImages, make_loader
from images.transforms import Preprocessing
from inference.predictions import encode_batches
from training.validation import predict
from util.device import pick_device
from util.log import log

SIZE, BATCH_SIZE, STEPS = 448, 64, 32
SIDE = 8192  # of the matrix product


def measure() -> Iterator[Ratio]:
    """Rows for ResNet-50 and ResNet-101."""
    if pick_device("auto").type != "cuda":
        return log("there is no GPU here: nothing is measured")
    peak = matrix_product_rate()
    log(f"{SIDE}×{SIDE}×{SIDE} bfloat16 matrix product: {peak / 1e12:.0f} TFLOP/s")
    torch.manual_seed(0)
    targets = label_sets()
    targets = targets[torch.randperm(len(targets))[: STEPS * BATCH_SIZE]]
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder), targets)
        for arch in ("resnet50", "resnet101"):
            yield from rows_of(arch, files, peak)


def matrix_product_rate() -> float:
    """Operations per second, the best of ten."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        wait()
        started = time.perf_counter()
        a @ b
        wait()
        times.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(times[3:])


def rows_of(arch: str, files: tuple[Path, Path], peak: float) -> Iterator[Ratio]:
    """Training and inference."""
    workers = ("--num_workers", str(os.cpu_count()))
    ours = OurLoop(arch, "chain", *files, *workers, size=SIZE, batch_size=BATCH_SIZE)
    encoder = BareEncoder(ours)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.encoder(encoder.images[:1])
    flops = counter.get_total_flops()  # of an image's way forward

    def timed(name: str, work: Callable, alone: Callable, passes: int) -> Ratio:
        row = side_by_side(f"{name}, {arch}, {SIZE} px : its encoder alone", work, alone, rounds=3)
        rates = [STEPS * BATCH_SIZE / seconds for seconds in (row.ours, row.reference)]
        shares = [100 * rate * passes * flops / peak for rate in rates]
        note = (
            f"{rates[0]:,.0f} and {rates[1]:,.0f} images/s, {shares[0]:.0f} and {shares[1]:.0f} %"
        )
        return replace(row, note=f"{note} of {peak / 1e12:.0f} TFLOP/s")

    yield timed("training from JPEGs", ours, encoder, 3)
    inference = BareInference(ours)
    yield timed("encoding and decoding JPEGs, batch 256", Evaluation(ours, 256), inference, 1)
    name = f"encoding and decoding JPEGs, batch {BATCH_SIZE}"
    yield timed(name, Evaluation(ours, BATCH_SIZE), inference, 1)
    ours.loader = InMemory(ours.loader)
    yield timed("training from memory", ours, encoder, 3)


class BareInference(BareEncoder):
    """The encoder's way forward only, in test mode."""

    def __init__(self, ours: OurLoop) -> None:
        super().__init__(ours)
        self.encoder.eval()

    @torch.inference_mode()
    def __call__(self) -> None:
        for _ in range(self.steps):
            with self.amp:
                self.encoder(self.images)
        wait()


class Evaluation:
    """All images encoded and decoded as evaluate.py does."""

    def __init__(self, ours: OurLoop, batch_size: int) -> None:
        data, self.amp = ours.loader.dataset, ours.amp
        data = LabelledImages(data.paths, data.targets.numpy(), Preprocessing(SIZE))
        self.loader = make_loader(data, batch_size, ours.args.num_workers, pin_memory=True)
        self.model = ours.state.ema

    def __call__(self) -> None:
        predict(self.model, encode_batches(self.model, self.loader, self.amp), num_samples=128)
