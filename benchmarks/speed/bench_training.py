"""Training against the classic tutorial loop and against torchvision's encoder alone; the decoder.

An epoch of training has six steps. Both loops use as many processes to load images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from classic_loop import ClassicProcess
from loops import BareEncoder, InMemory, OurLoop
from material import label_sets, wait, write_photos
from timing import Ratio, side_by_side
from torch import Tensor

from model import HybridNet, bernoulli_nll
from util.device import pick_device

SIZE, BATCH_SIZE, STEPS = 224, 32, 6
DECODER_BATCH = 256


def measure() -> Iterator[Ratio]:
    """Rows of images per second, and of the decoder's time."""
    targets = label_sets()
    yield decoder_row(targets)
    yield from label_rows()
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder), targets[: STEPS * BATCH_SIZE])
        cache = ("--cache", str(Path(folder) / "cache"))
        for arch in ("resnet18", "resnet50"):
            yield from classic_rows(arch, files)
        for decoder, at_least in (("chain", 0.90), ("none", 0.97)):
            yield from encoder_rows(decoder, at_least, files, cache)


def classic_rows(arch: str, files: tuple[Path, Path]) -> Iterator[Ratio]:
    """The loop and the bare encoder, both against the classic loop."""
    ours = our_loop(arch, "chain", files)
    classic = ClassicProcess(ours, files[0])
    name = f"training, {arch}, {SIZE} px : classic float32 loop"
    yield epochs(name, ours, classic, 4, at_least=3)
    name = f"its limit: torchvision's {arch} alone, from memory : classic float32 loop"
    yield epochs(name, BareEncoder(ours), classic, 4)
    classic.close()


def encoder_rows(
    decoder: str, at_least: float, files: tuple[Path, Path], cache: tuple[str, str]
) -> Iterator[Ratio]:
    """The loop with images from files, from the cache and from memory, against the bare encoder."""
    ours = our_loop("resnet18", decoder, files)
    encoder = BareEncoder(ours)
    name = f"training, resnet18 + {decoder} : torchvision's encoder alone"
    yield epochs(f"{name}, from files", ours, encoder, at_least=at_least)
    cached = our_loop("resnet18", decoder, files, *cache)
    yield epochs(f"{name}, from files with --cache", cached, encoder, at_least=at_least)
    ours.loader = InMemory(ours.loader)
    yield epochs(f"{name}, from memory", ours, encoder, 9, at_least=at_least)


our_loop = partial(OurLoop, size=SIZE, batch_size=BATCH_SIZE)


def epochs(
    name: str, ours: Callable, reference: Callable, rounds: int = 5, **targets: float
) -> Ratio:
    """A row that times an epoch of both."""
    row = side_by_side(name, ours, reference, rounds, **targets)
    return row.with_rates(STEPS * BATCH_SIZE)


def random_stages(num_images: int, device: torch.device) -> list[Tensor]:
    """Random features in the shapes of ResNet-18's last three stages, for images of 224 pixels."""
    shapes = ((128, 28), (256, 14), (512, 7))
    stages = [torch.randn(num_images, width, side, side, device=device) for width, side in shapes]
    return [f.relu().contiguous(memory_format=torch.channels_last) for f in stages]


def decoder_row(targets: Tensor) -> Ratio:
    """Forward and backward from the encoder's features on, against independent logits."""
    device = pick_device("auto")
    batches = targets[: 4 * DECODER_BATCH].float().split(DECODER_BATCH)
    stages = [features.requires_grad_() for features in random_stages(DECODER_BATCH, device)]

    def epoch(decoder: str) -> Callable[[], None]:
        model = HybridNet(targets.shape[1], "resnet18", decoder, stages=len(stages)).to(device)

        def run() -> None:
            for batch in batches:
                for features in stages:
                    features.grad = None
                model.zero_grad()
                encoding = model.encode_features(stages)
                loss = bernoulli_nll(model.set_logits(encoding, batch), batch.to(device)).mean()
                if decoder != "none":
                    loss = loss + bernoulli_nll(encoding.cnn_logits, batch.to(device)).mean()
                loss.backward()
            wait()

        return run

    name = f"time of chain's decoder : independent head, batch {DECODER_BATCH}"
    row = side_by_side(name, epoch("chain"), epoch("none"), 9, at_most=4)
    return row.with_milliseconds(len(batches))


def label_rows() -> Iterator[Ratio]:
    """A step of the chain decoder with many labels against 80; the target is linear growth."""
    device = pick_device("auto")
    stages = random_stages(BATCH_SIZE, device)

    def step(num_labels: int) -> Callable[[], None]:
        model = HybridNet(num_labels, "resnet18", stages=len(stages)).to(device)
        targets = torch.zeros(BATCH_SIZE, num_labels)
        targets.scatter_(1, torch.randint(num_labels, (BATCH_SIZE, 3)), 1)  # as many as in COCO

        def run() -> None:
            encoding = model.encode_features(stages)
            bernoulli_nll(model.set_logits(encoding, targets), targets.to(device)).mean().backward()
            model.zero_grad()
            wait()

        return run

    for num_labels in (1000, 10_000):
        name = f"time of a decoder step, {num_labels:,} labels : 80 labels, batch {BATCH_SIZE}"
        row = side_by_side(name, step(num_labels), step(80), 9, at_most=num_labels / 80)
        yield row.with_milliseconds()
