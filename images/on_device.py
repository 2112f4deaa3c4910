"""JPEG files decoded on a GPU, a batch at once: `--decode_on_gpu` of train.py and evaluate.py.

Processes that load images only read the files. A batch holds them as they are; its `to(device)`
decodes, crops, resizes and colours them there. torchcodec decodes, which works on CPUs, too: that
is how the tests run it.

The pixels differ from those of a CPU by rounding, and where a CPU decodes at a part of the size.
Decoders for GPUs do not notice all damage; `data_loader.py --check` does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from images.decode import load_pixels, read_plain_jpeg
from images.shards import ShardMember
from images.transforms import Transform, change_colours
from util.errors import UsageError
from util.log import log
from util.packages import check_packages

FLAG = "--decode_on_gpu"
MAX_PIXELS = 100_000_000  # decoded at the same time: 0.3 GB


def check_decoder(device: torch.device, cache: Path | None, skip_bad: bool) -> None:
    """Raise UsageError if images cannot be decoded on this device, or with the other flags.

    cache, skip_bad: what --cache and --skip_bad_images say.
    """
    for name, given in (("--cache", cache), ("--skip_bad_images", skip_bad)):
        if given:
            raise UsageError(f"{FLAG} and {name} exclude each other: leave one of them out")
    if device.type != "cuda":
        raise UsageError(f"{FLAG} needs a GPU: leave it out")
    check_packages(FLAG, "gpu", ["torchcodec"])
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception as error:  # of another version of torch or CUDA: it raises RuntimeError, too
        first = str(error).strip().partition("\n")[0]
        raise UsageError(f"{FLAG}: torchcodec does not work with this torch ({first})") from None


@dataclass(frozen=True)
class EncodedImage:
    """An image file that is read, but not decoded."""

    path: Path | ShardMember
    data: bytes | np.ndarray  # of a JPEG; the pixels H×W×3 uint8 of what only a CPU decodes
    num_pixels: int
    transform: Transform

    @classmethod
    def read(cls, path: Path | ShardMember, transform: Transform) -> EncodedImage:
        """Raises UsageError as `load_pixels` does, but not for damage behind a file's header."""
        if found := read_plain_jpeg(path):
            return cls(path, *found, transform)
        pixels = load_pixels(path, transform.side)
        return cls(path, pixels, pixels.shape[0] * pixels.shape[1], transform)

    @property
    def is_jpeg(self) -> bool:
        return isinstance(self.data, bytes)

    def decode_on_cpu(self) -> Tensor:
        """3×H×W uint8. Raises UsageError for a damaged file."""
        pixels = load_pixels(self.path, self.transform.side) if self.is_jpeg else self.data
        return torch.from_numpy(pixels).permute(2, 0, 1)


@dataclass(frozen=True)
class EncodedImages:
    """A batch of them, all with the same `side` S of their transforms."""

    images: list[EncodedImage]
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, non_blocking: bool = False) -> Tensor:
        """Decode, crop, flip and colour on the device: B×3×S×S uint8, channels_last.

        Named like a tensor's method, so that a batch of either kind is used in the same way.
        Raises UsageError for a damaged file.
        """
        batch = torch.empty(
            (len(self), 3, self.side, self.side),
            dtype=torch.uint8,
            device=device,
            memory_format=torch.channels_last,
        )
        transforms = [image.transform for image in self.images]
        place = 0
        for some in _portions(self.images):
            for image, pixels in zip(some, _decode(some, device), strict=True):
                aspect = pixels.shape[2] / pixels.shape[1]
                batch[place] = image.transform.crop_and_resize(pixels, aspect)
                place += 1
        flipped = torch.tensor([t.flipped for t in transforms], dtype=torch.bool, device=device)
        batch = torch.where(flipped.view(-1, 1, 1, 1), batch.flip(3), batch)
        if any(t.colours != (1, 1, 1) for t in transforms):
            batch = change_colours(batch, [t.colours for t in transforms])
        for place, transform in enumerate(transforms):
            if transform.seed is not None:
                batch[place] = transform.rand_augment(batch[place])
        return batch


@functools.cache
def _say_once(reason: str) -> None:
    log(f"{FLAG}: the CPU decodes images that the GPU refused ({reason})")


def _portions(images: list[EncodedImage]) -> Iterator[list[EncodedImage]]:
    """In order, at most MAX_PIXELS at a time or a single image."""
    some, total = [], 0
    for image in images:
        if some and total + image.num_pixels > MAX_PIXELS:
            yield some
            some, total = [], 0
        some.append(image)
        total += image.num_pixels
    if some:
        yield some


def _decode(images: list[EncodedImage], device: torch.device) -> list[Tensor]:
    """Each image 3×H×W uint8 on the device. Raises UsageError for a damaged file."""
    from torchcodec.decoders import decode_jpeg  # an optional package

    jpegs = [image.data for image in images if image.is_jpeg]
    try:
        decoded = iter(decode_jpeg(jpegs, device=device) if jpegs else [])
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # it names no file, and Pillow may still read it
        _say_once(str(error).strip().partition("\n")[0])
        decoded = None
    return [
        next(decoded) if image.is_jpeg and decoded else image.decode_on_cpu().to(device)
        for image in images
    ]
