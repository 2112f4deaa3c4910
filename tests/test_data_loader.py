"""From annotation and picture files to batches: every kind of file, every kind of mistake."""

import contextlib
import io
import warnings
from itertools import permutations

import numpy as np
import pytest
import torch
from conftest import LABEL_SETS, RANKED, call, coco, refusal, write_json, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

import data_loader
import run_setup
import sample
import train
from annotations import encode_targets, find_annotations, read_annotations
from data_loader import (
    LabelledImages,
    find_images,
    load_data_set,
    make_loader,
    training_data,
)
from model import HybridNet
from pictures import ASPECTS, Preprocessing, View, load_image
from utils import UsageError
from vocabulary import Vocabulary, count_labels

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
@given(st.integers(0, 10**6), st.integers(8, 700), st.integers(8, 700), st.integers(1, 100))
def test_a_jpeg_is_never_decoded_smaller_than_its_crop_needs(
    tmp_path_factory, seed, width, height, side
):
    path = tmp_path_factory.getbasetemp() / "reduced.jpg"
    Image.new("RGB", (width, height)).save(path)
    for view in (View(side), random_view(seed, side)):
        image = load_image(path, view.least_size)
        wide, high = view.extent(width / height)
        # where the file itself has too few pixels, all of them are kept
        assert image.width == width or round(wide * image.width) >= side - 1
        assert image.height == height or round(high * image.height) >= side - 1
        factor = min(width // view.least_size(width, height)[0], 8)
        factor = min(height // view.least_size(width, height)[1], factor)
        expected = 1 << max(factor, 1).bit_length() - 1
        assert image.size == (-(-width // expected), -(-height // expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_shows_the_same(tmp_path, mode):
    image = smooth(640, 480).convert(mode)
    image.save(tmp_path / "a.jpg", quality=95, progressive=mode == "L")
    image.convert("RGB").save(tmp_path / "a.png")
    for view in (View(60), *(random_view(seed) for seed in range(4))):
        reduced = load_image(tmp_path / "a.jpg", view.least_size)
        assert reduced.mode == "RGB"
        assert reduced.width <= 320
        difference = rgb(view.of_file(tmp_path / "a.jpg")) - rgb(view.of_file(tmp_path / "a.png"))
        assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_upright(tmp_path, orientation):
    """What is needed is asked and answered in the upright picture's width and height."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(640, 480).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = (640, 480) if orientation < 5 else (480, 640)
    asked = []

    def needs(width, height):
        asked.append((width, height))
        return width // 4, height // 4

    reduced, whole = load_image(tmp_path / "a.jpg", needs), load_image(tmp_path / "a.jpg")
    assert asked == [upright]
    assert whole.size == upright
    assert reduced.size == (upright[0] // 4, upright[1] // 4)
    difference = np.asarray(whole.resize(reduced.size), float) - np.asarray(reduced, float)
    assert np.abs(difference).mean() < 1.5
    wide = load_image(tmp_path / "a.jpg", lambda width, height: (upright[0] // 2, 4))
    assert wide.size == (upright[0] // 2, upright[1] // 2)


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


# --- annotations ------------------------------------------------------------------------------


def changed(part: str, at: int, **fields) -> dict:
    content = coco()
    content[part][at] = {**content[part][at], **fields}
    return content


def without(part: str, at: int, key: str) -> dict:
    content = coco()
    del content[part][at][key]
    return content


BAD_ANNOTATIONS = {
    "[]": ([], "needs the lists"),
    "{}": ({}, "needs the lists"),
    "null": (None, "needs the lists"),
    "no annotations": ({"images": [], "categories": []}, "needs the lists"),
    "list of numbers": ({"images": [1], "annotations": [], "categories": []}, r"images\[0\]"),
    "dictionary": ({"images": {}, "annotations": [], "categories": []}, "needs the lists"),
    "no images": ({"images": [], "annotations": [], "categories": []}, "lists no images"),
    "image id": (without("images", 2, "id"), r'images\[2\] needs "id", a whole number'),
    "file name": (without("images", 1, "file_name"), r'images\[1\] needs "file_name", a text'),
    "file name 7": (changed("images", 1, file_name=7), r'images\[1\] needs "file_name", a text'),
    "id text": (changed("images", 0, id="100"), r'images\[0\] needs "id", a whole number'),
    "id true": (changed("images", 0, id=True), r'images\[0\] needs "id", a whole number'),
    "name": (without("categories", 0, "name"), r'categories\[0\] needs "name"'),
    "image_id": (without("annotations", 3, "image_id"), r'annotations\[3\] needs "image_id"'),
    "category text": (changed("annotations", 3, category_id="1"), r"annotations\[3\]"),
    "same image id": (changed("images", 0, id=101), "entries of images have the same id"),
    "same category id": (changed("categories", 0, id=1), "entries of categories have the same id"),
    "category": (changed("annotations", 4, category_id=99), r"annotations\[4\].*category_id 99"),
    "image": (changed("annotations", 4, image_id=9), r"annotations\[4\] has image_id 9"),
    "upwards": (changed("images", 5, file_name="../a.jpg"), r"images\[5\].*not inside"),
    "deep upwards": (changed("images", 5, file_name="a/../../b.jpg"), r"images\[5\].*not inside"),
    "absolute": (changed("images", 5, file_name="/etc/passwd"), r"images\[5\].*not inside"),
    "windows": (changed("images", 5, file_name="..\\a.jpg"), r"images\[5\].*not inside"),
    "no name": (changed("images", 5, file_name=""), r"images\[5\].*not inside"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_annotations_that_are_not_coco(tmp_path, content, sentence):
    path = write_json(content, tmp_path / "bad.json")
    with pytest.raises(UsageError, match=sentence) as caught:
        read_annotations(path)
    assert "bad.json" in str(caught.value)


def test_annotations_that_are_not_json(tmp_path):
    path = tmp_path / "bad.json"
    for content in (b"", b"hello", b'{"images": [', b"\xff\xfe\x00", b"[" * 200_000):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.json is not a json file"):
            read_annotations(path)
    with pytest.raises(UsageError, match="No such file"):
        read_annotations(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="Is a directory"):
        read_annotations(tmp_path)


def test_annotations_are_read(tiny, capsys):
    images = read_annotations(tiny.annotations)
    assert images.file_names == [f"img_{i:02d}.jpg" for i in range(12)]
    assert [set(labels) for labels in images.label_sets] == [set(labels) for labels in LABEL_SETS]
    assert all(len(set(labels)) == len(labels) for labels in images.label_sets), "two boxes, once"
    assert images.categories == sorted(RANKED)
    assert len(images.labelled()) == 11
    assert capsys.readouterr().out == "", "pycocotools prints to stdout, which is for data"


def test_a_label_that_no_file_can_hold(tmp_path):
    """A lone surrogate is legal JSON, but no text: no console and no JSON vocabulary takes it."""
    path = tmp_path / "odd.json"
    path.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": '
        '"\\ud800"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1}]}'
    )
    with pytest.raises(UsageError):
        read_annotations(path)


def test_real_coco_files(shared):
    folder = shared / "coco-sample"
    for part in ("train2014", "val2014"):
        images = read_annotations(folder / f"annotations/instances_{part}.json")
        for image_path in (folder / "images", folder / "images" / part):
            paths = find_images(image_path, images)
            assert len(paths) == len(images) > 200
        assert load_image(paths[0]).mode == "RGB"


# --- where things lie -------------------------------------------------------------------------


def test_images_are_found_in_the_folder_and_below(tmp_path):
    names = ["a.jpg", "b.jpg", "sub/c.jpg", "d.jpg"]
    images = read_annotations(write_json(coco([("cat",)] * 4, names), tmp_path / "x.json"))
    expected = [tmp_path / "i" / n for n in ("a.jpg", "val2014/b.jpg", "sub/c.jpg", "z/d.jpg")]
    for path in expected:
        write_picture(path)
    assert find_images(tmp_path / "i", images) == expected
    expected[1].unlink()
    expected[3].unlink()
    with pytest.raises(UsageError, match=r"^2 of the 4 images of .*x\.json .*b\.jpg for one$"):
        find_images(tmp_path / "i", images)
    with pytest.raises(UsageError, match="does not exist"):
        find_images(tmp_path / "nowhere", images)


def test_annotations_are_found(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    folder = tiny.annotations.parent
    image = tiny.images / "img_03.jpg"

    def found(path, prefer="train"):
        return find_annotations(path.relative_to(tiny.folder), prefer).name

    assert found(tiny.images) == found(image) == "instances.json"
    write_json(coco([("cat",)], ["other.jpg"]), folder / "instances_train2014.json")
    write_json(coco([("cat",)], ["third.jpg"]), folder / "instances_val2014.json")
    write_json({"annotations": []}, folder / "captions_val2014.json")
    assert found(image) == "instances.json", "the only one that lists the image"
    assert found(tiny.images) == "instances_train2014.json"
    assert found(tiny.images, "val") == "instances_val2014.json"
    write_json(coco(), folder / "keypoints.json")
    assert found(image) == "instances.json", "other files of the same images do not count"
    write_json(coco(), folder / "instances_copy.json")
    (folder / "instances_train2014.json").unlink()
    with pytest.raises(UsageError, match=r"instances_copy\.json.*name the one with --annotations"):
        find_annotations(image, "train")
    with pytest.raises(UsageError, match="no annotations folder"):
        find_annotations(tiny.folder / "elsewhere/images", "train")


def test_unlabelled_images_are_dropped_unless_kept(tiny, capsys):
    images, paths = load_data_set(tiny.images, read_annotations(tiny.annotations))
    assert len(images) == len(paths) == 11
    assert "12 images, 11 with labels; those with labels are used" in capsys.readouterr().err
    images, paths = load_data_set(
        tiny.images, read_annotations(tiny.annotations), keep_unlabelled=True
    )
    assert len(images) == len(paths) == 12
    assert images.label_sets[7] == ()
    images, _ = load_data_set(tiny.images, read_annotations(tiny.annotations), limit=3)
    assert images.file_names == ["img_00.jpg", "img_01.jpg", "img_02.jpg"]


def test_a_set_without_labels(tiny):
    path = write_json(coco([()] * 12), tiny.folder / "none.json")
    with pytest.raises(UsageError, match="no labelled images"):
        load_data_set(tiny.images, read_annotations(path))


def test_single_images(tiny):
    images, paths = load_data_set(tiny.images / "img_02.jpg", read_annotations(tiny.annotations))
    assert paths == [tiny.images / "img_02.jpg"]
    assert [set(labels) for labels in images.label_sets] == [{"person", "dog", "cat"}]
    stranger = write_picture(tiny.folder / "stranger.jpg")
    for path in (stranger, tiny.images / "img_07.jpg"):
        with pytest.raises(UsageError, match="has no annotation in"):
            load_data_set(path, read_annotations(tiny.annotations))


# --- targets ----------------------------------------------------------------------------------


def test_targets_are_in_order_of_rank(tiny):
    images = read_annotations(tiny.annotations)
    targets = encode_targets(images, count_labels(images.label_sets, images.categories))
    assert targets.dtype == bool
    for row, labels in zip(targets, LABEL_SETS, strict=True):
        assert row.tolist() == [label in labels for label in RANKED]


def test_dropped_labels_are_ignored_and_unknown_ones_refused(tiny, capsys):
    images = read_annotations(tiny.annotations)
    rare = count_labels(images.label_sets, images.categories, min_count=4)
    targets = encode_targets(images, rare)
    assert targets.sum(0).tolist() == [7, 4, 4]
    assert "4 labels too rare" in capsys.readouterr().err
    with pytest.raises(UsageError, match="'zebra', which the vocabulary lacks"):
        encode_targets(images, Vocabulary(rare.labels, rare.counts, rare.num_images))


# --- batches ----------------------------------------------------------------------------------


def make_data(tiny, seed: int = 0, image_size: int = 24) -> LabelledImages:
    images, paths = load_data_set(tiny.images, read_annotations(tiny.annotations))
    targets = encode_targets(images, count_labels(images.label_sets, images.categories))
    return LabelledImages(paths, targets, Preprocessing(image_size), seed)


def epoch_of(loader, epoch: int) -> list[list[torch.Tensor]]:
    loader.batch_sampler.epoch = epoch
    return list(loader)


def equal(a, b) -> bool:
    return all(
        torch.equal(x, y) for u, v in zip(a, b, strict=True) for x, y in zip(u, v, strict=True)
    )


def test_batches(tiny):
    data = make_data(tiny)
    batches = epoch_of(make_loader(data, 4, shuffle=True), 1)
    assert [images.shape for images, _, _ in batches] == [(n, 3, 24, 24) for n in (4, 4, 3)]
    for images, targets, indices in batches:
        assert images.dtype == torch.uint8
        assert targets.dtype == torch.float32
        assert torch.equal(targets, data.targets[indices])
    seen = torch.cat([indices for *_, indices in batches]).tolist()
    assert sorted(seen) == list(range(11)), "each image once an epoch, the short batch included"
    assert seen != list(range(11))
    in_order = epoch_of(make_loader(data, 4), 0)
    assert torch.cat([indices for *_, indices in in_order]).tolist() == list(range(11))


def test_an_epoch_depends_on_seed_and_epoch_alone(tiny):
    loader = make_loader(make_data(tiny), 4, shuffle=True)
    first = epoch_of(loader, 1)
    torch.rand(3)  # the global generator's state must not matter
    second = epoch_of(loader, 2)
    assert equal(first, epoch_of(loader, 1))
    assert not equal(first, second)
    assert not equal(first, epoch_of(make_loader(make_data(tiny, seed=1), 4, shuffle=True), 1))
    with_workers = make_loader(make_data(tiny), 4, num_workers=2, shuffle=True)
    assert equal(first, epoch_of(with_workers, 1))
    assert equal(second, epoch_of(with_workers, 2))


def test_the_same_image_is_seen_differently_in_another_epoch(tiny):
    data = make_data(tiny)
    views = [data[epoch, 2][0] for epoch in range(6)]
    assert len({view.numpy().tobytes() for view in views}) == 6
    other = make_data(tiny, seed=1)
    assert not torch.equal(views[1], other[1, 2][0])


def test_repeats_are_different_views(tiny):
    loader = make_loader(make_data(tiny), 11, shuffle=True, repeats=3)
    assert len(loader) == 3

    def views(epoch: int) -> set[tuple[int, bytes]]:
        batches = epoch_of(loader, epoch)
        return {
            (int(i), image.numpy().tobytes())
            for images, _, indices in batches
            for i, image in zip(indices, images, strict=True)
        }

    assert len(views(1)) == 33
    assert not views(1) & views(2)


# --- hold-out ---------------------------------------------------------------------------------


def split(*flags) -> tuple[LabelledImages, LabelledImages, str]:
    args = train.get_args_parser().parse_args(
        ["--image_path", "data/images", "--image_size", "24", "--num_workers", "0", *flags]
    )
    run_setup.fill_defaults(args)
    loaders = training_data(args, Preprocessing(args.image_size), False)
    return loaders[0].dataset, loaders[1].dataset, loaders[3]


def test_the_hold_out_is_apart_and_reproducible(workdir):
    training, held, selected_on = split("--hold_out", "0.3")
    assert len(held) == 3
    assert not set(training.paths) & set(held.paths)
    assert len(set(training.paths) | set(held.paths)) == 11
    assert selected_on == "a hold-out of 3 training images"
    again = split("--hold_out", "0.3")
    assert again[0].paths == training.paths
    assert again[1].paths == held.paths
    others = [split("--hold_out", "0.3", "--seed", str(seed))[1].paths for seed in (1, 2, 3)]
    assert any(paths != held.paths for paths in others)


def test_named_validation_images_leave_all_others_to_training(workdir):
    training, held, selected_on = split("--val_annotations", "data/annotations/instances.json")
    assert len(training) == len(held) == 11
    assert "named by the user" in selected_on


def test_too_few_images_to_hold_any_out(workdir):
    training, held, selected_on = split("--limit", "4")
    assert len(training) == len(held) == 4
    assert "the training images themselves" in selected_on


def test_a_hold_out_of_everything_is_refused(workdir):
    """0.96 of 11 images rounds to all 11 of them."""
    with pytest.raises(UsageError, match="hold_out"):
        split("--hold_out", "0.96")


def test_validation_sees_a_file_as_sample_does(workdir, trained, monkeypatch, capsys):
    """Training's validation and sample.py must agree to the last bit, or figures mean nothing."""
    for i in range(12):  # not square, and stored lying on its side
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(
            np.random.default_rng(i).integers(0, 255, (50 + i, 90, 3), np.uint8)
        )
        image.save(workdir / f"data/images/img_{i:02d}.jpg", exif=exif)
    _, held, _ = split("--image_size", "32", "--hold_out", "0.2")
    seen = []
    encode = HybridNet.encode

    def spy(self, images):
        seen.append(images.clone())
        return encode(self, images)

    monkeypatch.setattr(HybridNet, "encode", spy)
    call(sample, *held.paths, "--checkpoint", trained.output / "best.pt", "--json")
    assert len(seen) == len(held) == 2
    for i, images in enumerate(seen):
        assert torch.equal(images[0], held[0, i][0])
        assert images.dtype == torch.uint8


# --- the script -------------------------------------------------------------------------------


def test_the_script_describes_a_set(workdir, capsys):
    call(data_loader, "--image_path", "data/images", "--image_size", 24, "--num_workers", 0)
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "11 images, 5 labels, 1.73 an image",
        "a batch: images (11, 3, 24, 24) torch.uint8, targets (11, 5)",
    ]


def test_the_script_refuses(workdir):
    assert "does not exist" in refusal(
        data_loader, "--image_path", "none", "--annotations", "data/annotations/instances.json"
    )
    (workdir / "data/images/img_03.jpg").write_text("no picture")
    flags = ("--image_path", "data/images", "--num_workers", 0)
    assert "img_03.jpg" in refusal(data_loader, *flags)


def test_a_damaged_picture_is_named_by_workers_too(workdir):
    """The error crosses a process border on its way to the user."""
    (workdir / "data/images/img_03.jpg").write_text("no picture")
    assert "img_03.jpg" in refusal(
        data_loader, "--image_path", "data/images", "--num_workers", 2, "--image_size", 24
    )
