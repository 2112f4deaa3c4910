"""Decoded pixels -> model input: resize, training augmentation, uint8 tensors 3×S×S."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from images.decode import load_pixels
from images.shards import ShardMember

ASPECTS = (3 / 4, 4 / 3)  # width / height of a training crop
GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R 601)
MAX_SIDE = 8192  # pixels of the model's input: a batch of four then has a gigabyte


@dataclass(frozen=True)
class Preprocessing:
    """From a picture file to the model's input; plain values, kept in every checkpoint.

    Test: the whole picture squeezed to a square, so that nothing at its edges is lost.
    Training: a crop of at least `min_crop` of the area and as nearly square as ASPECTS, mirrored
    half of the time, brightness, contrast and saturation changed by up to `jitter`. (Of a
    panorama no crop is both; it keeps the area and comes as near to square as that allows.)
    """

    image_size: int
    min_crop: float = 0.7
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Raise ValueError for what no picture can be made of: it may come from any file."""
        if type(self.image_size) is not int or not 1 <= self.image_size <= MAX_SIDE:
            raise ValueError(f"image_size is not a whole number from 1 to {MAX_SIDE}")
        if not (0 < self.min_crop <= 1 and 0 <= self.jitter <= 1):
            raise ValueError("min_crop or jitter is not a share")

    def to_dict(self) -> dict[str, float]:
        """Plain types for the checkpoint; `Preprocessing(**d)` brings it back."""
        return asdict(self)

    def eval_transform(self) -> Transform:
        """The whole picture as it is."""
        return Transform(self.image_size)

    def train_transform(self, rng: np.random.Generator) -> Transform:
        """A random view; all that is random in it is drawn here."""
        area, shape, across, down, mirror, *colours = rng.random(8).tolist()
        return Transform(
            self.image_size,
            1 - area * (1 - self.min_crop),
            shape,
            across,
            down,
            mirror < 0.5,
            *(1 + self.jitter * (2 * u - 1) for u in colours),
        )

    def cache_side(self) -> int:
        """Pixels a side at which a cached picture still has the pixels for its smallest crop.

        That is so where the crop is as oblong as the picture; one side of another falls
        short of S by at most 1 - sqrt(min_crop), 16 %.
        """
        return 8 * math.ceil(self.image_size / math.sqrt(self.min_crop) / 8)


@dataclass(frozen=True)
class Transform:
    """One way to look at a picture; the same for a picture decoded at any size.

    side                 pixels S of the result
    area                 share of the picture's area that is seen
    shape, across, down  0..1: narrowest to widest crop allowed, far left to right, top to bottom
    brightness, contrast, saturation   factors, 1 leaves as it is
    """

    side: int
    area: float = 1.0
    shape: float = 0.5
    across: float = 0.5
    down: float = 0.5
    mirrored: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    def from_file(self, path: Path | ShardMember) -> Tensor:
        """What is seen of a picture file, 3×S×S uint8. Raises UsageError as `load_pixels` does."""
        # a crop may fall short of S by 1 - sqrt(min_crop), but not of the detail seen at test
        pixels = load_pixels(path, self.side)
        return self(pixels, pixels.shape[1] / pixels.shape[0])

    def __call__(self, pixels: np.ndarray, aspect: float) -> Tensor:
        """What is seen of a picture H×W×3 uint8 that is in truth `aspect` times as wide as high."""
        (height, width), (wide, high) = pixels.shape[:2], self.extent(aspect)
        columns, rows = round(wide * width) or 1, round(high * height) or 1
        left, top = round(self.across * (width - columns)), round(self.down * (height - rows))
        # a copy, as torch takes no arrays that are read-only
        crop = _as_tensor(np.array(pixels[top : top + rows, left : left + columns]))
        size = (self.side, self.side)
        seen = F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0]
        if self.mirrored:
            seen = seen.flip(2)
        if (self.brightness, self.contrast, self.saturation) == (1, 1, 1):
            return seen
        return self._coloured(seen)

    def extent(self, aspect: float) -> tuple[float, float]:
        """Width and height of the part that is seen, as shares of the picture's."""
        # the widest crop of this area has the picture's full width, the narrowest its full height
        narrowest, widest = self.area * aspect, aspect / self.area
        low, high = (min(max(a, narrowest), widest) for a in ASPECTS)
        shape = low * (high / low) ** self.shape
        width = min(1.0, math.sqrt(self.area * shape / aspect))
        return width, min(1.0, self.area / width)

    def _coloured(self, seen: Tensor) -> Tensor:
        """Brightness, contrast and saturation of 3×S×S uint8 changed, in one pass.

        Each blends with black, the mean grey or the pixel's grey, so together they are linear
        and, clipped at the end only, the same in any order.
        """
        x = seen.float()
        grey = GREY[0] * x[0] + GREY[1] * x[1] + GREY[2] * x[2]  # S×S
        # whole numbers add up alike in any order: pixels do not depend on the number of threads
        sums = seen.sum((1, 2)).tolist()
        mean_grey = sum(g * n for g, n in zip(GREY, sums, strict=True)) / grey.numel()
        gain = self.brightness * self.contrast
        offset = self.brightness * (1 - self.contrast) * mean_grey + 0.5  # to round
        x.mul_(gain * self.saturation).add_(grey.mul_(gain * (1 - self.saturation)).add_(offset))
        return x.clamp_(0, 255).int().byte()  # straight from float, torch takes three times as long


def _as_tensor(pixels: np.ndarray) -> Tensor:
    """H×W×3 -> 3×H×W, the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
