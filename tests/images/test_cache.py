"""The cache of decoded images: same images as the files, never stale, no code in it runs."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import LABEL_SETS, QUICK, call, load, refusal, run, same, write_picture
from PIL import Image

import evaluate
import train
from data_loader import LabelledImages, make_loader
from images import cache as image_cache
from images.cache import ImageCache
from images.transforms import Preprocessing, Transform
from util.errors import RunError, UsageError

SIDE = 32


@pytest.fixture
def files(tiny) -> list:
    """The images of the tiny set, some with another shape."""
    write_picture(tiny.images / "img_03.jpg", ("dog",), side=100)
    Image.new("RGB", (90, 30), "red").save(tiny.images / "img_04.jpg")
    return sorted(tiny.images.glob("*.jpg"))


@pytest.fixture
def cache(files, tmp_path) -> ImageCache:
    return ImageCache(tmp_path / "deep/images.cache", files, SIDE).prepare(0)


def is_built(cache_of: ImageCache, capsys) -> bool:
    """Whether `prepare` decoded the images."""
    capsys.readouterr()
    cache_of.prepare(0)
    return "decoding" in capsys.readouterr().err


# --- its content -------------------------------------------------------------------------------


def test_a_cache_at_the_models_size_changes_no_pixel(cache, files):
    for file in files:
        assert torch.equal(Transform(SIDE)(*cache[file]), Transform(SIDE).from_file(file))
    assert cache[files[4]][1] == 3


def test_augmented_images_are_those_of_the_files(tmp_path):
    """The same crop in the same colours, for images of any shape."""
    phase = np.linspace(0, 5, 400)
    pixels = np.uint8(127 + 60 * np.sin(phase)[:, None] + 60 * np.cos(phase * 2)[None])
    image = Image.fromarray(pixels).convert("RGB")
    files = []
    for i, size in enumerate([(400, 300), (200, 300), (300, 100), (200, 200)]):
        files.append(tmp_path / f"{i}.png")
        image.resize(size).save(files[-1])
    preprocessing = Preprocessing(56)
    cache = ImageCache(tmp_path / "c", files, preprocessing.cache_side()).prepare(0)
    targets = np.zeros((4, 1))
    cached = LabelledImages(files, targets, preprocessing, 0, cache)
    direct = LabelledImages(files, targets, preprocessing, 0)
    for epoch in range(4):
        for i in range(4):
            a, b = (data[epoch, i][0].float() for data in (cached, direct))
            assert (a - b).abs().mean() < 5, "crops are whole pixels, of 72 here"
            elsewhere = direct[epoch + 1, i][0].float()
            assert (a - elsewhere).abs().mean() > 10


@pytest.mark.parametrize(("image_size", "side"), [(64, 80), (224, 272), (448, 536)])
def test_the_size_is_enough_for_crops(image_size, side):
    assert Preprocessing(image_size).cache_side() == side
    assert Preprocessing(image_size, min_crop=1).cache_side() == image_size


def test_workers_open_the_file_themselves(cache, files):
    assert len(pickle.dumps(cache)) < 5000
    assert cache[files[0]][0].shape == (SIDE, SIDE, 3)
    assert len(pickle.dumps(cache)) < 5000, "no pixels, even after the file was opened here"
    data = LabelledImages(files, np.zeros((12, 1)), Preprocessing(SIDE), 0, cache)
    here, there = (list(make_loader(data, 5, workers, True)) for workers in (0, 2))
    for (a, _, i), (b, _, j) in zip(here, there, strict=True):
        assert torch.equal(i, j)
        assert torch.equal(a, b)


def test_workers_build_the_same_file(cache, files, tmp_path):
    other = ImageCache(tmp_path / "other", files[::-1] + files[:3], SIDE).prepare(2)
    assert other.path.read_bytes() == cache.path.read_bytes(), "whatever the order of the files"
    assert sorted(p.name for p in cache.path.parent.iterdir()) == ["images.cache"]


# --- when it is built -------------------------------------------------------------------------


def test_it_is_used_again_until_something_changes(cache, files, capsys):
    def again(files=files, side=SIDE) -> ImageCache:
        return ImageCache(cache.path, files, side)

    assert not is_built(again(), capsys)
    about = os.stat(files[0])
    os.utime(files[0], ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert is_built(again(), capsys), "modification time"
    files[0].write_bytes(files[1].read_bytes() + b"more")
    os.utime(files[0], ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert is_built(again(), capsys), "file size"
    assert is_built(again(files[1:]), capsys), "list of files"
    renamed = files[1].rename(files[1].with_name("other.jpg"))
    assert is_built(again([renamed, *files[2:]]), capsys), "file name"
    assert is_built(again([renamed, *files[2:]], SIDE + 8), capsys), "size of the images"
    assert not is_built(again([renamed, *files[2:]], SIDE + 8), capsys)


@pytest.mark.parametrize("cut", [1, 40, 5000, "all but the header"])
def test_a_truncated_cache_is_built_again(cache, files, capsys, cut):
    whole = cache.path.read_bytes()
    left = len(whole) - cut if isinstance(cut, int) else len(cache.header)
    cache.path.write_bytes(whole[:left])
    assert is_built(ImageCache(cache.path, files, SIDE), capsys)
    assert cache.path.read_bytes() == whole
    cache.path.write_bytes(whole + b"x")
    assert is_built(ImageCache(cache.path, files, SIDE), capsys)


def test_another_file_is_not_overwritten(cache, files, tmp_path):
    for content in (b"", b"a thesis", cache.path.read_bytes()[5:], pickle.dumps([1])):
        (tmp_path / "mine").write_bytes(content)
        with pytest.raises(UsageError, match="mine is not an image cache"):
            ImageCache(tmp_path / "mine", files, SIDE).prepare(0)
        assert (tmp_path / "mine").read_bytes() == content
    with pytest.raises(UsageError, match="directory"):
        ImageCache(tmp_path, files, SIDE).prepare(0)


def test_a_cache_replaced_while_in_use_is_noticed(cache, files):
    late = ImageCache(cache.path, files, SIDE)
    ImageCache(cache.path, files[1:], SIDE).prepare(0)
    with pytest.raises(RunError, match=r"images\.cache was replaced"):
        late[files[2]]
    assert cache.path.unlink() is None
    with pytest.raises(RunError, match=r"images\.cache was replaced"):
        late[files[2]]


def test_two_runs_fill_one_cache_at_the_same_time(files, tmp_path, monkeypatch):
    """Each writes all of it, and the second one's file, which is the same, takes its place."""
    path, write = tmp_path / "c", ImageCache._write
    other = multiprocessing.get_context("fork").Process(
        target=ImageCache(path, files, SIDE).prepare, args=(0,)
    )

    def write_beside(self, temporary, num_workers):
        monkeypatch.undo()
        write(self, temporary, num_workers)
        other.start()
        other.join()
        assert path.stat().st_size == self.num_bytes

    monkeypatch.setattr(ImageCache, "_write", write_beside)
    ours = ImageCache(path, files, SIDE).prepare(0)
    assert other.exitcode == 0
    for file in files:
        assert torch.equal(Transform(SIDE)(*ours[file]), Transform(SIDE).from_file(file))
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["c"]


