"""PNG with long texts, HEIC, MPO, and 12 bits in files of 16."""

import shutil
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from images import decode, to_rgb
from images.decode import load_pixels, read_header
from util.errors import UsageError


@pytest.mark.parametrize(
    ("top", "bits"), [(200, 8), (900, 10), (4095, 12), (3000, 12), (16_000, 14), (40_000, 16)]
)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_bits_of_a_camera_in_a_file_of_sixteen(tmp_path, name, top, bits, capsys):
    """Divided by 65535, an image of 12 bits would be black."""
    to_rgb._note_range.cache_clear()
    values = np.linspace(0, top, 48).reshape(6, 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    for _ in range(2):
        found = load_pixels(tmp_path / name)[..., 0]
        assert np.abs(found - 255 * (values / (2**bits - 1))).max() <= 1
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == (bits < 16), "once"
    assert all(f"read as {bits} bits" in note for note in notes)


def test_a_file_that_says_its_range_is_read_as_it_says(tmp_path, capsys):
    values = np.linspace(0, 900, 48).reshape(6, 8).astype(np.uint16)
    to_rgb._note_range.cache_clear()
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={to_rgb.MAX_SAMPLE_VALUE: 4095})
    assert load_pixels(tmp_path / "a.tif").max() == 255 * 900 // 4095
    (tmp_path / "a.pgm").write_bytes(b"P5 8 6 65535\n" + values.astype(">u2").tobytes())
    assert load_pixels(tmp_path / "a.pgm").max() == 255 * 900 // 65535
    assert not capsys.readouterr().err
    Image.fromarray(values.astype(np.int32) * 100).save(tmp_path / "b.tif")
    assert load_pixels(tmp_path / "b.tif").max() == 255, "more than 16 bits"


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


LONG = b"x" * (3 << 20)
TEXTS = {
    "text": chunk(b"tEXt", b"k\0" + LONG),
    "packed": chunk(b"zTXt", b"k\0\0" + zlib.compress(LONG)),
    "international": chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(LONG)),
    "profile": chunk(b"iCCP", b"k\0\0" + zlib.compress(LONG)),
    "bomb": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 << 20))),
    "many": chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 1_000_000)) * 80,
    "damaged": chunk(b"zTXt", b"k\0\0nothing") + chunk(b"zTXt", b"k\0\0" + zlib.compress(LONG)),
}


@pytest.mark.parametrize("where", ["before the pixels", "after them"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_png_with_long_texts(tmp_path, text, where):
    """Pillow refuses texts that unpack to more than 1 MB. Nothing unpacks them here either."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    whole = (tmp_path / "a.png").read_bytes()
    at = 33 if where == "before the pixels" else len(whole) - 12  # the header, IEND
    (tmp_path / "b.png").write_bytes(whole[:at] + text + whole[at:])
    tracemalloc.start()
    assert np.array_equal(load_pixels(tmp_path / "b.png"), load_pixels(tmp_path / "a.png"))
    assert read_header(tmp_path / "b.png") == (6, (7, 9))
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_mpo_of_phones(tmp_path):
    image = Image.effect_noise((60, 40), 90).convert("RGB")
    image.save(tmp_path / "a.mpo", save_all=True, append_images=[image.rotate(90)])
    shutil.copy(tmp_path / "a.mpo", tmp_path / "a.jpg")
    for name in ("a.mpo", "a.jpg"):
        assert load_pixels(tmp_path / name).shape == (40, 60, 3)


def test_heic_is_named_and_read_if_pillow_heif_is_installed(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    image = heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40)))
    image.save(tmp_path / "a.heic", quality=95)
    shutil.copy(tmp_path / "a.heic", tmp_path / "a.jpg")  # some programs rename them
    for name in ("a.heic", "a.jpg"):
        pixels = load_pixels(tmp_path / name)
        assert pixels.shape == (48, 64, 3)
        assert pixels.mean((0, 1)) == pytest.approx((200, 30, 40), abs=12)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    for name in ("a.heic", "a.jpg"):
        with pytest.raises(UsageError, match=rf"{name}.*HEIC: convert it to JPEG.*pillow-heif"):
            load_pixels(tmp_path / name)


def test_avif_is_named_where_pillow_cannot_read_it(tmp_path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf")
    without = tuple(name for name in decode.FORMATS if name != "AVIF")
    monkeypatch.setattr(decode, "FORMATS", without)  # as before Pillow 11.3
    with pytest.raises(UsageError, match=r"a\.avif.*AVIF: convert it to JPEG.*Pillow 11\.3"):
        load_pixels(tmp_path / "a.avif")
