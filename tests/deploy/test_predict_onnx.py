"""predict_onnx.py: it stands alone, and files from strangers end it with one sentence."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import RANKED, REPO, call, load, write_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import sample
from deploy import predict_onnx
from images.transforms import Preprocessing
from labels.write import name_cell
from util.errors import UsageError

SIZE = 32


@pytest.fixture
def folder(export_run):
    return export_run.folder


def test_the_example_needs_no_other_file_of_the_project(folder, trained, tmp_path, capsys):
    """A copy, alone in a folder and without torch, prints what sample.py prints."""
    alone = tmp_path / "elsewhere"
    shutil.copytree(folder, alone)
    photo = write_picture(tmp_path / "photo.png", RANKED[:2], side=SIZE)  # nothing to resize
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__'); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, alone / "predict_onnx.py", alone, photo]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *lines, modules = result.stdout.splitlines()
    files = (*REPO.glob("*.py"), *REPO.glob("[!.]*/**/*.py"))  # not those of .venv
    own = {path.stem for path in files} - {"predict_onnx"}
    assert not own & set(modules.split())
    said = {line[4:].split()[0]: float(line.split()[-1].rstrip("%")) for line in lines[1:]}
    call(sample, photo, "--checkpoint", trained.output / "best.pt", "--json", "--device", "cpu")
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert said == {name: pytest.approx(100 * p, abs=2) for name, p in labels.items()}


def test_the_example_sees_the_pixels_the_model_sees(tmp_path):
    """Up to rounding after a resize: upright, on white, large JPEGs decoded at a smaller size."""
    for name, side in (("a.jpg", 40), ("b.jpg", 300), ("c.png", SIZE)):
        path = write_picture(tmp_path / name, ("person", "dog"), side)
        ours = Preprocessing(SIZE).eval_transform().from_file(path).numpy().astype(int)
        assert np.abs(predict_onnx.load_image(path, SIZE) - ours).max() <= (side != SIZE)


def ends_with(capsys, function, *args, last=False) -> str:
    """The sentence with which predict_onnx.py ends with exit code 2; last: after some notes."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        function(*args)
    sentence = capsys.readouterr().err
    sentence = sentence.splitlines(keepends=True)[-1] if last else sentence
    assert caught.value.code == 2
    assert sentence.startswith("error: ")
    assert sentence.count("\n") == 1
    assert sentence[:-1].isprintable()
    return sentence


def test_the_example_reports_bad_files_in_one_sentence(tmp_path, capsys):
    (tmp_path / "encoder.onnx").write_text("no network")
    os.mkfifo(tmp_path / "pipe\x1b")  # opening it would block
    for name, what in (
        ("absent.onnx", "cannot read"),
        ("x" * 300, "cannot read"),  # pathlib's `exists` raises an error for it
        ("encoder.onnx", "is damaged"),
        ("pipe\x1b", "is not an ordinary file"),
    ):
        assert what in ends_with(capsys, predict_onnx.open_network, tmp_path / name)
    for name in ("absent.onnx", "x" * 300, "encoder.onnx", "pipe\x1b"):
        with pytest.raises(ValueError, match="no file that can be read as an image"):
            predict_onnx.load_image(tmp_path / name, SIZE)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(deep)  # not white, as Pillow makes it
    with pytest.raises(ValueError, match="of 8 bits"):
        predict_onnx.load_image(deep, SIZE)


def with_metadata(folder, other, both=False, **changes):
    """A copy of an export with other metadata in the encoder, or in both networks."""
    other.mkdir(exist_ok=True)
    shutil.copy(folder / "decoder_step.onnx", other)
    for name in ("encoder.onnx", "decoder_step.onnx")[: 1 + both]:
        network = onnx.load(folder / name)
        for entry in network.metadata_props:
            entry.value = changes.get(entry.key, entry.value)
        onnx.save(network, other / name)
    return other


