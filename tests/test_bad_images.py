"""Images that cannot be read: listed by --check; training stops, or skips and lists them."""

import json
import multiprocessing
import shutil
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import (
    EVALUATE,
    LABEL_SETS,
    QUICK,
    TRAIN,
    call,
    coco,
    load,
    log_lines,
    one_error,
    refusal,
    run,
    same,
    write_json,
    write_picture,
)
from hypothesis import given
from hypothesis import strategies as st

import build_vocab
import data_loader
import evaluate
import train
from images.bad_images import BadImages, Circle
from images.transforms import Preprocessing
from labels.search import find_labels
from training import report
from util import cli
from util.errors import UsageError

CHECK = ("--image_path", "data/images", "--check", "--num_workers")


def damage(folder) -> dict[str, str]:
    """Damage four images of the tiny set, each in another way. Image -> part of the reason."""
    images = folder / "data/images"
    data = (images / "img_01.jpg").read_bytes()
    (images / "img_01.jpg").write_bytes(data[: len(data) // 2])
    (images / "img_04.jpg").write_bytes(b"")
    (images / "img_07.jpg").write_text("not an image")  # has no label
    (images / "img_10.jpg").unlink()
    reasons = ("(truncated)", "(the file is empty)", "(damaged or another kind)", "no image")
    names = ("img_01.jpg", "img_04.jpg", "img_07.jpg", "img_10.jpg")
    return dict(zip(names, reasons, strict=True))


def listed(path) -> dict[str, str]:
    """Name -> reason, from a list of bad images."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["image"] for line in lines}) == len(lines)
    return {line["image"].rsplit("/")[-1]: line["reason"] for line in lines}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_check_lists_every_bad_image(workdir, num_workers, capsys):
    call(data_loader, *CHECK, num_workers)
    assert capsys.readouterr().out.endswith("\n12 images checked, 0 cannot be read\n")
    assert (workdir / "bad_images.jsonl").read_bytes() == b""
    bad = damage(workdir)
    sentence = refusal(data_loader, *CHECK, num_workers, "--bad_images", "b.jsonl")
    assert "b.jsonl lists the bad images" in sentence
    assert capsys.readouterr().out.endswith("\n12 images checked, 4 cannot be read\n")
    found = listed(workdir / "b.jsonl")
    assert list(found) == list(bad)
    assert all(reason in found[name] for name, reason in bad.items())


def test_check_exits_with_2_if_an_image_is_bad(workdir):
    damage(workdir)
    result = run("data_loader.py", *CHECK, 2, cwd=workdir)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: bad_images.jsonl lists")


def test_training_stops_and_names_the_bad_images_of_a_batch(workdir):
    damage(workdir)
    write_picture(workdir / "data/images/img_10.jpg")  # a missing image stops the run earlier
    flags = (*TRAIN[:-1], 2, "--batch_size", 12, "--val_fraction", 0)
    sentence = one_error(run("train.py", *flags, cwd=workdir))
    assert "img_01.jpg cannot be read as an image (truncated)" in sentence
    assert "img_04.jpg cannot be read as an image (the file is empty)" in sentence
    assert "--check" in sentence
    assert "--skip_bad_images" in sentence


def test_a_run_that_fails_leaves_no_process(workdir, monkeypatch):
    """Loader processes end with the run: they must not delay its end or outlive it."""
    damage(workdir)
    write_picture(workdir / "data/images/img_10.jpg")
    flags = (*TRAIN[:-1], 2, "--batch_size", 4, "--val_fraction", 0)
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, flags)])
    others = set(multiprocessing.active_children())  # of earlier tests
    with pytest.raises(SystemExit, match="2"):
        cli.run_script(train.main, train.get_args_parser())
    assert not set(multiprocessing.active_children()) - others


def test_evaluation_stops_at_a_bad_image(workdir, trained):
    """Metrics must not be computed on fewer images than they say."""
    damage(workdir)
    write_picture(workdir / "data/images/img_10.jpg")
    sentence = refusal(evaluate, *EVALUATE, "--checkpoint", trained.output / "best.pt")
    assert "img_01.jpg" in sentence


def loaders(folder, num_workers: int, *flags: object) -> tuple:
    """Training (7 images) and validation (4) loaders of a run with --skip_bad_images."""
    args = train.get_args_parser().parse_args(
        [*map(str, (*TRAIN, "--skip_bad_images", "--val_fraction", 0.4, *flags))]
    )
    args.num_workers, args.output_dir, args.vocab_path = num_workers, folder, folder / "v.json"
    args.annotations = find_labels(args.image_path, "train")
    folder.mkdir()
    loaded = train.load_data(args, train.choose_images(args), torch.device("cpu"))
    return loaded.train_loader, loaded.val_loader


def passes(training, validation) -> list:
    """Two epochs of training and one of validation."""
    seen = []
    for epoch in (1, 2):
        training.batch_sampler.epoch = epoch
        seen.append(list(training))
    return [*seen, list(validation)]


@pytest.mark.parametrize("flags", [(), ("--cache", "c.bin")])
def test_skipping_depends_on_seed_and_epoch_alone(workdir, flags):
    """Not on the number of workers. Training batches keep their sizes, validation loses rows."""
    bad = damage(workdir).keys() - {"img_07.jpg"}
    training, validation = loaders(workdir / "a", 0, *flags)
    first, second, held = passes(training, validation)
    again = loaders(workdir / "b", 3, *flags)
    assert same([first, second, held], passes(*again))
    assert not same(first, second)
    for found in (training, again[0]):
        assert listed(found.dataset.bad.path).keys() == bad

    names = [path.name for path in training.dataset.paths]
    assert [len(images) for images, *_ in first] == [4, 3]
    used = [names[i] for *_, rows in first for i in rows.tolist()]
    training.batch_sampler.epoch = 1
    asked = [names[i] for batch in training.batch_sampler for _, i in batch]
    assert set(asked) & bad
    for wanted, got in zip(asked, used, strict=True):
        assert got == wanted if wanted not in bad else got not in bad
    for _, targets, rows in first:
        assert torch.equal(targets, training.dataset.targets[rows])

    held_names = [path.name for path in validation.dataset.paths]
    rows = [i for *_, rows in held for i in rows.tolist()]
    assert rows == [i for i, name in enumerate(held_names) if name not in bad]
    assert len(bad & set(held_names)) == 4 - len(rows)


@given(st.integers(1, 20), st.data())
def test_a_circle_finds_the_first_position_that_is_left(length, data):
    circle, left = Circle(length), [*range(length)]
    while left:
        assert circle.num_left == len(left)
        for start in range(length):
            assert circle.first(start) == min(left, key=lambda place: (place - start) % length)
        gone = data.draw(st.sampled_from(left))
        left.remove(gone)
        circle.remove(gone)
    assert circle.num_left == 0


def test_many_bad_images_are_tried_twice_at_most(tmp_path, monkeypatch):
    """In each epoch: in their own place, and once in the place of another one."""
    good = {7, 120, 121}
    paths = [tmp_path / f"{i}.jpg" for i in range(200)]
    for i in good:
        write_picture(paths[i])
    tried, parsed = Counter(), []
    original, loads = data_loader.LabelledImages.__getitem__, json.loads

    def getitem(self, item):
        tried[item] += 1
        return original(self, item)

    monkeypatch.setattr(data_loader.LabelledImages, "__getitem__", getitem)
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    path, targets = tmp_path / "bad_images.jsonl", np.ones((200, 1), bool)
    data = data_loader.LabelledImages(
        paths, targets, Preprocessing(32), seed=0, bad=BadImages(path)
    )
    used = []
    for epoch in (1, 2):
        batch = data.__getitems__([(epoch, i) for i in range(200)])
        used.append([index for *_, index in batch])
        assert {*used[-1]} == good
        assert all(used[-1][i] == i for i in good)
    assert used[0] != used[1]
    assert all(tried[epoch, i] <= 2 for epoch, i in tried if i not in good)
    assert len(parsed) <= 200, "the list is not read again for each bad image"
    assert len(listed(path)) == 197


def test_training_skips_bad_images(workdir, capsys):
    """A whole run. Interrupted after an epoch and resumed, it gives the same weights and log."""
    bad = damage(workdir)
    flags = (*TRAIN, "--skip_bad_images", "--val_fraction", 0.4)
    call(train, *flags, "--output_dir", "whole")
    err = capsys.readouterr().err
    assert "3 images could not be read and were left out: whole/bad_images.jsonl" in err
    for name in bad.keys() - {"img_07.jpg"}:
        assert sum(name in line and line.startswith("note:") for line in err.splitlines()) == 1
    assert [line["bad_images"] for line in log_lines(workdir / "whole")] == [3, 3]
    append = report.append_log
    with pytest.MonkeyPatch.context() as patch:

        def stop(line, path):
            if line["epoch"] == 2:
                raise KeyboardInterrupt
            append(line, path)

        patch.setattr(report, "append_log", stop)
        with pytest.raises(KeyboardInterrupt):
            call(train, *flags, "--output_dir", "parts")
    call(train, *flags, "--output_dir", "parts")
    whole, parts = (load(workdir / f"{name}/last.pt") for name in ("whole", "parts"))
    assert same(whole["weights"], parts["weights"])
    assert log_lines(workdir / "whole") == log_lines(workdir / "parts")


def test_an_image_removed_during_training(workdir, monkeypatch):
    """By default the run stops; with --skip_bad_images the same command continues it."""
    append = report.append_log

    def remove(line, path):
        append(line, path)
        (workdir / "data/images/img_03.jpg").unlink(missing_ok=True)

    monkeypatch.setattr(report, "append_log", remove)
    flags = (*TRAIN, "--val_fraction", 0, "--output_dir", "run")
    assert "there is no image data/images/img_03.jpg" in refusal(train, *flags)
    call(train, *flags, "--skip_bad_images")
    assert [line.get("bad_images") for line in log_lines(workdir / "run")] == [None, 1]


def test_no_image_can_be_read(workdir):
    for path in (workdir / "data/images").iterdir():
        path.write_bytes(b"")
    sentence = refusal(train, *TRAIN, "--skip_bad_images")
    assert "none of the 10 training images can be read" in sentence


def test_a_damaged_list(tmp_path):
    (tmp_path / "bad_images.jsonl").write_text("not a list\n")
    with pytest.raises(UsageError, match="is damaged: remove it"):
        BadImages(tmp_path / "bad_images.jsonl").read()


# --- very small and unusual data sets -----------------------------------------------------------

EDGES = {
    "one image, one label": ([("cat",)], ()),
    "one label on all": ([("cat",)] * 6, ()),
    "a label on none": ([("cat",), ("dog",)] * 3, ()),
    "nothing on any": ([()] * 6, ("--keep_unlabelled", "--vocab_path", "v.json")),
    "batch larger than the set": ([("cat",), ("dog",)] * 2, ("--batch_size", 64)),
}


@pytest.mark.parametrize(("label_sets", "flags"), EDGES.values(), ids=EDGES)
def test_unusual_data_sets(tiny, monkeypatch, label_sets, flags, recwarn):
    """Training and evaluation work; undefined metrics are null in metrics.json."""
    monkeypatch.chdir(tiny.folder)
    if "v.json" in flags:  # a vocabulary of other images
        call(build_vocab, "--annotations", tiny.annotations, "--vocab_path", "v.json")
    write_json(coco(label_sets), tiny.annotations)
    call(
        train, "--image_path", "data/images", *QUICK, "--num_epochs", 1, "--image_size", 64, *flags
    )
    output = tiny.folder / "runs/instances-chain"
    keep = [flag for flag in flags if flag == "--keep_unlabelled"]
    call(evaluate, *EVALUATE, "--checkpoint", output / "best.pt", *keep)
    (path,) = output.rglob("metrics.json")
    results = json.loads(path.read_text())
    assert results["num_images"] == len(label_sets)
    assert np.isfinite(results["set_nll"])
    assert (results["mAP"] is None) == (not any(label_sets))
    assert [str(w.message) for w in recwarn if w.category is RuntimeWarning] == []
    shutil.rmtree(output)


def test_sets_that_cannot_be_trained_on(workdir):
    write_json(coco([()] * 6), workdir / "data/annotations/instances.json")
    assert "has no labelled images" in refusal(train, *TRAIN)
    assert "has a label: nothing can be learned" in refusal(train, *TRAIN, "--keep_unlabelled")


def test_images_smaller_than_the_crop(workdir):
    for i, labels in enumerate(LABEL_SETS):
        write_picture(workdir / f"data/images/img_{i:02d}.jpg", labels, side=5)
    call(train, *TRAIN, "--num_epochs", 1, "--image_size", 64)
    assert len(log_lines(workdir / "runs/instances-chain")) == 1
