"""Batches, the hold-out, and the script that describes a data set."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, call, refusal
from PIL import Image

import data_loader
import sample
import train
from data_loader import LabelledImages, load_data_set, make_loader
from images.transforms import Preprocessing
from labels.coco import read_annotations
from labels.targets import encode_targets
from labels.vocabulary import count_labels
from model import HybridNet
from util.errors import UsageError

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


def test_an_image_is_augmented_differently_in_each_epoch(tiny):
    data = make_data(tiny)
    views = [data[epoch, 2][0] for epoch in range(6)]
    assert len({view.numpy().tobytes() for view in views}) == 6
    other = make_data(tiny, seed=1)
    assert not torch.equal(views[1], other[1, 2][0])


def test_repeats_are_augmented_differently(tiny):
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
    train.resolve_paths(args)
    loaded = train.load_data(args, torch.device("cpu"))
    return loaded.train_loader.dataset, loaded.val_loader.dataset, loaded.selected_on


def test_the_hold_out_is_separate_and_reproducible(workdir):
    training, held, selected_on = split("--val_fraction", "0.3")
    assert len(held) == 3
    assert not set(training.paths) & set(held.paths)
    assert len(set(training.paths) | set(held.paths)) == 11
    assert selected_on == "a hold-out of 3 training images"
    again = split("--val_fraction", "0.3")
    assert again[0].paths == training.paths
    assert again[1].paths == held.paths
    others = [split("--val_fraction", "0.3", "--seed", str(seed))[1].paths for seed in (1, 2, 3)]
    assert any(paths != held.paths for paths in others)


def test_with_validation_images_all_others_are_trained_on(workdir):
    training, held, selected_on = split("--val_annotations", "data/annotations/instances.json")
    assert len(training) == len(held) == 11
    assert "named by the user" in selected_on


def test_too_few_images_for_a_hold_out(workdir):
    training, held, selected_on = split("--limit", "4")
    assert len(training) == len(held) == 4
    assert "the training images themselves" in selected_on


def test_a_hold_out_of_all_images_is_an_error(workdir):
    """0.96 of 11 images rounds to all 11 of them."""
    with pytest.raises(UsageError, match="val_fraction"):
        split("--val_fraction", "0.96")


def test_validation_and_sample_load_the_same_pixels(workdir, trained, monkeypatch, capsys):
    """Validation in training and sample.py must give the model the same pixels, bit by bit."""
    for i in range(12):  # not square, and rotated by EXIF
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(
            np.random.default_rng(i).integers(0, 255, (50 + i, 90, 3), np.uint8)
        )
        image.save(workdir / f"data/images/img_{i:02d}.jpg", exif=exif)
    _, held, _ = split("--image_size", "32", "--val_fraction", "0.2")
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
        "11 images, 5 labels, 1.73 labels per image",
        "a batch: images (11, 3, 24, 24) torch.uint8, targets (11, 5)",
    ]


def test_the_script_names_bad_input(workdir):
    assert "does not exist" in refusal(
        data_loader, "--image_path", "none", "--annotations", "data/annotations/instances.json"
    )
    (workdir / "data/images/img_03.jpg").write_text("not an image")
    flags = ("--image_path", "data/images", "--num_workers", 0)
    assert "img_03.jpg" in refusal(data_loader, *flags)


def test_a_damaged_image_is_named_by_workers_too(workdir):
    """The error comes from another process."""
    (workdir / "data/images/img_03.jpg").write_text("not an image")
    assert "img_03.jpg" in refusal(
        data_loader, "--image_path", "data/images", "--num_workers", 2, "--image_size", 24
    )


def test_training_and_the_script_warn_about_the_data(workdir, capsys):
    shutil.copy("data/images/img_00.jpg", "data/images/img_01.jpg")
    rows = ["img_00.jpg,person,train", "img_01.jpg,person,val", "img_02.jpg,Person,train"]
    rows += [f"img_{i:02d}.jpg,person,train" for i in range(3, 11)] + ["img_11.jpg,,train"]
    Path("data/images/labels.csv").write_text("\n".join(["file_name,labels,split", *rows]))
    call(data_loader, "--image_path", "data/images", "--num_workers", 0)
    first = capsys.readouterr().err
    flags = ["--keep_unlabelled", "--num_epochs", "1", "--batch_size", 6]
    call(train, "--image_path", "data/images", *QUICK, *flags)
    second = capsys.readouterr().err
    for log in (first, second):
        assert "labels are on fewer than 10 images: " in log
        assert "Person (1)" in log
        assert "1 labels look misspelt: 'Person' for 'person'" in log
        assert "1 images are in two splits: data/images/img_00.jpg = data/images/img_01.jpg" in log
    assert "11 images with labels, 1 without (not used)" in first
    assert "1 images have no label" in second
