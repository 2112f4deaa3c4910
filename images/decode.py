"""Image files -> pixels H×W×3 uint8: upright RGB, whatever the format.

Pillow recognises the format. A plain JPEG is then decoded by simplejpeg, which gives the same
pixels in less time, and at 1/2, 1/4 or 1/8 of its size where that leaves enough pixels.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from images.memory import MAX_BYTES, fit_memory
from images.shards import ShardMember
from images.to_rgb import TURNS, orientation_of, pixels_of
from util.errors import UsageError
from util.reading import open_file

# no EPS, for example: Pillow hands it to another program, which runs the code in the file
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "TGA")
if find_spec("PIL.AvifImagePlugin"):  # since Pillow 11.3
    FORMATS += ("AVIF",)
AVIF_BRANDS = {b"avif", b"avis"}
AVIF_HINT = "AVIF: convert it to JPEG, or install Pillow 11.3 or newer"
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
HEIC_HINT = "HEIC: convert it to JPEG, or install pillow-heif"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
TEXT_BYTES = 1 << 20  # in one chunk of a PNG; Pillow refuses the picture if there are more
ALL_TEXT_BYTES = 1 << 26  # in all chunks
# Pillow's own limit, twice the size that it warns of: 178,956,970 pixels, 0.5 GB as RGB
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
JPEG_END = b"\xff\xd9"
MAX_JPEG_BYTES = 2**26  # larger files are left to Pillow, which reads them in pieces
logging.getLogger("PIL").addHandler(logging.NullHandler())  # our own messages are enough


def load_image(path: Path | ShardMember) -> Image.Image:
    """The pixels of `load_pixels` as a PIL image."""
    return Image.fromarray(load_pixels(path))


def load_pixels(path: Path | ShardMember, least_side: int | None = None) -> np.ndarray:
    """An image file of one of FORMATS -> upright RGB pixels H×W×3 uint8.

    Transparent parts become white; of several frames the first counts. least_side: a JPEG may be
    decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep that many pixels. Decoding
    takes at most MAX_BYTES of memory: a JPEG or JPEG 2000 that would take more is reduced. Raises
    UsageError for a file that is missing, unreadable, larger than MAX_PIXELS or than MAX_BYTES.
    """
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("ignore")  # Pillow warns of harmless things
            return _decode(file, least_side)
    except UsageError:  # from ShardMember.open
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no image {path}") from None
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise UsageError(f"{path} cannot be read as an image ({_reason(error)})") from None


def read_header(path: Path | ShardMember) -> tuple[int, tuple[int, int]]:
    """EXIF's orientation, 1 (upright) to 8, and the width and height as stored. Decodes no pixels.

    Raises UsageError for what is not an image.
    """
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("ignore")
            with open_picture(file) as image:
                orientation = orientation_of(image)
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


def _opened(path: Path | ShardMember) -> BinaryIO:
    """The file of an image. Raises _UnreadableError for a pipe or a folder, and UsageError."""
    if not isinstance(path, Path):
        return path.open()
    try:
        return open_file(path)
    except (UsageError, IsADirectoryError):
        raise _UnreadableError("not a regular file") from None


def _decode(file: BinaryIO, least_side: int | None) -> np.ndarray:
    """`load_pixels` for an open file. Raises whatever Pillow raises."""
    if not file.read(1):
        raise _UnreadableError("the file is empty")
    file.seek(0)
    try:
        with open_picture(file) as image:
            whole = image.size
            if not fit_memory(image, least_side):
                raise _UnreadableError(f"it takes more than {MAX_BYTES / 1e9:.0f} GB of memory")
            if (pixels := _decode_plain_jpeg(file, image, whole)) is not None:
                return pixels
            return pixels_of(image)
    except ValueError:  # text after the pixels of a PNG
        if file.closed or not _is_png(file):
            raise
        with Image.open(_without_long_texts(file), formats=("PNG",)) as image:
            return pixels_of(image)


def open_picture(file: BinaryIO) -> Image.Image:
    """An image file, opened. Raises whatever Pillow raises."""
    _check_chunks(file)
    file.seek(0)
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(4)
        is_iso, brand = file.read(4) == b"ftyp", file.read(4)
        if is_iso and brand in AVIF_BRANDS and "AVIF" not in FORMATS:
            raise _UnreadableError(AVIF_HINT) from None
        if not is_iso or brand not in HEIC_BRANDS:
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


def _check_chunks(file: BinaryIO) -> None:
    """Raise _UnreadableError for a PNG with a huge chunk that has no pixels: Pillow reads it whole.

    Most of such a chunk can be a hole in a file that takes no room.
    """
    if file.seek(0, os.SEEK_END) <= ALL_TEXT_BYTES or not _is_png(file):
        return
    while len(start := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", start)
        if not kind.isalpha():
            return
        if size > ALL_TEXT_BYTES and kind != b"IDAT":
            raise _UnreadableError(f"it has {size / 1e6:,.0f} MB that are no pixels")
        file.seek(size + 4, os.SEEK_CUR)


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


def read_plain_jpeg(path: Path | ShardMember) -> tuple[bytes, int] | None:
    """The file of a JPEG whose pixels need only be decoded, and their number; else None.

    None also for what `load_pixels` refuses. Damage inside of the file is not looked for.
    """
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("ignore")
            with open_picture(file) as image:
                whole = image.size
                if not fit_memory(image, None) or image.size != whole:
                    return None
                data = _plain_jpeg(file, image, whole)
    except Exception:  # `load_pixels` says what is wrong
        return None
    is_whole = data is not None and data.rstrip(b"\0").endswith(JPEG_END)
    return (data, whole[0] * whole[1]) if is_whole else None


def _plain_jpeg(file: BinaryIO, image: Image.Image, whole: tuple[int, int]) -> bytes | None:
    """The whole file, if other decoders than Pillow give its pixels; whole: width and height."""
    if image.format != "JPEG" or image.mode != "RGB" or orientation_of(image) in TURNS:
        return None
    # simplejpeg picks a scale of n / 8 by the resulting size; below 8 pixels two scales can agree
    if max(whole) < 8:
        return None
    if file.seek(0, os.SEEK_END) > MAX_JPEG_BYTES:
        return None
    file.seek(0)
    data = file.read()
    try:
        return data if simplejpeg.decode_jpeg_header(data)[:2] == whole[::-1] else None
    except ValueError:  # damaged: Pillow decides whether it can be read
        return None


def _decode_plain_jpeg(
    file: BinaryIO, image: Image.Image, whole: tuple[int, int]
) -> np.ndarray | None:
    """The pixels that Pillow would decode, in less time; None if Pillow must do it.

    image: as Pillow opened it, with the size set by `draft`; whole: the size before.
    """
    if (data := _plain_jpeg(file, image, whole)) is None:
        return None
    width, height = image.size
    try:
        pixels = simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None
