"""Pixels -> the model's input: uint8 tensors 3×S×S, augmented in training.

    Preprocessing   how a model's images are prepared; kept in its checkpoint
    Transform       one crop, flip and change of colours

Cropping and resizing are one antialiased step. Colours change after it, on S×S pixels only.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from images.decode import load_pixels
from images.shards import ShardMember

ASPECTS = (3 / 4, 4 / 3)  # width / height of a training crop
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)
AUGMENTATIONS = ("light", "strong")
MAX_SIDE = 8192  # pixels: a batch of four such images takes 0.8 GB


@dataclass(frozen=True)
class Preprocessing:
    """How images become the model's input: S×S pixels. Plain values, kept in every checkpoint.

    Evaluation: the whole image, resized to a square, so that nothing at the edges is lost.
    Training: a random crop with at least `min_crop` of the area and an aspect ratio within ASPECTS,
    flipped with probability 0.5; brightness, contrast and saturation change by up to `jitter`.
    (If an image is so long that no crop fulfils both, the area counts and the aspect ratio comes
    as close as possible.) With augmentation "strong", two random operations of RandAugment follow,
    such as rotate or posterize (Cubuk et al., NeurIPS 2020).
    Raises ValueError for values that make no image.
    """

    image_size: int
    min_crop: float = 0.7
    jitter: float = 0.2
    augmentation: str = "light"

    def __post_init__(self) -> None:
        # a checkpoint may hold any values
        if type(self.image_size) is not int or not 1 <= self.image_size <= MAX_SIDE:
            raise ValueError(f"image_size is not a whole number from 1 to {MAX_SIDE}")
        if not (0 < self.min_crop <= 1 and 0 <= self.jitter <= 1):
            raise ValueError("min_crop or jitter is not between 0 and 1")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation is not one of {', '.join(AUGMENTATIONS)}")

    def to_dict(self) -> dict[str, float | str]:
        """The values for a checkpoint; `Preprocessing(**values)` restores it."""
        return asdict(self)

    def eval_transform(self) -> Transform:
        """The whole image, unchanged but for its size."""
        return Transform(self.image_size)

    def train_transform(self, rng: np.random.Generator) -> Transform:
        """A random crop, flip and change of colours. All random numbers are drawn here."""
        area, shape, across, down, flip, *colours = rng.random(8).tolist()
        return Transform(
            self.image_size,
            1 - area * (1 - self.min_crop),
            shape,
            across,
            down,
            flip < 0.5,
            *(1 + self.jitter * (2 * u - 1) for u in colours),
            int(rng.integers(2**62)) if self.augmentation == "strong" else None,
        )

    def cache_side(self) -> int:
        """Width and height in pixels of cached images, so that the smallest crop has S×S pixels.

        This holds for crops with the aspect ratio of the image. In others one side may have fewer
        pixels than S, by at most 1 - sqrt(min_crop), which is 16 %.
        """
        return 8 * math.ceil(self.image_size / math.sqrt(self.min_crop) / 8)


@dataclass(frozen=True)
class Transform:
    """One crop, flip and change of colours, for an image decoded at any size.

    side                 width and height S of the result in pixels
    area                 share of the image's area in the crop
    shape, across, down  0 to 1: narrowest to widest crop, left to right, top to bottom
    brightness, contrast, saturation   factors; 1 changes nothing
    seed                 of RandAugment's random numbers; None: without it
    """

    side: int
    area: float = 1.0
    shape: float = 0.5
    across: float = 0.5
    down: float = 0.5
    flipped: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    seed: int | None = None

    def from_file(self, path: Path | ShardMember) -> Tensor:
        """Image file -> 3×S×S uint8. Raises UsageError as `load_pixels` does."""
        # the whole image keeps S×S pixels; a side of a crop may have 1 - sqrt(min_crop) fewer
        pixels = load_pixels(path, self.side)
        return self(pixels, pixels.shape[1] / pixels.shape[0])

    def __call__(self, pixels: np.ndarray, aspect: float) -> Tensor:
        """Pixels H×W×3 uint8 -> 3×S×S uint8.

        aspect: width / height of the original image; in a cache its pixels are a square.
        """
        top, left, rows, columns = self._box(*pixels.shape[:2], aspect)
        # a copy, because torch needs a writable array
        crop = np.array(pixels[top : top + rows, left : left + columns])
        crop = torch.from_numpy(crop).permute(2, 0, 1)  # 3×H×W, channels_last
        size = (self.side, self.side)
        image = F.interpolate(crop[None], size, mode="bilinear", antialias=True)[0]
        if self.flipped:
            image = image.flip(2)
        if self.colours != (1, 1, 1):
            image = change_colours(image[None], [self.colours])[0]
        return self.rand_augment(image)

    def crop_and_resize(self, pixels: Tensor, aspect: float) -> Tensor:
        """Pixels 3×H×W uint8 on any device -> 3×S×S uint8: the first part of what a call does.

        As floats, because a GPU resizes no integers; so a value may differ from a call's by one.
        """
        top, left, rows, columns = self._box(*pixels.shape[1:], aspect)
        crop = pixels[None, :, top : top + rows, left : left + columns].float()
        image = F.interpolate(crop, (self.side, self.side), mode="bilinear", antialias=True)[0]
        return image.round_().clamp_(0, 255).byte()

    def rand_augment(self, image: Tensor) -> Tensor:
        """3×S×S uint8 after two random operations if there is a seed: the last part of a call."""
        return image if self.seed is None else rand_augment(image, self.seed)

    @property
    def colours(self) -> tuple[float, float, float]:
        """The factors that `change_colours` takes."""
        return self.brightness, self.contrast, self.saturation

    def _box(self, height: int, width: int, aspect: float) -> tuple[int, int, int, int]:
        """The crop in pixels: top, left, rows, columns."""
        crop_width, crop_height = self.extent(aspect)
        columns, rows = round(crop_width * width) or 1, round(crop_height * height) or 1
        left, top = round(self.across * (width - columns)), round(self.down * (height - rows))
        return top, left, rows, columns

    def extent(self, aspect: float) -> tuple[float, float]:
        """Width and height of the crop, as shares of the image's width and height."""
        # the widest crop of this area has the full width, the narrowest the full height
        narrowest, widest = self.area * aspect, aspect / self.area
        low, high = (min(max(a, narrowest), widest) for a in ASPECTS)
        shape = low * (high / low) ** self.shape
        width = min(1.0, math.sqrt(self.area * shape / aspect))
        return width, min(1.0, self.area / width)


