"""Batches, the hold-out, and the script that describes a data set."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, call, coco, refusal, write_json, write_picture
from PIL import Image
from processes import run_cold

import data_loader
import sample
import train
from data_loader import GRACE, LabelledImages, Loader, load_data_set, make_loader
from images import summary
from images.transforms import Preprocessing
from labels.coco import read_annotations
from labels.targets import encode_targets
from labels.vocabulary import count_labels
from model import HybridNet
from util.errors import RunError, UsageError

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
    loaded = train.load_data(args, train.choose_images(args), torch.device("cpu"))
    return loaded.train_loader.dataset, loaded.val_loader.dataset, loaded.images.selected_on


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
    flags = ("--checkpoint", trained.output / "best.pt", "--json", "--num_workers", 0)
    call(sample, *held.paths, *flags)
    images = torch.cat(seen)
    assert images.dtype == torch.uint8
    assert len(images) == len(held) == 2
    for i, image in enumerate(images):
        assert torch.equal(image, held[0, i][0])


PAIRS = [(a, b) for a in "abcdefghij" for b in "klmnopqrst"]

# --- the script -------------------------------------------------------------------------------


def test_the_script_describes_a_set(workdir, capsys):
    call(data_loader, "--image_path", "data/images", "--image_size", 24, "--num_workers", 0)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "11 images, 5 labels, 1.73 labels per image",
        "labels: person 7, cat 4, dog 4, apple 2, zebra 2",
        "a batch: images (11, 3, 24, 24) torch.uint8, targets (11, 5)",
    ]
    assert len(captured.err.splitlines()) < 7
    assert not list(workdir.glob("*.*")), "no list is written without need"


def test_the_script_names_bad_input(workdir):
    assert "does not exist" in refusal(
        data_loader, "--image_path", "none", "--annotations", "data/annotations/instances.json"
    )
    (workdir / "data/images/img_03.jpg").write_text("not an image")
    flags = ("--image_path", "data/images", "--num_workers", 0)
    assert "img_03.jpg" in refusal(data_loader, *flags)


def test_a_damaged_image_ends_the_script_at_once(workdir):
    """With the default flags. A process that loads images would live 30 seconds longer."""
    (workdir / "data/images/img_03.jpg").write_text("not an image")
    result = run_cold(
        "data_loader.py", "--image_path", "data/images", cwd=workdir, timeout=GRACE - 5
    )
    assert result.returncode == 2
    assert "img_03.jpg" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_does_not_end_a_worker_that_starts(number, monkeypatch):
    """A scheduler sends it to all processes; torch would let it end a worker that is not ready."""
    parent = os.getpid()

    def killed(threads: int) -> None:  # called in the worker, before its worker_init_fn
        assert os.getpid() != parent
        os.kill(os.getpid(), number)

    monkeypatch.setattr(torch, "set_num_threads", killed)
    loader = Loader([torch.tensor(i) for i in range(6)], batch_size=2, num_workers=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # this process waits for none


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
    assert "; correct labels_to_merge.csv and give it with --labels_to_merge" in first
    for log in (first, second):
        assert "labels are on fewer than 10 images: " in log
        assert "Person (1)" in log
        assert "1 label looks misspelt: 'Person' for 'person'" in log
        assert "1 image is in two splits: data/images/img_00.jpg = data/images/img_01.jpg" in log
    assert "11 images with labels, 1 without" in first
    assert "1 image has no label" in second


def describe(capsys, *flags) -> tuple[list[str], str]:
    """The lines of both streams, ten at most with the error, and the error's sentence."""
    error = ""
    try:
        call(data_loader, "--num_workers", 0, "--image_size", 24, *flags)
    except UsageError as found:
        error = str(found)
    captured = capsys.readouterr()
    lines = [*captured.out.splitlines(), *captured.err.splitlines()]
    assert len(lines) + bool(error) <= 10
    return lines, error


def table(*rows: str) -> None:
    Path("data/images/labels.csv").write_text("\n".join(rows) + "\n")


