"""Image files -> pixels H×W×3 uint8: upright RGB, whatever the format.

Pillow recognises the format. A plain JPEG is then decoded by simplejpeg, which gives the same
pixels in less time, and at 1/2, 1/4 or 1/8 of its size where that leaves enough pixels.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from images.shards import ShardMember
from util.errors import UsageError
from util.log import log

# no EPS, for example: Pillow hands it to another program, which runs the code in the file
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
HEIC_HINT = "HEIC: convert it to JPEG, or install pillow-heif"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
TEXT_BYTES = 1 << 20  # in one chunk of a PNG; Pillow refuses the picture if there are more
ALL_TEXT_BYTES = 1 << 26  # in all chunks
RANGES = (8, 10, 12, 14)  # bits of cameras and scanners
MAX_SAMPLE_VALUE = 281  # a tag of TIFF
# Pillow's own limit, twice the size that it warns of: 178,956,970 pixels, 0.5 GB in memory
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
MAX_JPEG_BYTES = 2**26  # larger files are left to Pillow, which reads them in pieces
TURNS = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# what Pillow raises for damaged EXIF data
JUNK = (OSError, ValueError, SyntaxError, struct.error, LookupError, TypeError, AttributeError)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # our own messages are enough


def load_image(path: Path | ShardMember) -> Image.Image:
    """The pixels of `load_pixels` as a PIL image."""
    return Image.fromarray(load_pixels(path))


def load_pixels(path: Path | ShardMember, least_side: int | None = None) -> np.ndarray:
    """An image file of one of FORMATS -> upright RGB pixels H×W×3 uint8.

    Transparent parts become white; of several frames the first counts. least_side: a JPEG may be
    decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep that many pixels. Raises
    UsageError for a file that is missing, unreadable or larger than MAX_PIXELS.
    """
    try:
        if isinstance(path, Path) and not stat.S_ISREG(path.stat().st_mode):
            raise _UnreadableError("not a regular file")  # opening a named pipe would block
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # Pillow warns of harmless things
            return _decode(file, least_side)
    except UsageError:  # from ShardMember.open
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no image {path}") from None
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise UsageError(f"{path} cannot be read as an image ({_reason(error)})") from None


def pixels_of(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode -> pixels H×W×3 uint8, as `load_pixels` gives for its file.

    Raises what Pillow raises, if the image was opened from a file but not read yet.
    """
    image.load()
    turn = TURNS.get(_orientation(image))
    return np.asarray(_to_rgb(image if turn is None else image.transpose(turn)))


def read_header(path: Path | ShardMember) -> tuple[int, tuple[int, int]]:
    """EXIF's orientation, 1 (upright) to 8, and the width and height as stored. Decodes no pixels.

    Raises UsageError for what is not an image.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            with _open(file) as image:
                orientation = _orientation(image)
                return orientation if orientation in TURNS else 1, image.size
    except Exception as error:  # hostile files make Pillow raise nearly anything
        raise UsageError(f"{path} cannot be read as an image ({_reason(error)})") from None


class _UnreadableError(Exception):
    """The message says why."""


def _reason(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    if isinstance(error, _UnreadableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "truncated" if "truncated" in str(error).lower() else "damaged or another kind"


def _decode(file: BinaryIO, least_side: int | None) -> np.ndarray:
    """`load_pixels` for an open file. Raises whatever Pillow raises."""
    if not file.read(1):
        raise _UnreadableError("the file is empty")
    file.seek(0)
    try:
        with _open(file) as image:
            whole = image.size
            if least_side:
                image.draft(None, (least_side, least_side))
            if (pixels := _decode_plain_jpeg(file, image, whole)) is not None:
                return pixels
            return pixels_of(image)
    except ValueError:  # text after the pixels of a PNG
        if file.closed or not _is_png(file):
            raise
        with Image.open(_without_long_texts(file), formats=("PNG",)) as image:
            return pixels_of(image)


def _open(file: BinaryIO) -> Image.Image:
    """An image file, opened. Raises whatever Pillow raises."""
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(4)
        if file.read(4) != b"ftyp" or file.read(4) not in HEIC_BRANDS:
            raise
        try:
            from pillow_heif import register_heif_opener  # optional
        except ImportError:
            raise _UnreadableError(HEIC_HINT) from None
        register_heif_opener()
        file.seek(0)
        return Image.open(file, formats=("HEIF",))
    except ValueError:
        if not _is_png(file):
            raise
        return Image.open(_without_long_texts(file), formats=("PNG",))


def _is_png(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(PNG_START)) == PNG_START


def _without_long_texts(file: BinaryIO) -> BinaryIO:
    """A PNG without its long texts and colour profiles: Pillow refuses it because of them.

    A short file can unpack to any size, so nothing is unpacked further than it has to be.
    """
    file.seek(len(PNG_START))
    kept, left = [PNG_START], ALL_TEXT_BYTES
    while len(start := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", start)
        chunk = file.read(size + 4)  # and a checksum
        if kind in PNG_TEXTS:
            length = _text_length(kind, chunk[:-4])
            if length > min(TEXT_BYTES, left):
                continue
            left -= length
        kept += (start, chunk)
    return io.BytesIO(b"".join(kept))


def _text_length(kind: bytes, chunk: bytes) -> int:
    """The bytes in a chunk of text, unpacked; more than TEXT_BYTES may be counted as less."""
    packed = chunk.partition(b"\0")[2]
    if kind == b"iTXt":
        is_packed, packed = packed[:1] == b"\1", packed[2:].split(b"\0", 2)[-1]
    else:
        is_packed, packed = kind != b"tEXt", packed[1:]
    if not is_packed:
        return len(chunk)
    try:
        return len(zlib.decompressobj().decompress(packed, TEXT_BYTES + 1))
    except zlib.error:
        return TEXT_BYTES + 1


def _decode_plain_jpeg(
    file: BinaryIO, image: Image.Image, whole: tuple[int, int]
) -> np.ndarray | None:
    """The pixels that Pillow would decode, in less time; None if Pillow must do it.

    image: as Pillow opened it, with the size set by `draft`; whole: the size before.
    """
    if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) in TURNS:
        return None
    # simplejpeg picks a scale of n / 8 by the resulting size; below 8 pixels two scales can agree
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
    except ValueError:  # damaged: Pillow decides whether it can be read
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _orientation(image: Image.Image) -> object:
    """EXIF orientation; None if there is none or the EXIF data are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except JUNK:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits or more: convert() clips
        values = np.nan_to_num(np.asarray(image, np.float64))
        pixels = np.uint8(255 * np.clip(values / _white(image, values), 0, 1))
        return Image.fromarray(pixels).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _white(image: Image.Image, values: np.ndarray) -> float:
    """The value that is white in pixels of more than 8 bits.

    A TIFF may say it. Otherwise it follows from the largest value: cameras and scanners write 10,
    12 or 14 bits into files of 16, which would all be black. Pillow brings PPM and JPEG 2000 to 16
    bits itself. A picture of one value has no range.
    """
    top = float(values.max(initial=0))
    if image.mode == "F" and top <= 1:
        return 1.0
    tags = getattr(image, "tag_v2", {})
    if (said := _first(tags.get(MAX_SAMPLE_VALUE))) and said >= top:
        return said
    if (bits := _first(tags.get(ExifTags.Base.BitsPerSample))) and 8 < bits < 16:
        return 2.0**bits - 1
    if image.format in ("PPM", "JPEG2000") or values.min(initial=top) == top:
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
