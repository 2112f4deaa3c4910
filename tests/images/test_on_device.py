"""--decode_on_gpu, with a CPU in the place of the GPU: torchcodec decodes there in the same way."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVALUATE, TRAIN, call, log_lines, refusal, rgb, smooth
from PIL import Image

import evaluate
import train
from data_loader import LabelledImages, make_loader
from images import on_device
from images.on_device import EncodedImages
from images.transforms import Preprocessing
from util.errors import UsageError

CPU = torch.device("cpu")
ON = "--decode_on_gpu"


@pytest.fixture
def decoder():
    """Skips where torchcodec cannot be used, for example with torch 2.5."""
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception as error:
        pytest.skip(f"torchcodec cannot be used: {str(error).strip():.60}")


@pytest.fixture
def any_device(decoder, monkeypatch):
    """The scripts take a CPU for the GPU."""
    original = on_device.check_decoder
    monkeypatch.setattr(
        on_device, "check_decoder", lambda _, *others: original(torch.device("cuda"), *others)
    )
    for script in (train, evaluate):
        monkeypatch.setattr(script, "check_decoder", on_device.check_decoder)


@pytest.fixture
def folder(tmp_path) -> Path:
    """JPEGs of all kinds, and a PNG. A decoder of JPEGs is given the first three only."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    smooth(70, 50).save(tmp_path / "a.jpg", quality=95)
    smooth(50, 70, 1).save(tmp_path / "b.jpg", quality=80, progressive=True)
    smooth(61, 47, 2).save(tmp_path / "c.jpg", subsampling=0)
    smooth(300, 40, 3).save(tmp_path / "d.jpg", exif=exif)
    smooth(64, 64, 4).convert("L").save(tmp_path / "e.jpg")
    smooth(64, 64, 5).convert("CMYK").save(tmp_path / "f.jpg")
    smooth(64, 48, 6).save(tmp_path / "g.png")
    smooth(7, 5, 7).save(tmp_path / "h.jpg")
    return tmp_path


def batches(folder: Path, seed: int | None, augmentation: str, *, encoded: bool, size=4) -> list:
    """(images, targets, indices) as training gets them."""
    paths = sorted(folder.iterdir())
    targets = np.arange(len(paths))[:, None] % 2 == [0, 1]
    how = Preprocessing(40, augmentation=augmentation)
    data = LabelledImages(paths, targets, how, seed, encoded=encoded)
    return [(images.to(CPU), *rest) for images, *rest in make_loader(data, size, shuffle=True)]


@pytest.mark.parametrize(("seed", "augmentation"), [(None, "light"), (0, "light"), (1, "strong")])
@pytest.mark.parametrize("most", [100_000_000, 5_000, 1])
def test_batches_are_those_of_a_cpu(folder, decoder, monkeypatch, seed, augmentation, most):
    """But for rounding: a resized value may differ by one, and colours make that two.

    RandAugment may turn that into more, in a few pixels. A small memory makes no difference.
    """
    monkeypatch.setattr(on_device, "MAX_PIXELS", most)
    found, expected = (batches(folder, seed, augmentation, encoded=on) for on in (True, False))
    assert len(found) == len(expected) == 2
    for (images, *rest), (of_cpu, *others) in zip(found, expected, strict=True):
        assert all(map(torch.equal, rest, others))
        assert images.dtype == torch.uint8
        assert images.stride() == of_cpu.stride()
        difference = (images.float() - of_cpu.float()).abs()
        assert difference.mean() < 0.3
        if augmentation == "light":
            assert difference.max() <= (1 if seed is None else 2)


def test_only_plain_jpegs_wait_for_the_device(folder, decoder):
    transform = Preprocessing(40).eval_transform()
    read = {p.name: on_device.EncodedImage.read(p, transform) for p in folder.iterdir()}
    assert {name for name, image in read.items() if image.is_jpeg} == {"a.jpg", "b.jpg", "c.jpg"}
    assert all(i.data == (folder / n).read_bytes() for n, i in read.items() if i.is_jpeg)
    assert read["a.jpg"].num_pixels == 70 * 50
    assert read["d.jpg"].data.shape == (300, 40, 3), "upright"


def test_a_large_jpeg_is_nearly_the_same(tmp_path, decoder):
    """A CPU decodes it at half its size, a GPU whole."""
    smooth(640, 480).save(tmp_path / "a.jpg", quality=95)
    found, expected = (batches(tmp_path, None, "light", encoded=on)[0][0] for on in (True, False))
    assert np.abs(rgb(found[0]) - rgb(expected[0])).mean() < 1.5