def test_the_example_refuses_metadata_that_does_not_fit(folder, tmp_path, capsys):
    for key, values in {
        "labels": ("{", "[]", "{}", "[1, 2]", '["a"]', json.dumps(["a"] * 5), "[" * 9999, "null"),
        "threshold": ("", "nan", "inf", "x"),
        "image_size": ("", "0", "-1", "64", "5000000", "1e3", "9" * 5000),
        "decoder": ("", "other", "none", "softmax"),
        "format": ("", "hybridnet-onnx-2"),
        "rules": (
            "",
            "{}x",
            "[1]",
            '[["x", [0, 1]]]',
            '[["implies", [0, 99]]]',
            '[["implies", 1]]',
        ),
        "cells": ("null", "[1]"),
    }.items():
        for value in values:
            other = with_metadata(folder, tmp_path / "other", **{key: value})
            ends_with(capsys, predict_onnx.open_networks, other)


def test_the_example_shows_labels_as_text(folder, tmp_path, capsys):
    labels = ["\x1b[2J", "\u202e", "a\nb", "\ud800", "Übergröße"]
    other = with_metadata(folder, tmp_path / "other", both=True, labels=json.dumps(labels))
    photo = write_picture(tmp_path / os.fsdecode(b"caf\xe9\x1b.png"), RANKED[:1])
    predict_onnx.main(other, [photo])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith("caf\\udce9\\x1b.png")
    shown = {line[4:].split()[0] for line in lines}
    assert shown == {"\\x1b[2J", "\\u202e", "a\\nb", "\\ud800", "Übergröße"}


def test_the_example_keeps_rules(folder, tmp_path, capsys):
    """* marks one label of a group, also where none is probable; a contradiction is said."""
    photo = write_picture(tmp_path / "photo.png", RANKED[:2], side=SIZE)
    one_of = [["one of", [0, 1, 2]]]
    other = with_metadata(folder, tmp_path / "other", both=True, rules=json.dumps(one_of))
    predict_onnx.main(other, [photo])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert sum(line[2] == "*" and line[4:].split()[0] in RANKED[:3] for line in lines) == 1
    never = [*one_of, *(["exclusive", [i, j]] for i in range(3) for j in range(3, len(RANKED)))]
    never.append(["one of", list(range(3, len(RANKED)))])
    other = with_metadata(folder, tmp_path / "third", both=True, rules=json.dumps(never))
    with pytest.raises(SystemExit):
        predict_onnx.main(other, [photo])
    assert "none of 4,096 sampled label sets keeps the rules" in capsys.readouterr().err


# --- folders: predictions.csv -------------------------------------------------------------------

