"""Pixels -> the model's input: crops, resizing and colours."""

from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import rgb, smooth
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from images.transforms import ASPECTS, Preprocessing, Transform


def random_transform(seed: int, size: int = 64, **changes) -> Transform:
    return Preprocessing(size, **changes).train_transform(np.random.default_rng(seed))


@given(
    st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 300), st.sampled_from((0.3, 0.7, 1))
)
def test_crops_have_their_area_and_an_allowed_aspect_ratio_if_possible(
    seed, width, height, min_crop
):
    transform = random_transform(seed, min_crop=min_crop)
    wide, high = transform.extent(width / height)
    assert 0 < wide <= 1
    assert 0 < high <= 1
    assert min_crop - 1e-9 <= transform.area <= 1
    assert wide * high == pytest.approx(transform.area)
    aspect = wide * width / (high * height)
    if not ASPECTS[0] - 1e-9 <= aspect <= ASPECTS[1] + 1e-9:  # then one side is full
        assert max(wide, high) == pytest.approx(1)
        assert abs(np.log(aspect)) <= abs(np.log(width / height)) + 1e-9


def test_crops_vary_in_every_way():
    transforms = [random_transform(seed) for seed in range(2000)]
    assert np.mean([t.flipped for t in transforms]) == pytest.approx(0.5, abs=0.05)
    for name, low, high in [
        ("area", 0.7, 1.0),
        *((name, 0.8, 1.2) for name in ("brightness", "contrast", "saturation")),
        *((name, 0.0, 1.0) for name in ("shape", "across", "down")),
    ]:
        values = [getattr(t, name) for t in transforms]
        assert low <= min(values) < low + 0.01 * (high - low) + 1e-3
        assert high >= max(values) > high - 0.01 * (high - low) - 1e-3
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02)


@pytest.mark.parametrize("size", [(90, 60), (64, 64), (30, 40), (1, 1), (200, 3)])
def test_the_whole_image_is_resized_as_by_pillow(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    seen = Transform(32)(np.asarray(image), image.width / image.height)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float)
    assert np.abs(rgb(seen) - expected).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_is_resized_as_by_pillow(seed):
    transform, image = random_transform(seed, 32, jitter=0), smooth(160, 120, seed)
    wide, high = transform.extent(160 / 120)
    left, top = transform.across * (1 - wide) * 160, transform.down * (1 - high) * 120
    box = (left, top, left + wide * 160, top + high * 120)
    expected = image.resize((32, 32), Image.Resampling.BILINEAR, box)
    if transform.flipped:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    seen = transform(np.asarray(image), 160 / 120)
    assert np.abs(rgb(seen) - np.asarray(expected, float)).max() <= 6, "crops are whole pixels"


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color"])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_colours_change_as_by_pillow(name, factor):
    image = smooth(32, 32)
    ours = "saturation" if name == "Color" else name.lower()
    seen = Transform(32, **{ours: factor})(np.asarray(image), 1)
    expected = np.asarray(getattr(ImageEnhance, name)(image).enhance(factor), float)
    assert np.abs(rgb(seen) - expected).max() <= 2


def test_all_colours_together_in_any_order():
    image = smooth(32, 32)
    seen = Transform(32, brightness=0.9, contrast=0.85, saturation=1.1)(np.asarray(image), 1)
    factors = {"Brightness": 0.9, "Contrast": 0.85, "Color": 1.1}
    for order in permutations(factors):
        expected = image
        for name in order:
            expected = getattr(ImageEnhance, name)(expected).enhance(factors[name])
        assert np.abs(rgb(seen) - np.asarray(expected, float)).max() <= 4


def test_strong_augmentation_repeats_and_leaves_torchs_random_numbers_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    light, strong = (Preprocessing(32, augmentation=name) for name in ("light", "strong"))
    before = torch.get_rng_state()
    changed = 0
    for seed in range(8):
        one, again = (
            strong.train_transform(np.random.default_rng(seed))(pixels, 1.2) for _ in range(2)
        )
        assert torch.equal(one, again)
        assert (one.shape, one.dtype) == ((3, 32, 32), torch.uint8)
        plain = light.train_transform(np.random.default_rng(seed))(pixels, 1.2)
        changed += not torch.equal(one, plain)
    assert changed > 4
    assert torch.equal(before, torch.get_rng_state())
    assert strong.eval_transform() == light.eval_transform()


def test_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="augmentation is not one of light, strong"):
        Preprocessing(32, augmentation="heavy")
