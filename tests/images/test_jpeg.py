"""JPEGs are decoded at a reduced size where that is enough, to the pixels that Pillow decodes."""

import itertools

import numpy as np
import pytest
from conftest import rgb, smooth, write_picture
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from images.decode import load_image, load_pixels
from images.transforms import Preprocessing, Transform


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.integers(1, 100))
def test_a_jpeg_keeps_enough_pixels_for_evaluation(tmp_path_factory, width, height, side):
    path = tmp_path_factory.getbasetemp() / "reduced.jpg"
    Image.new("RGB", (width, height)).save(path)
    high, wide, _ = load_pixels(path, side).shape
    # where the file itself has too few pixels, all of them are kept
    assert wide >= min(side, width)
    assert high >= min(side, height)
    expected = 1 << max(min(width // side, height // side, 8), 1).bit_length() - 1
    assert (wide, high) == (-(-width // expected), -(-height // expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_gives_nearly_the_same_input(tmp_path, mode):
    image = smooth(640, 480).convert(mode)
    image.save(tmp_path / "a.jpg", quality=95, progressive=mode == "L")
    image.convert("RGB").save(tmp_path / "a.png")
    rngs = map(np.random.default_rng, range(4))
    for transform in (Transform(60), *(Preprocessing(64).train_transform(rng) for rng in rngs)):
        reduced = load_pixels(tmp_path / "a.jpg", transform.side)
        assert reduced.shape[1] <= 320
        difference = rgb(transform.from_file(tmp_path / "a.jpg")) - rgb(
            transform.from_file(tmp_path / "a.png")
        )
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
@example("RGB", "plain", 3, 3, 5, 1)
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


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("side", [None, 1, 2, 4])
def test_every_tiny_jpeg_has_the_pixels_that_pillow_decodes(tmp_path, subsampling, side):
    """Two scales may give the same size."""
    for width, height in itertools.product(range(1, 18), repeat=2):
        smooth(width, height).save(tmp_path / "a.jpg", subsampling=subsampling)
        with Image.open(tmp_path / "a.jpg") as image:
            if side:
                image.draft(None, (side, side))
            expected = np.asarray(image)
        assert np.array_equal(load_pixels(tmp_path / "a.jpg", side), expected)


def test_real_photos_have_the_pixels_that_pillow_decodes(shared):
    for path in sorted((shared / "coco-sample/images/val2014").glob("*.jpg"))[::10]:
        with Image.open(path) as image:
            assert np.array_equal(load_pixels(path), np.asarray(image.convert("RGB")))


def test_a_jpeg_whose_sizes_disagree_is_left_to_pillow(tmp_path, monkeypatch):
    """Pillow has checked the number of pixels; another decoder must not find more."""
    write_picture(tmp_path / "a.jpg", side=40)
    expected = load_pixels(tmp_path / "a.jpg")
    larger = 4000, 4000, "YCbCr", "420"
    monkeypatch.setattr("simplejpeg.decode_jpeg_header", lambda data: larger)
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    assert np.array_equal(load_pixels(tmp_path / "a.jpg"), expected)


def test_real_photos_reduced(shared):
    """Close to the full image: the reduction is part of the resizing, not one more step."""
    photos = sorted((shared / "coco-sample/images/val2014").glob("*.jpg"))[::20]
    differences = []
    for path in photos:
        image, transform = load_image(path), Transform(64)
        whole = transform(np.asarray(image), image.width / image.height)
        differences.append(np.abs(rgb(transform.from_file(path)) - rgb(whole)).mean())
    assert max(differences) < 5
    assert np.mean(differences) < 2