def test_no_images_are_an_empty_batch():
    """A process whose share of a step is empty."""
    data = LabelledImages([Path("a.jpg")], np.ones((1, 3), bool), Preprocessing(40), encoded=True)
    images, targets, indices = data.collate([])
    assert len(images) == len(indices) == 0
    assert images.to(CPU).shape == (0, 3, 40, 40)
    assert targets.shape == (0, 3)


def fail(*args: object, **kwargs: object) -> None:
    raise RuntimeError("nvjpegDecode failed: 5")


def test_a_decoder_that_fails_is_replaced(folder, decoder, monkeypatch, capsys):
    """The CPU then decodes these images, which is said once. A full memory is no such failure."""
    expected = batches(folder, 0, "light", encoded=True)
    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", fail)
    for (images, *_), (before, *_) in zip(
        batches(folder, 0, "light", encoded=True), expected, strict=True
    ):
        assert (images.float() - before.float()).abs().max() <= 2
    assert capsys.readouterr().err.count("the GPU refused (nvjpegDecode failed: 5)") == 1

    def fill_memory(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", fill_memory)
    with pytest.raises(torch.OutOfMemoryError):
        batches(folder, 0, "light", encoded=True)


@pytest.mark.parametrize("what", ["cut", "no tables"])
def test_a_damaged_file_is_named(tmp_path, decoder, what):
    """A file without its end is never given to the decoder, which may not notice."""
    smooth(640, 480).save(tmp_path / "a.jpg", quality=95)
    smooth(70, 50, 1).save(tmp_path / "b.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    damaged = data[:-9] if what == "cut" else data.replace(b"\xff\xdb", b"\xff\xfe")
    (tmp_path / "a.jpg").write_bytes(damaged)
    for encoded in (False, True):
        with pytest.raises(UsageError, match=r"a\.jpg cannot be read as an image"):
            batches(tmp_path, None, "light", encoded=encoded)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_and_evaluate(workdir, any_device, num_workers):
    """Nearly the losses and metrics of images that the CPU decodes; a run may change between them.

    The images are plain colours.
    """
    workers = ("--num_workers", num_workers)
    call(train, *TRAIN, ON, *workers, "--output_dir", "on")
    call(train, *TRAIN, "--output_dir", "off")
    for a, b in zip(log_lines(Path("on")), log_lines(Path("off")), strict=True):
        assert a["val_set_nll"] == pytest.approx(b["val_set_nll"], rel=1e-2)
    call(train, *TRAIN, *workers, "--output_dir", "on", "--num_epochs", 3, "--accept_changes")
    assert len(log_lines(Path("on"))) == 3
    checkpoint = ("--checkpoint", "off/best.pt")
    found = []
    for flags in ((ON, *workers), ()):
        call(evaluate, *EVALUATE, *checkpoint, *flags, "--output_dir", f"of {len(flags)}")
        found.append(json.loads(Path(f"of {len(flags)}/metrics.json").read_text()))
    assert found[0]["set_nll"] == pytest.approx(found[1]["set_nll"], rel=1e-2)


def test_it_needs_a_gpu(workdir):
    assert refusal(train, *TRAIN, ON, "--device", "cpu") == f"{ON} needs a GPU: leave it out"
    assert not Path("runs").exists()


@pytest.mark.parametrize("other", [("--cache", "c"), ("--skip_bad_images",)])
def test_flags_that_exclude_it(workdir, other):
    end = f"{ON} and {other[0]} exclude each other: leave one of them out"
    assert refusal(train, *TRAIN, ON, *other) == end


def test_a_missing_or_foreign_torchcodec(tmp_path, monkeypatch):
    cuda = torch.device("cuda")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torchcodec" else real(name)
    )
    with pytest.raises(UsageError, match=rf"{ON} needs the package torchcodec: .*gpu\.txt$"):
        on_device.check_decoder(cuda, None, False)
    monkeypatch.undo()
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec/__init__.py").write_text("raise RuntimeError('built for\\nanother')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in sys.modules if n.startswith("torchcodec")]:
            patch.delitem(sys.modules, name)
        with pytest.raises(UsageError, match=r"does not work with this torch \(built for\)"):
            on_device.check_decoder(cuda, None, False)


def test_a_batch_is_as_long_as_its_images(folder):
    data = LabelledImages(
        sorted(folder.iterdir()), np.ones((8, 1), bool), Preprocessing(8), encoded=True
    )
    (images, *_) = next(iter(make_loader(data, 5)))
    assert isinstance(images, EncodedImages)
    assert len(images) == 5