def test_failures_leave_nothing_behind(files, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        ImageCache(tmp_path / "file/c", files, SIDE).prepare(0)
    full = shutil.disk_usage(tmp_path)._replace(free=9)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(UsageError, match=r"cache needs 0\.0 GB and 0\.0 GB are free"):
            ImageCache(tmp_path / "new/cache", files, SIDE).prepare(0)

    def fill_up(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "progress", fill_up)
        with pytest.raises(RunError, match=r"cannot write .*cache .No space left"):
            ImageCache(tmp_path / "new/cache", files, SIDE).prepare(0)
    files[5].write_text("not an image")
    with pytest.raises(UsageError, match=r"img_05\.jpg"):
        ImageCache(tmp_path / "new/cache", files, SIDE).prepare(2)
    files[5].unlink()
    with pytest.raises(UsageError, match=r"no image .*img_05\.jpg"):
        ImageCache(tmp_path / "new/cache", files, SIDE)
    assert not list((tmp_path / "new").iterdir())


# --- the scripts ------------------------------------------------------------------------------


def test_training_and_evaluation_with_a_cache(workdir, capsys):
    flags = ("--image_path", "data/images", *QUICK, "--num_epochs", 1, "--amp", "off")
    flags += ("--cache", "runs/c")
    result = run("train.py", *flags, cwd=workdir)
    assert result.returncode == 0, result.stderr
    assert "decoding 11 images to runs/c, once" in result.stderr
    assert json.loads(result.stdout)["epoch"] == 1
    call(train, *flags, "--output_dir", "runs/again")
    assert "using the 11 decoded images of runs/c" in capsys.readouterr().err
    first, again = (load(f"runs/{name}/last.pt") for name in ("instances-chain", "again"))
    assert same(first["weights"], again["weights"]), "the seed decides, whoever fills the cache"
    sentence = refusal(train, *flags[:-2], "--output_dir", "runs/again")
    assert "--cache was runs/c, is None" in sentence, "other pixels make another run"

    data = ("--image_path", "data/images", "--annotations", "data/annotations/instances.json")
    command = (*data, "--split", "all", "--num_workers", 0, "--num_samples", 4, "--json")
    printed = []
    for cache in ((), ("--cache", "runs/e")):
        call(evaluate, *command, *cache)
        printed.append(json.loads(capsys.readouterr().out))
        del printed[-1]["images_per_second"]
    assert printed[0]["num_images"] == sum(map(bool, LABEL_SETS))
    assert printed[0] == printed[1], "bit by bit"


def test_one_cache_serves_training_and_validation_of_every_seed(workdir, capsys):
    for seed, expected in ((0, "decoding 11 images"), (1, "using the 11 decoded images")):
        args = train.get_args_parser().parse_args(
            ["--image_path", "data/images", "--cache", "c", "--val_fraction", "0.3"]
            + [*QUICK, "--seed", str(seed)]
        )
        train.resolve_paths(args)
        loaded = train.load_data(args, train.choose_images(args), torch.device("cpu"))
        assert expected in capsys.readouterr().err
        for loader in (loaded.train_loader, loaded.val_loader):
            assert loader.dataset.cache.side == 40
            assert sum(len(images) for images, _, _ in loader) == len(loader.dataset)
