"""Pictures of every kind are decoded with little memory beside their pixels."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from images import memory, to_rgb
from images.decode import load_pixels
from images.to_rgb import pixels_of
from util.errors import UsageError

SIZE = (3000, 3000)
TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {  # mode, colour, how to save
    "sixteen.png": ("I;16", 1000, {}),
    "transparent.png": ("RGBA", (1, 2, 3, 100), {}),
    "palette.gif": ("P", 0, {"transparency": 0}),
    "float.tif": ("F", 0.5, {"compression": "tiff_deflate"}),
    "wide.png": ("I;16", 1000, {}),
    "turned.jpg": ("CMYK", (1, 2, 3, 4), {"exif": TURNED}),
}
# a process for each picture: the most memory of a process only grows
MEASURE = """
import os, resource, sys
from pathlib import Path
from images.decode import load_pixels
for path in sys.argv[1:]:
    if not os.fork():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pixels = load_pixels(Path(path))
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(Path(path).name, 1024 * more / (pixels.size / 3), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_the_memory_of_awkward_pictures(tmp_path):
    """At most 9 bytes for a pixel: 3 of the result, 4 in Pillow, and less than 2 for a while."""
    for name, (mode, colour, how) in KINDS.items():
        size = (SIZE[0] * SIZE[1] // 2, 2) if name == "wide.png" else SIZE
        Image.new(mode, size, colour).save(tmp_path / name, **how)
    command = [sys.executable, "-c", MEASURE, *(tmp_path / name for name in KINDS)]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    found = dict(line.split() for line in result.stdout.splitlines())
    assert found.keys() == KINDS.keys()
    assert max(map(float, found.values())) < 9, found


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16", "I", "F")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(MODES),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(1, 30),
    st.booleans(),
)
def test_pieces_of_any_size_give_the_same_pixels(mode, width, height, turn, piece, transparent):
    noise = np.random.default_rng(width + 9 * height).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    if mode in ("I;16", "I", "F"):
        values = noise[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        image = Image.fromarray(values * 257)
    elif mode == "PA":
        image = image.quantize(8).convert("PA")
    else:
        image = image.quantize(8) if mode == "P" else image.convert(mode)
    if transparent and mode in ("P", "L", "RGB"):
        image.info["transparency"] = (1, 2, 3) if mode == "RGB" else 1
    image.getexif()[0x0112] = turn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_rgb, "PIECE", piece)
        found = pixels_of(image)
    upright = ImageOps.exif_transpose(image)
    if mode in ("I;16", "I", "F"):
        expected = np.repeat(np.asarray(upright, float)[..., None] / 257, 3, 2)
    elif "transparency" in image.info or mode.endswith("A"):
        expected = Image.new("RGBA", upright.size, "white")
        expected.alpha_composite(upright.convert("RGBA"))
        expected = expected.convert("RGB")
    else:
        expected = upright.convert("RGB")
    assert found.shape == np.shape(expected)
    if mode in ("I;16", "I", "F"):
        top = np.asarray(upright).max()
        white = next(w for w in (2**8, 2**10, 2**12, 2**14, 2**16) if top < w) - 1
        white = 65535 if np.asarray(upright).min() == top else white
        expected = np.floor(255 * (np.asarray(expected) * 257 / white))
    assert np.array_equal(found, expected)


def test_pictures_that_would_take_too_much_memory_are_reduced_or_refused(tmp_path, monkeypatch):
    image = smooth(640, 480)
    names = ("a.jpg", "a.jp2", "a.webp", "a.png", "a.tif")
    for name in names:
        image.save(tmp_path / name)
    whole = {name: load_pixels(tmp_path / name) for name in names}
    assert all(pixels.shape == (480, 640, 3) for pixels in whole.values())
    monkeypatch.setattr(memory, "MAX_BYTES", 640 * 480 * 7 - 1)
    for name in names[:2]:
        reduced = load_pixels(tmp_path / name)
        assert reduced.shape in ((240, 320, 3), (120, 160, 3))
        small = np.asarray(image.resize(reduced.shape[1::-1], Image.Resampling.BOX), float)
        assert np.abs(small - reduced).mean() < 3
    for name in names[2:]:
        with pytest.raises(UsageError, match=r"cannot be read as an image \(it takes more than"):
            load_pixels(tmp_path / name)
    monkeypatch.setattr(memory, "MAX_BYTES", 640 * 480 * 7)
    assert np.array_equal(load_pixels(tmp_path / "a.png"), whole["a.png"])


def test_a_tile_of_a_tiff_may_be_larger_than_its_picture(tmp_path):
    """libtiff unpacks whole tiles."""
    tifffile = pytest.importorskip("tifffile")
    pixels = np.zeros((10, 10, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(4000, 4000), compression="zlib")
    with Image.open(tmp_path / "a.tif") as image:
        assert memory.bytes_to_decode(image) > 4000 * 4000 * 3
