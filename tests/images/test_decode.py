"""Image files of every kind -> pixels."""

import contextlib
import io
import os
import warnings

import numpy as np
import pytest
from conftest import write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images import decode
from images.decode import load_image
from util.errors import UsageError


def pixel(path, at=(2, 2)) -> tuple[int, ...]:
    image = load_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


def solid(mode: str, colour, size=(8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (40, 255), (40, 40, 40)),
        ("LA", (40, 0), (255, 255, 255)),
    ],
)
def test_modes_become_rgb_on_white(tmp_path, mode, colour, expected):
    solid(mode, colour).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == pytest.approx(expected, abs=1)


def test_palette_images(tmp_path):
    image = solid("P", 0)
    image.putpalette([9, 99, 199, 1, 2, 3])
    image.putpixel((2, 2), 1)
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name)
        assert pixel(tmp_path / name, (2, 2)) == (1, 2, 3)
        assert pixel(tmp_path / name, (5, 5)) == (9, 99, 199)
        image.save(tmp_path / name, transparency=0)
        assert pixel(tmp_path / name, (2, 2)) == (1, 2, 3)
        assert pixel(tmp_path / name, (5, 5)) == (255, 255, 255)


def test_a_transparent_colour_of_rgb_and_grey(tmp_path):
    solid("RGB", (1, 2, 3)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert pixel(tmp_path / "a.png") == (255, 255, 255)
    solid("L", 7).save(tmp_path / "b.png", transparency=7)
    assert pixel(tmp_path / "b.png") == (255, 255, 255)


def test_cmyk_jpeg(tmp_path):
    solid("CMYK", (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = pixel(tmp_path / "a.jpg")
    assert red > 220
    assert max(green, blue) < 60


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 127), (65535, 255), (300, 1)])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name, value, expected):
    """Pillow's own convert() turns every value above 255 into white."""
    Image.fromarray(np.full((6, 8), value, np.uint16)).save(tmp_path / name)
    assert pixel(tmp_path / name) == (expected,) * 3


def test_floating_point_images(tmp_path):
    Image.fromarray(np.full((6, 8), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert pixel(tmp_path / "a.tif") == (127, 127, 127)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path, orientation):
    """Cameras store what the sensor saw, and in EXIF how the camera was held."""
    upright = solid("RGB", "blue", (40, 20))
    upright.paste("red", (0, 0, 20, 10))
    stored = {  # the inverse of what a viewer does
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert load_image(tmp_path / "a.jpg").size == (40, 20)
    assert pixel(tmp_path / "a.jpg", (3, 3))[0] > 200
    assert pixel(tmp_path / "a.jpg", (36, 16))[2] > 200


def test_files_that_are_not_images(tmp_path):
    whole = write_picture(tmp_path / "whole.jpg", side=200).read_bytes()
    contents = {
        "text.jpg": b"not an image",
        "empty.jpg": b"",
        "cut.jpg": whole[: len(whole) // 2],
        "head.jpg": whole[:20],
        "zeros.png": bytes(1000),
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(UsageError, match="there is no image"):
        load_image(tmp_path / "absent.jpg")
    with pytest.raises(UsageError):
        load_image(tmp_path)


def test_too_many_pixels(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UsageError, match=r"a\.jpg"):
        load_image(tmp_path / "a.jpg")


def encoded(kind: str) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8))
    image = image.quantize(16) if kind in ("PNG", "GIF") else image
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    image.save(buffer, kind, **extra)
    return buffer.getvalue()


KINDS = {kind: encoded(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
)
def test_damaged_bytes_give_an_image_or_a_usage_error(tmp_path_factory, kind, changes, cut):
    data = bytearray(KINDS[kind])
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data[: len(data) - cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damaged metadata
        with contextlib.suppress(UsageError):
            assert load_image(path).mode == "RGB"


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_a_photo_that_changes_while_it_is_read(tmp_path, monkeypatch, suffix):
    """It is read as it was, or refused. A pipe in its place does not block."""
    path, original = tmp_path / f"a.{suffix}", decode.open_picture
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole, size, other = load_image(path), path.stat().st_size, tmp_path / "other"
    for change in (
        lambda: os.truncate(path, 0),
        lambda: os.truncate(path, size // 2),
        lambda: os.replace(other, path),
        path.unlink,
    ):
        Image.fromarray(noise).save(path)
        other.write_bytes(b"another picture")

        def opened(file, change=change):
            image = original(file)
            change()
            return image

        with monkeypatch.context() as patch:
            patch.setattr(decode, "open_picture", opened)
            with contextlib.suppress(UsageError):
                assert load_image(path) == whole
    os.mkfifo(path)
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "isfile", lambda path: True)  # it was when it was looked at
        with pytest.raises(UsageError, match="not a regular file"):
            load_image(path)
