"""How much memory a picture takes while it is decoded, known before it is decoded.

A file of a few kilobytes can hold very many pixels, and some decoders need 20 bytes for each.
benchmarks/robustness/awkward_pictures.py measures it.
"""

from __future__ import annotations

import math

from PIL import Image

MAX_BYTES = 2_000_000_000  # a larger JPEG or JPEG 2000 is decoded at a smaller size
PILLOW, RESULT = 4, 3  # bytes for a pixel in Pillow's image, and in the result beside it
# the most that is needed, where it is more: these decoders make copies of their own
BYTES_PER_PIXEL = {"WEBP": 16, "AVIF": 16, "HEIF": 16}
JPEGS = ("JPEG", "MPO")
ROWS_PER_STRIP, TILE_WIDTH, TILE_HEIGHT, SAMPLES, BITS = 278, 322, 323, 277, 258  # tags of TIFF


def fit_memory(image: Image.Image, least_side: int | None = None) -> bool:
    """Let a JPEG or JPEG 2000 be decoded at a smaller size; whether the image fits MAX_BYTES then.

    image: opened, not decoded. least_side: a JPEG becomes smaller as long as both sides keep that
    many pixels. One that would take more than MAX_BYTES is decoded at half of its size at least.
    """
    size = (least_side, least_side) if least_side else image.size
    needed = bytes_to_decode(image)
    if image.format in JPEGS:
        if needed > MAX_BYTES:
            size = min(size[0], image.width // 2), min(size[1], image.height // 2)
        image.draft(None, size)
        return True
    if image.format == "JPEG2000" and needed > MAX_BYTES:
        image.reduce = math.ceil(math.log(needed / MAX_BYTES, 4))  # halves both sides so often
        return True
    return needed <= MAX_BYTES


def bytes_to_decode(image: Image.Image) -> int:
    """The most that decoding an opened image takes, as long as it is not reduced."""
    pixels, bands = math.prod(image.size), len(image.getbands())
    if image.format in JPEGS:  # the coefficients of a progressive one are all kept
        return pixels * (2 * bands + PILLOW)
    if image.format == "JPEG2000":
        return pixels * (6 * bands + PILLOW)
    if image.format == "TIFF":
        return pixels * PILLOW + max(_strip_bytes(image), pixels * RESULT)
    return pixels * BYTES_PER_PIXEL.get(image.format, PILLOW + RESULT)


def _strip_bytes(image: Image.Image) -> int:
    """A strip or tile of a TIFF, which is unpacked as a whole; a tile may exceed the picture."""

    def tag(number: int, default: int) -> int:
        value = image.tag_v2.get(number, default)
        value = value[0] if isinstance(value, tuple) and value else value
        return value if isinstance(value, int) else default

    width, height = image.size
    strip = width * min(tag(ROWS_PER_STRIP, height), height)
    tile = tag(TILE_WIDTH, 0) * tag(TILE_HEIGHT, 0)
    return (tile or strip) * tag(SAMPLES, 1) * tag(BITS, 1) // 8
