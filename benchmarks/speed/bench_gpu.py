"""Large ResNets on a GPU at 448 px: training and inference on JPEGs, against the encoder alone.

The JPEGs are decoded by the CPU, then, if torchcodec is installed, by the GPU (--decode_on_gpu).
Rates are also given as shares of what the GPU reaches in one large bfloat16 matrix product. Without
a GPU there are no rows. bench_compile.py shows what torch.compile would gain.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from loops import BareEncoder, InMemory, OurLoop
from material import label_sets, wait, write_photos
from timing import Ratio, side_by_side
from torch.utils.flop_counter import FlopCounterMode

from data_loader import LabelledImages, make_loader
from images.on_device import check_decoder
from images.transforms import Preprocessing
from inference.predictions import encode_batches
from training.validation import decode_all
from util.device import pick_device
from util.errors import UsageError
from util.log import log

SIZE, BATCH_SIZE, STEPS = 448, 64, 32
SIDE = 8192  # rows and columns of the matrices
NUM_SAMPLES = 128  # label sets for the marginals of each image


def measure() -> Iterator[Ratio]:
    """Rows for ResNet-50 and ResNet-101."""
    if pick_device("auto").type != "cuda":
        log("there is no GPU: nothing is measured")
        return
    peak = matrix_product_rate()
    log(f"{SIDE}×{SIDE}×{SIDE} bfloat16 matrix product: {peak / 1e12:.0f} TFLOP/s")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder), label_sets()[: STEPS * BATCH_SIZE])
        for arch in ("resnet50", "resnet101"):
            yield from rows_of(arch, files, peak)


def matrix_product_rate() -> float:
    """Floating-point operations per second, the best of ten products."""
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
    """Training and inference with one encoder."""
    workers = ("--num_workers", str(os.cpu_count()))
    ours = OurLoop(arch, "chain", files, *workers, size=SIZE, batch_size=BATCH_SIZE)
    encoder = BareEncoder(ours)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.encoder(encoder.images[:1])
    flops = counter.get_total_flops()  # forward, one image

    def timed(name: str, work: Callable, alone: Callable, passes: int) -> Ratio:
        row = side_by_side(f"{name}, {arch}, {SIZE} px : its encoder alone", work, alone, rounds=3)
        row = row.with_rates(STEPS * BATCH_SIZE)
        shares = [100 * rate * passes * flops / peak for rate in row.rates(STEPS * BATCH_SIZE)]
        percent = f"{shares[0]:.0f} and {shares[1]:.0f} % of {peak / 1e12:.0f} TFLOP/s"
        return replace(row, note=f"{row.note}, {percent}")

    loops, forward = {"": ours}, BareForward(ours)
    try:
        check_decoder(ours.device, cache=None, skip_bad=False)
        more = (*workers, "--decode_on_gpu")
        loops[" decoded on the GPU"] = OurLoop(
            arch, "chain", files, *more, size=SIZE, batch_size=BATCH_SIZE
        )
    except UsageError as error:
        log(str(error))
    for where, loop in loops.items():
        # backward costs as much as two forward
        yield timed(f"training from JPEGs{where}", loop, encoder, 3)
        for size in (256, BATCH_SIZE):
            name = f"JPEGs{where} to label sets, batch {size}"
            yield timed(name, Inference(loop, size), forward, 1)
    ours.loader = InMemory(ours.loader)
    yield timed("training from memory", ours, encoder, 3)


class BareForward(BareEncoder):
    """The encoder's forward pass only, in evaluation mode."""

    def __init__(self, ours: OurLoop) -> None:
        super().__init__(ours)
        self.encoder.eval()

    @torch.inference_mode()
    def __call__(self) -> None:
        for _ in range(self.steps):
            with self.amp:
                self.encoder(self.images)
        wait()


class Inference:
    """All images encoded and decoded as in evaluate.py."""

    def __init__(self, ours: OurLoop, batch_size: int) -> None:
        data, self.amp = ours.loader.dataset, ours.amp
        data = LabelledImages(
            data.paths, data.targets.numpy(), Preprocessing(SIZE), encoded=data.encoded
        )
        self.loader = make_loader(data, batch_size, ours.args.num_workers, pin_memory=True)
        self.model = ours.state.ema

    def __call__(self) -> None:
        encoded = encode_batches(self.model, self.loader, self.amp)
        decode_all(self.model, encoded, NUM_SAMPLES)
