"""predictor.py: the same answers as sample.py, for files and for PIL images."""

import json

import numpy as np
import pytest
import torch
from conftest import EVALUATE, call, refusal, write_picture
from PIL import Image, ImageOps

import evaluate
import sample
from images.decode import load_pixels, pixels_of
from inference import predictor as predictor_module
from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.decoding import sample_label_sets
from inference.predictor import load
from model import Encoding
from util.errors import UsageError

ORIENTATION = 0x0112  # EXIF


@pytest.fixture(scope="module")
def predictor(trained):
    return load(trained.output / "best.pt")


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), {}),
        (
            ("--decide", "map", "--num_sets", "3", "--standard_errors"),
            {"decide": "map", "num_sets": 3, "standard_errors": True},
        ),
        (
            ("--decide", "label_f1", "--known", "dog", "--absent", "cat", "--num_samples", "64"),
            {"decide": "label_f1", "known": ["dog"], "absent": ["cat"], "num_samples": 64},
        ),
    ],
)
def test_predict_is_sample_json(predictor, trained, capsys, flags, options):
    image = trained.images / "img_02.jpg"
    call(sample, image, "--checkpoint", trained.output / "best.pt", "--json", *flags)
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("image") == str(image)
    assert predictor.predict(image, **options) == printed
    assert predictor.predict(str(image), **options) == printed


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "1", "P", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_pil_image_is_predicted_like_its_file(predictor, tmp_path, mode, orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
    else:
        image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert predictor.predict(image) == predictor.predict(tmp_path / "a.png")
        assert image.size == (40, 24), "the caller's image is not changed"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.webp"])
def test_pixels_of_a_pil_image_are_upright(tmp_path, name, orientation):
    """The oracle is Pillow's own rotation."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(pixels_of(image), upright)
    np.testing.assert_allclose(load_pixels(tmp_path / name), upright, atol=1)


def test_wrong_arguments(predictor, tmp_path):
    image = Image.new("RGB", (8, 8))
    with pytest.raises(UsageError, match="does not know the label 'persn'; did you mean 'person'"):
        predictor.predict(image, known=["persn"])
    with pytest.raises(UsageError, match="'dog' is given as known and as absent"):
        predictor.predict(image, known=["dog"], absent=["dog"])
    with pytest.raises(ValueError, match="decide is 'best'"):
        predictor.predict(image, decide="best")
    with pytest.raises(UsageError, match="there is no image"):
        predictor.predict(tmp_path / "absent.jpg")
    with pytest.raises(UsageError, match="there is no checkpoint"):
        load(tmp_path / "absent.pt")


def test_the_error_of_one_sample_is_unknown(predictor, trained, tmp_path):
    photo = trained.images / "img_02.jpg"
    with pytest.raises(UsageError, match="--standard_errors needs --num_samples 2 or more"):
        predictor.predict(photo, num_samples=1, standard_errors=True)
    samples = sample_label_sets(predictor.model, predictor.encode(photo), 1)
    assert samples.standard_errors.isnan().all()
    flags = ("--checkpoint", trained.output / "best.pt", "--output", tmp_path / "out")
    sentence = refusal(sample, trained.images, *flags, "--num_samples", 1, "--standard_errors")
    assert "--num_samples 2" in sentence
    assert not (tmp_path / "out").exists()


def test_a_network_that_overflows(trained, tmp_path, monkeypatch):
    """Its weights are finite, but what it says of an image is not."""
    checkpoint = load_checkpoint(trained.output / "best.pt")
    checkpoint["weights"]["classifier.weight"].fill_(3e38)
    checkpoint["weights"]["classifier.weight"][0] *= -1
    monkeypatch.chdir(trained.folder)
    path = tmp_path / "best.pt"
    save_checkpoint(checkpoint, path)
    photo = trained.images / "img_02.jpg"
    for module, flags in (
        (sample, (photo, "--checkpoint", path, "--output", tmp_path / "out")),
        (evaluate, (*EVALUATE, "--checkpoint", path, "--output_dir", tmp_path / "out")),
    ):
        assert "gives no finite probabilities" in refusal(module, *flags)


def test_class_activation_maps(predictor, tmp_path):
    encoding = predictor.encode(write_picture(tmp_path / "a.jpg", ("dog",)))
    maps = predictor.class_activation_maps(encoding)
    assert tuple(maps) == predictor.labels
    assert all(m.shape == (4, 4) for m in maps.values())  # layer2 at 32 pixels


@pytest.mark.parametrize("limit", [1, 3 * 64 * 600, predictor_module.LIMIT])
@pytest.mark.parametrize(
    "options", [{}, {"decide": "f1", "num_sets": 3, "standard_errors": True}, {"known": ["dog"]}]
)
def test_a_batch_is_described_as_its_images_are(predictor, trained, monkeypatch, limit, options):
    """Whatever number of images is decoded at once; sums of a batch may be rounded otherwise."""
    monkeypatch.setattr(predictor_module, "LIMIT", limit)
    files = sorted(trained.images.glob("*.jpg"))[:7]
    encodings = [predictor.encode(file) for file in files]
    batch = Encoding(
        torch.cat([e.image_embedding for e in encodings]),
        torch.cat([e.cnn_logits for e in encodings]),
        [torch.cat(maps) for maps in zip(*(e.class_maps for e in encodings), strict=True)],
    )
    found = predictor.describe_batch(batch, num_samples=64, **options)
    for encoding, result in zip(encodings, found, strict=True):
        one = predictor.describe(encoding, num_samples=64, **options)
        assert result.keys() == one.keys()
        assert set(result["predicted"]) == set(one["predicted"])
        assert result["labels"] == pytest.approx(one["labels"], abs=1e-5)
        pairs = zip(result["most_probable_sets"], one["most_probable_sets"], strict=True)
        for a, b in pairs:
            assert a["labels"] == b["labels"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
