"""The tags that a photo file itself holds: dc:subject of its XMP, and its IPTC keywords."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, IptcImagePlugin

from images.decode import open_picture
from images.xmp import check_tag, read_tags
from util.errors import UsageError
from util.names import key
from util.reading import open_file

JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"  # before the packet in an APP1 segment
TIFF_XMP = 700  # TIFF tag of an XMP packet
CHARSET, KEYWORDS = (1, 90), (2, 25)  # IPTC: record and number
UTF8 = b"\x1b%G"


def embedded_tags(path: Path) -> list[str]:
    """The tags in an image file, each once. Raises UsageError if they cannot be read."""
    try:
        with warnings.catch_warnings(), open_file(path) as file:
            warnings.simplefilter("ignore")
            with open_picture(file) as image:
                found = [*_from_xmp(image), *_from_iptc(image)]
    except Exception as error:  # hostile files make Pillow raise nearly anything
        raise UsageError(f"the tags in {path} cannot be read ({error})") from None
    usable = [tag for tag in found if check_tag(tag) is None]
    return [tag for i, tag in enumerate(usable) if key(tag) not in map(key, usable[:i])]


def _from_xmp(image: Image.Image) -> list[str]:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")  # newer, older Pillow
    for name, content in getattr(image, "applist", ()):  # of a JPEG
        if not packet and name == "APP1" and content.startswith(JPEG_XMP):
            packet = content[len(JPEG_XMP) :]
    if not packet and image.format == "TIFF":
        packet = image.tag_v2.get(TIFF_XMP)
    if not packet:
        return []
    return read_tags((packet.encode() if isinstance(packet, str) else bytes(packet)).rstrip(b"\0"))


def _from_iptc(image: Image.Image) -> list[str]:
    about = IptcImagePlugin.getiptcinfo(image) or {}
    words = about.get(KEYWORDS, [])
    words = words if isinstance(words, list) else [words]
    return [_decoded(word, about.get(CHARSET) == UTF8).strip() for word in words]


def _decoded(word: bytes, is_utf8: bool) -> str:
    """IPTC text without a charset is UTF-8 in practice, or Latin-1 of older programs."""
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        return word.decode("utf-8" if is_utf8 else "latin-1", "replace")