def change_colours(images: Tensor, factors: list[tuple[float, float, float]]) -> Tensor:
    """B×3×S×S uint8 with other brightness, contrast and saturation, in one pass.

    factors: of each image, in this order. They blend each pixel with black, the mean grey and its
    own grey. Together they are one linear map, and their order does not matter as values are
    clipped only at the end.
    """
    x = images.float()
    grey = GREY[0] * x[:, 0] + GREY[1] * x[:, 1] + GREY[2] * x[:, 2]  # B×S×S
    maps = []
    # a sum of integers has no rounding: pixels do not depend on the number of threads
    for (brightness, contrast, saturation), sums in zip(
        factors, images.sum((2, 3)).tolist(), strict=True
    ):
        mean_grey = sum(g * n for g, n in zip(GREY, sums, strict=True)) / grey[0].numel()
        gain = brightness * contrast
        offset = brightness * (1 - contrast) * mean_grey + 0.5  # to round
        maps.append((gain * saturation, gain * (1 - saturation), offset))
    own, of_grey, offset = torch.tensor(maps).to(x.device).T.reshape(3, -1, 1, 1)
    x.mul_(own[:, None]).add_(grey.mul_(of_grey).add_(offset)[:, None])
    return x.clamp_(0, 255).int().byte()  # direct from float takes three times as long


def rand_augment(image: Tensor, seed: int) -> Tensor:
    """3×S×S uint8 after two random operations; torch's own random numbers stay as they are."""
    with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
        torch.manual_seed(seed)
        return _augmenter()(image)


@functools.cache
def _augmenter() -> nn.Module:
    from torchvision.transforms.v2 import RandAugment  # imported here: "light" does not need it

    return RandAugment(num_ops=2, magnitude=9)