def test_all_that_is_wrong_is_said_in_one_go(workdir, capsys):
    """Missing images stop nothing before the end; the lists are complete."""
    rows = [f"img_{i:02d}.jpg,cat|dog,train" for i in range(8)]
    rows += [f"gone_{i}.jpg,cats|persn,train" for i in range(7)]
    rows += [f"img_{i:02d}.jpg,person|cat dog,train" for i in range(8, 10)]
    rows += ["img_10.jpg,hat|dog,val", "img_11.jpg,hat,test", "gone_7.jpg,,val"]
    table("file_name,labels,split", *rows)
    (workdir / "data/images/img_00.jpg").write_text("not an image")
    (workdir / "data/images/photo.cr2").write_text("")
    write_picture(workdir / "data/images/more/new.jpg")
    shutil.copy("data/images/img_02.jpg", "data/images/img_10.jpg")
    lines, error = describe(capsys, "--image_path", "data/images")
    text = "\n".join(lines)
    assert "labels: cat 8, dog 8, cats 7, persn 7, cat dog 2, person 2" in lines
    assert "1 label is on no training image: hat (2)" in text
    assert "1 picture in data/images that data/images/labels.csv does not list: new.jpg" in text
    assert "1 .cr2 file left out" in text
    assert "1 label looks like several (see --separator): 'cat dog'" in text
    assert "1 label looks misspelt: 'cats' for 'cat'; correct labels_to_merge.csv" in text
    assert "1 image is in two splits: data/images/img_02.jpg = data/images/img_10.jpg" in text
    assert "8 of the 20 images of data/images/labels.csv are not under data/images" in error
    assert "img_00.jpg" in error
    assert Path("missing_images.txt").read_text().split() == [f"gone_{i}.jpg" for i in range(8)]


def test_lists_overwrite_no_file(workdir, capsys):
    mine = Path("missing_images.txt")
    mine.write_text("my notes")
    table("file_name,labels", "img_00.jpg,cat", "img_01.jpg,Cat", "gone.jpg,cat")
    for _ in range(2):
        lines, error = describe(capsys, "--image_path", "data/images")
        assert "missing_images-2.txt lists all that are missing" in error
        assert "correct labels_to_merge.csv" in "".join(lines)
    assert mine.read_text() == "my notes"
    merges = Path("labels_to_merge.csv")
    merges.write_text("from,to\ncat,Cat\n")  # corrected by the user
    lines, _ = describe(capsys, "--image_path", "data/images")
    assert "correct labels_to_merge-2.csv" in "".join(lines)
    assert merges.read_text() == "from,to\ncat,Cat\n"
    names = {"missing_images.txt", "missing_images-2.txt"}
    assert {p.name for p in workdir.glob("*.*")} == {*names, merges.name, "labels_to_merge-2.csv"}
    lines, _ = describe(capsys, "--image_path", "data/images", "--labels_to_merge", merges)
    assert "labels: Cat 3" in lines
    Path("notes.txt").write_text("mine")
    flags = ("--image_path", "data/images", "--check", "--bad_images", "notes.txt")
    assert "notes.txt is no list of bad images" in describe(capsys, *flags)[1]
    assert Path("notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_ends_nothing(workdir, capsys, monkeypatch):
    def fail(path, content):
        raise RunError(f"cannot write {path} (full)")

    monkeypatch.setattr(summary, "write_new", fail)
    table("file_name,labels", "img_00.jpg,cat", "img_01.jpg,Cat", "gone.jpg,cat")
    lines, error = describe(capsys, "--image_path", "data/images")
    assert error.endswith("; cannot write missing_images.txt (full)")
    assert "'Cat' for 'cat'; cannot write labels_to_merge.csv (full)" in "".join(lines)


def test_notes_are_printed_before_an_error(workdir, capsys):
    write_json(coco([(), ()]), workdir / "data/annotations/instances.json")
    lines, error = describe(capsys, "--image_path", "data/images")
    assert "no image of data/annotations/instances.json has a label" in error
    assert any("2 images" in line for line in lines)


def test_with_nothing_held_out_no_image_is_in_two_splits(workdir, capsys):
    flags = ("--val_fraction", 0, "--num_epochs", 1, "--batch_size", 11)
    call(train, "--image_path", "data/images", *QUICK, *flags)
    assert "two splits" not in capsys.readouterr().err


def test_many_labels_are_cut_short(workdir, capsys):
    rows = [f"img_{i % 12:02d}.jpg,{a}{b}{i % 3}" for i, (a, b) in enumerate(PAIRS)]
    table("file_name,labels", *rows)
    lines, _ = describe(capsys, "--image_path", "data/images")
    printed = next(line for line in lines if line.startswith("labels: "))
    assert printed.count(",") == 40
    assert " and 60 more, to " in printed
