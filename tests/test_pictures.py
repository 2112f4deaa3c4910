"""From picture files to pixels: every kind of file, crops and colours, reduced decoding."""

import contextlib
import io
import warnings
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import (
    write_picture,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from pictures import ASPECTS, Preprocessing, View, load_image, load_pixels
from utils import UsageError

# --- pictures ---------------------------------------------------------------------------------


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


def test_palette_pictures(tmp_path):
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


def test_floating_point_pictures(tmp_path):
    Image.fromarray(np.full((6, 8), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert pixel(tmp_path / "a.tif") == (127, 127, 127)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path, orientation):
    """Cameras store the sensor's rows and say in EXIF how the camera was held."""
    upright = solid("RGB", "blue", (40, 20))
    upright.paste("red", (0, 0, 20, 10))
    stored = {  # the inverse of what a viewer has to do
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


def test_what_is_not_a_picture(tmp_path):
    whole = write_picture(tmp_path / "whole.jpg", side=200).read_bytes()
    contents = {
        "text.jpg": b"not a picture",
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


def test_a_picture_too_large_to_be_one(tmp_path, monkeypatch):
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
def test_damaged_bytes_give_a_picture_or_the_sentence(tmp_path_factory, kind, changes, cut):
    data = bytearray(KINDS[kind])
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data[: len(data) - cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own about damaged metadata
        with contextlib.suppress(UsageError):
            assert load_image(path).mode == "RGB"


# --- views ------------------------------------------------------------------------------------


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """Waves without fine detail: any good way to shrink them gives the same."""
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    x, y = np.linspace(0, 6, width)[None], np.linspace(0, 6, height)[:, None]
    waves = [127 + 60 * np.sin(x + a) + 60 * np.cos(y + b) for a, b in phases]
    return Image.fromarray(np.uint8(np.stack(waves, 2)))


def random_view(seed: int, size: int = 64, **changes) -> View:
    return Preprocessing(size, **changes).for_training(np.random.default_rng(seed))


def rgb(view: torch.Tensor) -> np.ndarray:
    """3×S×S -> S×S×3 that may be subtracted."""
    return view.permute(1, 2, 0).numpy().astype(float)


@given(
    st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 300), st.sampled_from((0.3, 0.7, 1))
)
def test_crops_keep_the_area_and_are_as_square_as_that_allows(seed, width, height, min_crop):
    view = random_view(seed, min_crop=min_crop)
    wide, high = view.extent(width / height)
    assert 0 < wide <= 1
    assert 0 < high <= 1
    assert min_crop - 1e-9 <= view.area <= 1
    assert wide * high == pytest.approx(view.area)
    aspect = wide * width / (high * height)
    if not ASPECTS[0] - 1e-9 <= aspect <= ASPECTS[1] + 1e-9:  # then it has a full side
        assert max(wide, high) == pytest.approx(1)
        assert abs(np.log(aspect)) <= abs(np.log(width / height)) + 1e-9


def test_crops_vary_in_every_way():
    views = [random_view(seed) for seed in range(2000)]
    assert np.mean([v.mirrored for v in views]) == pytest.approx(0.5, abs=0.05)
    for name, low, high in [
        ("area", 0.7, 1.0),
        *((name, 0.8, 1.2) for name in ("brightness", "contrast", "saturation")),
        *((name, 0.0, 1.0) for name in ("shape", "across", "down")),
    ]:
        values = [getattr(v, name) for v in views]
        assert low <= min(values) < low + 0.01 * (high - low) + 1e-3
        assert high >= max(values) > high - 0.01 * (high - low) - 1e-3
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02)


@pytest.mark.parametrize("size", [(90, 60), (64, 64), (30, 40), (1, 1), (200, 3)])
def test_the_whole_picture_is_resized_as_pillow_does(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    seen = View(32).of_pixels(np.asarray(image), image.width / image.height)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)
    assert np.abs(rgb(seen) - expected).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_is_resized_as_pillow_does(seed):
    view, image = random_view(seed, 32, jitter=0), smooth(160, 120, seed)
    wide, high = view.extent(160 / 120)
    left, top = view.across * (1 - wide) * 160, view.down * (1 - high) * 120
    box = (left, top, left + wide * 160, top + high * 120)
    expected = image.resize((32, 32), Image.Resampling.BILINEAR, box)
    if view.mirrored:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = view.of_pixels(np.asarray(image), 160 / 120)
    assert np.abs(rgb(seen) - np.asarray(expected, float)).max() <= 6, "edges are whole pixels"


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color"])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_colours_change_as_in_pillow(name, factor):
    image = smooth(32, 32)
    ours = "saturation" if name == "Color" else name.lower()
    seen = View(32, **{ours: factor}).of_pixels(np.asarray(image), 1)
    expected = np.asarray(getattr(ImageEnhance, name)(image).enhance(factor), float)
    assert np.abs(rgb(seen) - expected).max() <= 2


def test_all_colours_together_in_any_order():
    image = smooth(32, 32)
    seen = View(32, brightness=0.9, contrast=0.85, saturation=1.1).of_pixels(np.asarray(image), 1)
    factors = {"Brightness": 0.9, "Contrast": 0.85, "Color": 1.1}
    for order in permutations(factors):
        expected = image
        for name in order:
            expected = getattr(ImageEnhance, name)(expected).enhance(factors[name])
        assert np.abs(rgb(seen) - np.asarray(expected, float)).max() <= 4


# --- decoding at reduced size -----------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.integers(1, 100))
def test_a_jpeg_is_never_decoded_smaller_than_it_is_seen_at_test(
    tmp_path_factory, width, height, side
):
    path = tmp_path_factory.getbasetemp() / "reduced.jpg"
    Image.new("RGB", (width, height)).save(path)
    high, wide, _ = load_pixels(path, side).shape
    # where the file itself has too few pixels, all of them are kept
    assert wide >= min(side, width)
    assert high >= min(side, height)
    expected = 1 << max(min(width // side, height // side, 8), 1).bit_length() - 1
    assert (wide, high) == (-(-width // expected), -(-height // expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_shows_the_same(tmp_path, mode):
    image = smooth(640, 480).convert(mode)
    image.save(tmp_path / "a.jpg", quality=95, progressive=mode == "L")
    image.convert("RGB").save(tmp_path / "a.png")
    for view in (View(60), *(random_view(seed) for seed in range(4))):
        reduced = load_pixels(tmp_path / "a.jpg", view.side)
        assert reduced.shape[1] <= 320
        difference = rgb(view.of_file(tmp_path / "a.jpg")) - rgb(view.of_file(tmp_path / "a.png"))
        assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(640, 480).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = (640, 480) if orientation < 5 else (480, 640)
    reduced, whole = load_pixels(tmp_path / "a.jpg", 120), load_image(tmp_path / "a.jpg")
    assert whole.size == upright
    size = upright[0] // 4, upright[1] // 4
    assert reduced.shape == (*size[::-1], 3)
    difference = np.asarray(whole.resize(size), float) - reduced
    assert np.abs(difference).mean() < 1.5


SAVED_AS = {
    "plain": {},
    "progressive": {"progressive": True},
    "colours at full size": {"subsampling": 0},
    "restart markers": {"restart_marker_rows": 1},
    "turned": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)},
    "bytes left over": {"comment": b"\xff" * 9},
}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.sampled_from(sorted(SAVED_AS)),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(5, 100),
    st.none() | st.integers(1, 100),
)
def test_every_jpeg_has_the_pixels_that_pillow_decodes(
    tmp_path_factory, mode, kind, width, height, quality, side
):
    path = tmp_path_factory.getbasetemp() / "same.jpg"
    smooth(width, height).convert(mode).save(path, "JPEG", quality=quality, **SAVED_AS[kind])
    with Image.open(path) as image:
        if side:
            image.draft(None, (side, side))
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(load_pixels(path, side), expected)


def test_real_photos_have_the_pixels_that_pillow_decodes(shared):
    for path in sorted((shared / "coco-sample/images/val2014").glob("*.jpg"))[::10]:
        with Image.open(path) as image:
            assert np.array_equal(load_pixels(path), np.asarray(image.convert("RGB")))


def test_a_jpeg_whose_sizes_disagree_is_left_to_pillow(tmp_path, monkeypatch):
    """Pillow has counted its pixels by then; another decoder must not find more of them."""
    write_picture(tmp_path / "a.jpg", side=40)
    expected = load_pixels(tmp_path / "a.jpg")
    header = lambda data: (4000, 4000, "YCbCr", "420")  # noqa: E731
    monkeypatch.setattr("simplejpeg.decode_jpeg_header", header)
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    assert np.array_equal(load_pixels(tmp_path / "a.jpg"), expected)


def test_real_photos_reduced(shared):
    """Against the full picture: the reduction is a part of the shrinking, not one more."""
    photos = sorted((shared / "coco-sample/images/val2014").glob("*.jpg"))[::20]
    differences = []
    for path in photos:
        image, view = load_image(path), View(64)
        whole = view.of_pixels(np.asarray(image), image.width / image.height)
        differences.append(np.abs(rgb(view.of_file(path)) - rgb(whole)).mean())
    assert max(differences) < 5
    assert np.mean(differences) < 2
