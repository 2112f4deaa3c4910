"""Picture files -> what the model sees: uint8 tensors 3×S×S, whole or augmented.

    Preprocessing   how a model's pictures are prepared; kept in its checkpoint
    View            one way to look at a picture

A JPEG is decoded at a fraction of its size where the whole picture keeps S×S pixels, cropping and
resizing are one antialiased step on uint8, and colours change after it, on S×S pixels. Pillow says
what a file is; where that is a plain JPEG, simplejpeg decodes the same pixels in less time.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import stat
import struct
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from shards import ShardMember
from utils import UsageError

ASPECTS = (3 / 4, 4 / 3)  # width / height of a training crop
GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R 601)

# pictures only: of EPS, for one, Pillow leaves the reading to another program, which runs its code
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
# where Pillow stops, at two times what it warns of: 178,956,970, half a gigabyte in memory
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
MAX_JPEG_BYTES = 2**26  # are read at once; longer files Pillow reads piece by piece
MAX_SIDE = 8192  # pixels of the model's input: a batch of four then has a gigabyte
TURNED = range(2, 9)  # EXIF's orientations but for the upright one
# what EXIF that is no EXIF makes Pillow raise
JUNK = (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError, AttributeError)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it is said in our own words


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

    def for_test(self) -> View:
        """The whole picture as it is."""
        return View(self.image_size)

    def for_training(self, rng: np.random.Generator) -> View:
        """A random view; all that is random in it is drawn here."""
        area, shape, across, down, mirror, *colours = rng.random(8).tolist()
        return View(
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
class View:
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

    def of_file(self, path: Path | ShardMember) -> Tensor:
        """What is seen of a picture file, 3×S×S uint8. Raises UsageError as `load_pixels` does."""
        # a crop may fall short of S by 1 - sqrt(min_crop), but not of the detail seen at test
        pixels = load_pixels(path, self.side)
        return self.of_pixels(pixels, pixels.shape[1] / pixels.shape[0])

    def of_pixels(self, pixels: np.ndarray, aspect: float) -> Tensor:
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


def load_image(path: Path | ShardMember) -> Image.Image:
    """What `load_pixels` returns, to be shown."""
    return Image.fromarray(load_pixels(path))


def load_pixels(path: Path | ShardMember, least_side: int | None = None) -> np.ndarray:
    """A picture of one of FORMATS -> upright RGB, H×W×3 uint8; transparency is laid on white.

    least_side: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where no side gets shorter. Of
    several frames it is the first. Raises UsageError for what is not a readable picture of at
    most MAX_PIXELS.
    """
    try:
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            raise _UnreadableError("no ordinary file")  # to open a named pipe is to wait forever
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # Pillow's, of what does no harm
            return _decode(file, least_side)
    except UsageError:  # a shard's
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no image {path}") from None
    except Exception as error:  # hostile files make Pillow raise nearly anything
        raise UsageError(f"{path} cannot be read as an image ({_reason(error)})") from None


class _UnreadableError(Exception):
    """The message says why."""


def _reason(error: Exception) -> str:
    """Why a picture cannot be read, in a few words."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "truncated" if "truncated" in str(error).lower() else "damaged or another kind"


def _decode(file: BinaryIO, least_side: int | None) -> np.ndarray:
    """What `load_pixels` returns, of an open file; raises whatever Pillow does."""
    if not file.read(1):
        raise _UnreadableError("the file is empty")
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        whole = image.size
        if least_side:
            image.draft(None, (least_side, least_side))
        if (pixels := _decode_plain_jpeg(file, image, whole)) is not None:
            return pixels
        image.load()
        if _orientation(image) in TURNED:
            with contextlib.suppress(*JUNK):  # raised after the turn, where EXIF is written anew
                ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(_to_rgb(image))


def _decode_plain_jpeg(
    file: BinaryIO, image: Image.Image, whole: tuple[int, int]
) -> np.ndarray | None:
    """The pixels that Pillow would decode, sooner; None where that is better left to Pillow.

    image: as Pillow opened the file and `draft` set its size; whole: its size before.
    """
    if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) in TURNED:
        return None
    # simplejpeg knows a scale of n / 8 by the size it gives, and here two may give the same
    if max(whole) < 8:
        return None
    if file.seek(0, os.SEEK_END) > MAX_JPEG_BYTES:
        return None
    file.seek(0)
    data, (width, height) = file.read(), image.size
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != whole[::-1]:
            return None
        pixels = simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError:  # damaged: Pillow decides how much, and says it
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _orientation(image: Image.Image) -> object:
    """As EXIF has it; None if it has none or is junk, which spoils no picture."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except JUNK:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: convert() would clip
        values = np.nan_to_num(np.asarray(image, np.float64))
        scale = 1.0 if image.mode == "F" and values.max() <= 1 else 65535.0
        return Image.fromarray(np.uint8(255 * np.clip(values / scale, 0, 1))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
