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
import os
import stat
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from images.shards import ShardMember
from util.errors import UsageError

# pictures only: of EPS, for one, Pillow leaves the reading to another program, which runs its code
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
# where Pillow stops, at two times what it warns of: 178,956,970, half a gigabyte in memory
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
MAX_JPEG_BYTES = 2**26  # are read at once; longer files Pillow reads piece by piece
TURNED = range(2, 9)  # EXIF's orientations but for the upright one
# what EXIF that is no EXIF makes Pillow raise
JUNK = (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError, AttributeError)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it is said in our own words


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
