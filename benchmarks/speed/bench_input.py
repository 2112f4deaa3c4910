"""From an image file to a training tensor: against the classic tutorial code, and cached.

Our side does all of it: decoding, a random crop resized with antialiasing, flipping, brightness,
contrast and saturation. The tutorial code opens, converts, resizes the whole image to a square
(Pillow's default, bicubic) and converts to float, without augmentation. One thread, no workers.
At last what that is beside a training step of the encoder alone: no training from files on the same
cores can be faster than the sum of both.
The photos are the 640×480 ones of ../shared if it exists, else generated ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from material import encoder_step, plain_encoder, random_images
from PIL import Image
from timing import Ratio, side_by_side
from torchvision.transforms.functional import to_tensor

from data_loader import LabelledImages
from images.cache import ImageCache
from images.transforms import Preprocessing
from util.device import autocast, pick_device

SHARED = Path(__file__).resolve().parents[3] / "shared/coco-sample/images"
IMAGE_SIZE = 224
NUM_IMAGES = 32


def measure() -> Iterator[Ratio]:
    """Our code against the tutorial's, with and without a cache, and beside the encoder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from rows(Path(folder))
    finally:
        torch.set_num_threads(threads)


def rows(folder: Path) -> Iterator[Ratio]:
    """The rows; files are written to `folder`."""
    files, kind = find_photos() or (make_photos(folder), "generated")
    kilobytes = sum(f.stat().st_size for f in files) / len(files) / 1000
    note = f"{len(files)} {kind} photos of {kilobytes:.0f} kB; the reference does not augment"
    ours = epochs_of(files)
    name = "640×480 JPEG → 224 px training tensor ÷ plain PIL open-convert-resize"
    yield side_by_side(name, ours, lambda: [plain(f) for f in files], 9, at_least=2, note=note)
    cache = ImageCache(folder / "cache", files, Preprocessing(IMAGE_SIZE).cache_side()).prepare(0)
    name = "the same with --cache ÷ without"
    cached = epochs_of(files, cache)
    yield side_by_side(name, cached, ours, 9, note="file in memory")
    for name, load in (("from the JPEG", ours), ("with --cache", cached)):
        what = f"loading images {name}, one thread : a step of the bare ResNet-18 with them"
        row = side_by_side(what, load, encoder_steps(len(files)), 5)
        times = [1000 * seconds / len(files) for seconds in (row.ours, row.reference)]
        yield replace(row, note=f"{times[0]:.1f} and {times[1]:.0f} ms an image")


def epochs_of(files: list[Path], cache: ImageCache | None = None) -> Callable[[], object]:
    """A function that loads each file once, with other augmentations in each call."""
    targets = np.zeros((len(files), 1))
    data = LabelledImages(files, targets, Preprocessing(IMAGE_SIZE), seed=0, cache=cache)
    epochs = iter(range(1_000_000))

    def load() -> None:
        epoch = next(epochs)
        for i in range(len(data)):
            data[epoch, i]

    return load


def encoder_steps(num_images: int) -> Callable[[], object]:
    """A training step of torchvision's ResNet-18 on as many images in memory."""
    device = pick_device("cpu")
    encoder, amp = plain_encoder("resnet18", device), autocast(device, "auto")
    images = random_images(num_images, IMAGE_SIZE, device)
    return lambda: encoder_step(encoder, images, amp)


def plain(file: Path) -> torch.Tensor:
    """The classic tutorial code for test images."""
    return to_tensor(Image.open(file).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE)))


def find_photos() -> tuple[list[Path], str] | None:
    """Real 640×480 or 480×640 photos, if there are enough of them."""
    sizes = ((640, 480), (480, 640))
    found = [f for f in sorted(SHARED.glob("*/*.jpg")) if Image.open(f).size in sizes]
    return (found[:NUM_IMAGES], "real") if len(found) >= NUM_IMAGES else None


def make_photos(folder: Path) -> list[Path]:
    """JPEGs of noise at all scales, stronger at coarse scales as in photos, quality 90."""
    rng = np.random.default_rng(0)
    files = [folder / f"{i}.jpg" for i in range(NUM_IMAGES)]
    for file in files:
        pixels = np.full((480, 640, 3), 128.0)
        for scale in (1, 2, 4, 8, 16, 32, 64, 128):
            small = rng.normal(0, 255, (480 // scale + 1, 640 // scale + 1, 3)).clip(-255, 255)
            layer = Image.fromarray(np.uint8(small / 2 + 128)).resize((640, 480), Image.BILINEAR)
            pixels += (np.asarray(layer) - 128.0) * min(max(scale, 8), 32) / 64
        Image.fromarray(np.uint8(pixels.clip(0, 255))).save(file, quality=90)
    return files