NAMES = ("b.jpg", "=a.jpg", "'q'.jpg", 'the "x".png', " c .jpg", "deep/er/é.jpg", "deep/a.jpeg")


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures with awkward names; nothing has to be resized."""
    for i, name in enumerate(NAMES):
        write_picture(tmp_path / "photos" / name, RANKED[: i % 4], side=SIZE, seed=i)
    (tmp_path / "photos/notes.txt").write_text("no picture")
    return tmp_path / "photos"


def read_table(path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_table_is_the_one_of_sample(folder, trained, photos, tmp_path, capsys):
    """Same rows, same cells; probabilities within the error of sampling."""
    predict_onnx.main(folder, [photos], tmp_path / "onnx", batch_size=3)
    said = capsys.readouterr()
    assert "photos: left out 1 not ending in .jpg" in said.err
    flags = ("--checkpoint", trained.output / "best.pt", "--device", "cpu", "--num_slides", 0)
    call(sample, photos, *flags, "--output", tmp_path / "torch", "--num_workers", 0)
    ours, theirs = (read_table(tmp_path / name / "predictions.csv") for name in ("onnx", "torch"))
    assert ours[0] == theirs[0]
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    p, q = (np.array([row[2:] for row in table[1:]], float) for table in (ours, theirs))
    np.testing.assert_allclose(p, q, atol=0.03)
    threshold = load(trained.output / "best.pt")["threshold"]
    for mine, yours, row in zip(ours[1:], theirs[1:], p, strict=True):
        if np.abs(row - threshold).min() > 0.03:
            assert {*mine[1].split("|")} == {*yours[1].split("|")}
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == [
        "predictions.csv",
        "predictions.json",
    ]


def test_a_killed_run_goes_on(folder, photos, tmp_path, monkeypatch, capsys):
    """The table is that of a run that was not killed; a finished one is never changed."""
    predict_onnx.main(folder, [photos], tmp_path / "whole", batch_size=2)
    label, calls = predict_onnx.label, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label(*args)

    with monkeypatch.context() as patch:
        patch.setattr(predict_onnx, "label", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_onnx.main(folder, [photos], tmp_path / "o", batch_size=2)
    with open(tmp_path / "o/predictions.part", "ab") as file:
        file.write(b'half a "row')
    capsys.readouterr()
    predict_onnx.main(folder, [photos], tmp_path / "o", batch_size=2)
    said = capsys.readouterr()
    assert "4 of 7 images are labelled" in said.err
    table = tmp_path / "o/predictions.csv"
    assert table.read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()
    predict_onnx.main(folder, [photos], tmp_path / "o", batch_size=2)
    assert "7 of 7 images are labelled" in capsys.readouterr().err
    table.write_text("corrected by its user")
    sentence = ends_with(capsys, predict_onnx.main, folder, [photos], tmp_path / "o", last=True)
    assert "is complete without" in sentence
    assert table.read_text() == "corrected by its user"


def test_tables_of_others_are_not_touched(folder, photos, tmp_path, capsys):
    for name, text in (("csv", "mine"), ("json", "{}"), ("json", "[" * 9), ("part", "mine")):
        output = tmp_path / f"{name}{text}"[-6:]
        output.mkdir(exist_ok=True)
        (output / f"predictions.{name}").write_text(text)
        sentence = ends_with(capsys, predict_onnx.Table, output, {"images": "here"}, ["a"])
        assert "choose another --output" in sentence
        assert [path.read_text() for path in output.iterdir()] == [text]
    predict_onnx.main(folder, [photos / "deep"], tmp_path / "o")
    sentence = ends_with(capsys, predict_onnx.main, folder, [photos], tmp_path / "o", last=True)
    assert "of other images or networks" in sentence
    other = with_metadata(folder, tmp_path / "other", both=True, threshold="0.9")
    flags = (other, [photos / "deep"], tmp_path / "o")
    assert "of other images" in ends_with(capsys, predict_onnx.main, *flags, last=True)


def test_unreadable_images_are_left_out(folder, photos, tmp_path, capsys):
    """Those in a folder are noted; one that was named is an error."""
    (photos / "a.jpg").write_text("no picture")
    predict_onnx.main(folder, [photos], tmp_path / "o")
    assert "a.jpg: this is no file that can be read" in capsys.readouterr().err
    assert len(read_table(tmp_path / "o/predictions.csv")) == 1 + len(NAMES)
    predict_onnx.main(folder, [photos], tmp_path / "o")  # again: what the table lacks is said
    assert f"{len(NAMES)} of {len(NAMES) + 1} images are labelled" in capsys.readouterr().err
    given = [photos / "b.jpg", photos / "a.jpg"]
    flags = (folder, given, tmp_path / "p")
    for _ in range(2):
        assert "1 of 2 images cannot" in ends_with(capsys, predict_onnx.main, *flags, last=True)
    assert len(read_table(tmp_path / "p/predictions.csv")) == 2
    for name in ("absent", "x" * 300, "o"):
        given = [tmp_path / name]
        assert "no image" in ends_with(capsys, predict_onnx.list_images, given, last=True)


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=8))
def test_names_are_written_as_sample_writes_them(name):
    try:
        expected = name_cell(name)
    except UsageError:
        expected = None
    assert predict_onnx.name_cell(name) == expected


def test_no_result_depends_on_the_other_images(folder):
    networks = predict_onnx.open_networks(folder)[:2]
    images = np.random.default_rng(0).integers(0, 256, (5, 3, SIZE, SIZE), np.uint8)
    sets, probabilities = predict_onnx.sample(*networks, images, 64)
    for i in range(5):
        alone = predict_onnx.sample(*networks, images[i : i + 1], 64)
        assert (sets[i] != alone[0][0]).mean() < 0.01  # sums of floats depend on the batch's shape
        np.testing.assert_allclose(probabilities[i].mean(0), alone[1][0].mean(0), atol=0.01)
