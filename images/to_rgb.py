"""A PIL image of any mode -> upright RGB pixels H×W×3 uint8, with little memory beside them.

The pixels are converted in pieces, because every conversion makes copies, some with 8 bytes for
each pixel, and a small file can hold very many pixels.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import ExifTags, Image

from util.log import log

PIECE = 1 << 18  # pixels
Place = tuple[slice, slice]  # rows and columns
RANGES = (8, 10, 12, 14)  # bits of cameras and scanners
MAX_SAMPLE_VALUE = 281  # a tag of TIFF
# EXIF orientation -> the upright pixels, seen in the order in which they are stored
TURNS: dict[object, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
# what Pillow raises for damaged EXIF data
JUNK = (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError, AttributeError)


def pixels_of(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode -> pixels H×W×3 uint8, as `load_pixels` gives for its file.

    Raises what Pillow raises, if the image was opened from a file but not read yet.
    """
    image.load()
    turn, (width, height) = TURNS.get(orientation_of(image)), image.size
    is_upright = turn is None or turn(np.empty((1, 2))).shape == (1, 2)
    pixels = np.empty((height, width, 3) if is_upright else (width, height, 3), np.uint8)
    stored = pixels if turn is None else turn(pixels)  # a view
    for place, piece in _in_rgb(image):
        stored[place] = piece
    return pixels


def orientation_of(image: Image.Image) -> object:
    """EXIF orientation; None if there is none or the EXIF data are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except JUNK:
        return None


def _pieces(image: Image.Image) -> Iterator[tuple[Place, Image.Image]]:
    """The image in pieces of at most PIECE pixels, each with its rows and columns."""
    width, height = image.size
    columns = max(min(width, PIECE), 1)
    rows = PIECE // columns
    for top, left in itertools.product(range(0, height, rows), range(0, width, columns)):
        bottom, right = min(top + rows, height), min(left + columns, width)
        is_whole = (right - left, bottom - top) == image.size
        piece = image if is_whole else image.crop((left, top, right, bottom))
        yield (slice(top, bottom), slice(left, right)), piece


def _in_rgb(image: Image.Image) -> Iterator[tuple[Place, np.ndarray]]:
    """The pieces h×w×3 uint8, or h×w×1 if all channels are equal; not turned."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits or more: convert() clips
        white = _white(image)
        for place, piece in _pieces(image):
            grey = np.uint8(255 * np.clip(_values(piece) / white, 0, 1))
            yield place, grey[..., None]
        return
    for place, piece in _pieces(image):
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            on_white = Image.new("RGBA", piece.size, "white")
            piece = Image.alpha_composite(on_white, piece.convert("RGBA"))
        yield place, np.asarray(piece if piece.mode == "RGB" else piece.convert("RGB"))


def _values(piece: Image.Image) -> np.ndarray:
    """h×w float64; a value that is not a number is 0."""
    return np.nan_to_num(np.asarray(piece, np.float64))


def _white(image: Image.Image) -> float:
    """The value that is white in pixels of more than 8 bits.

    A TIFF may say it. Otherwise it follows from the largest value: cameras and scanners write 10,
    12 or 14 bits into files of 16, which would all be black. Pillow brings PPM and JPEG 2000 to 16
    bits itself. A picture of one value has no range.
    """
    top, lowest = 0.0, math.inf
    for _, piece in _pieces(image):
        values = _values(piece)
        top, lowest = max(top, float(values.max())), min(lowest, float(values.min()))
    if image.mode == "F" and top <= 1:
        return 1.0
    tags = getattr(image, "tag_v2", {})
    if (said := _first(tags.get(MAX_SAMPLE_VALUE))) and said >= top:
        return said
    if (bits := _first(tags.get(ExifTags.Base.BitsPerSample))) and 8 < bits < 16:
        return 2.0**bits - 1
    if image.format in ("PPM", "JPEG2000") or lowest >= top:
        return 65535.0
    bits = next((bits for bits in RANGES if top < 2**bits), None)
    if bits is None:
        return max(top, 65535.0)
    _note_range(bits)
    return 2.0**bits - 1


@functools.cache
def _note_range(bits: int) -> None:
    """Once in each process: a note for each picture would be too many."""
    log(f"note: pictures of 16 bits whose values all fit in {bits} bits are read as {bits} bits")


def _first(tag: object) -> float:
    """The first number of a TIFF tag; 0 if there is none."""
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return float(value) if isinstance(value, int | float) else 0.0
