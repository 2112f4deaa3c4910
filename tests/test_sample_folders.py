"""sample.py on folders: going on after a kill, added photos, and nothing of the user's touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import RANKED, REPO, call, load, refusal, run, write_picture
from test_sample import lines_of, rows_of

import data_loader
import sample
from labels.read import read_labels
from training.signals import LOCK


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file in the folder and its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


@pytest.fixture
def photos(tmp_path):
    """Photos in two folders, two with the same name."""
    for number, name in enumerate(("b.jpg", "sub/a.jpg", "sub/b.jpg", "sub/deep/c.png")):
        write_picture(tmp_path / "photos" / name, RANKED[number:3], seed=number)
    return tmp_path / "photos"


NAMES = ["b.jpg", "sub/a.jpg", "sub/b.jpg", "sub/deep/c.png"]


@pytest.mark.parametrize(
    "name", ["labels.csv", "predictions.csv", "contact_sheet.png", "slides/b.jpg.png"]
)
def test_nothing_of_the_users_is_touched(trained, photos, name):
    """The photo folder may be the output folder, too."""
    (photos / "slides").mkdir()
    (photos / name).write_text("mine")
    before = snapshot(photos)
    flags = ("--output", photos, "--checkpoint", trained.output / "best.pt", "--num_slides", 2)
    if name == "labels.csv":
        call(sample, photos, *flags)
        assert before.items() <= snapshot(photos).items()
    elif name.endswith(".csv"):
        assert "was not written by this program" in refusal(sample, photos, *flags)
        assert snapshot(photos) == before
    else:
        assert "was not drawn by this program" in refusal(sample, photos, *flags)
        assert before.items() <= snapshot(photos).items()


def test_photos_added_later_are_the_only_new_ones(trained, photos, capsys):
    """Also in an output folder among the photos: our drawings are no photos."""
    flags = ("--output", photos, "--checkpoint", trained.output / "best.pt", "--num_slides", 3)
    call(sample, photos, *flags)
    assert [line["image"] for line in lines_of(photos)] == NAMES
    first = snapshot(photos)
    assert {n for n in first if n.endswith(".png")} == {
        *("sub/deep/c.png", "contact_sheet.png"),
        *(f"slides/{name}.png" for name in NAMES[:3]),
    }
    capsys.readouterr()
    call(sample, photos, *flags)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4 of 4 images are labelled already" in err
    assert snapshot(photos) == first
    write_picture(photos / "a.jpg")
    call(sample, photos, *flags[:-1], 4)
    assert (photos / f"slides/{NAMES[3]}.png").exists()
    assert snapshot(photos)["contact_sheet.png"] != first["contact_sheet.png"]
    assert [line["image"] for line in lines_of(photos)] == [*NAMES, "a.jpg"]
    assert [row["file_name"] for row in rows_of(photos)] == [*NAMES, "a.jpg"]
    assert capsys.readouterr().out.count("most probable set:") == 1


def test_other_flags_another_checkpoint_and_another_folder_are_refused(trained, photos, tmp_path):
    checkpoint = load(trained.output / "best.pt")
    other = tmp_path / "other.pt"
    torch.save({**checkpoint, "threshold": 0.3}, other)
    flags = ("--output", tmp_path / "o", "--num_slides", 0, "--checkpoint")
    call(sample, photos, *flags, trained.output / "best.pt")
    before = snapshot(tmp_path / "o")
    for images, checkpoint, more, said in (
        (photos, other, (), f"by the checkpoint {trained.output / 'best.pt'}"),
        (photos, trained.output / "best.pt", ("--known", "dog"), "without --known"),
        (photos, trained.output / "best.pt", ("--decide", "map"), "with --decide threshold"),
        (photos / "sub", trained.output / "best.pt", (), f"of the pictures in {photos}"),
    ):
        sentence = refusal(sample, images, *flags, checkpoint, *more)
        assert said in sentence
        assert "choose another --output" in sentence
    call(sample, photos, *flags[:1], tmp_path / "map", *flags[2:], other, "--decide", "map")
    assert "with --decide map" in refusal(
        sample, photos, "--output", tmp_path / "map", "--checkpoint", other
    )
    one = refusal(sample, photos / "b.jpg", *flags, trained.output / "best.pt")
    assert "has the predictions of a folder" in one
    assert snapshot(tmp_path / "o") == before


def test_corrected_predictions_are_never_replaced(trained, photos, tmp_path):
    flags = ("--output", tmp_path / "o", "--checkpoint", trained.output / "best.pt")
    call(sample, photos, *flags, "--num_slides", 0)
    table = tmp_path / "o/predictions.csv"
    written = table.read_bytes()
    write_picture(photos / "a.jpg")
    for corrected in (written.replace(b"b.jpg,", b"b.jpg,x", 1), written + b"c.jpg,,\n", b"\n"):
        table.write_bytes(corrected)
        assert "if you corrected it, it is yours" in refusal(sample, photos, *flags)
        assert table.read_bytes() == corrected
    table.unlink()
    call(sample, photos, *flags, "--num_slides", 0)
    assert table.read_bytes().startswith(written), "written again, with the photo added"
    assert len(rows_of(tmp_path / "o")) == 5


@pytest.mark.parametrize("cut", [1, 40, 500])
def test_half_written_lines(trained, photos, tmp_path, cut):
    """As a kill or a full disk leaves them: both end anywhere, the CSV not after the other."""
    flags = ("--output", tmp_path / "o", "--checkpoint", trained.output / "best.pt")
    call(sample, photos, *flags, "--num_slides", 0)
    whole = snapshot(tmp_path / "o")
    lines, table = (tmp_path / "o" / name for name in ("predictions.jsonl", "predictions.csv"))
    for csv_cut in (cut, len(table.read_bytes()) - 3):
        table.write_bytes(whole["predictions.csv"][:-csv_cut])
        call(sample, photos, *flags, "--num_slides", 0)
        assert snapshot(tmp_path / "o") == whole
    table.write_bytes(b"")
    lines.write_bytes(whole["predictions.jsonl"][:-cut])
    call(sample, photos, *flags, "--num_slides", 0)
    assert [line["image"] for line in lines_of(tmp_path / "o")] == NAMES
    assert [row["file_name"] for row in rows_of(tmp_path / "o")] == NAMES


def test_a_killed_run_goes_on(trained, photos, tmp_path):
    """kill -9 as soon as the first batch is printed; the same command does the rest, once."""
    for number in range(30):
        write_picture(photos / f"{number:02d}.jpg", seed=number)
    flags = ("--batch_size", "2", "--num_workers", "1", "--num_slides", "1")
    command = [sys.executable, REPO / "sample.py", photos, *flags, "--output", tmp_path / "o"]
    command += ["--checkpoint", trained.output / "best.pt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline()
        process.kill()
    killed = lines_of_killed(tmp_path / "o")
    assert 0 < len(killed) < 34
    result = run(*map(str, ("sample.py", *command[2:])), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names = [line["image"] for line in lines_of(tmp_path / "o")]
    assert names[: len(killed)] == killed
    assert sorted(names) == sorted([*NAMES, *(f"{number:02d}.jpg" for number in range(30))])
    assert [row["file_name"] for row in rows_of(tmp_path / "o")] == names
    assert result.stdout.count("most probable set:") == 34 - len(killed)


def lines_of_killed(folder: Path) -> list[str]:
    text = (folder / "predictions.jsonl").read_text()
    return [json.loads(line)["image"] for line in text.splitlines(True) if line.endswith("\n")]


def test_predictions_are_labels_to_train_on(trained, photos, tmp_path, monkeypatch, capsys):
    """Two folders: names are relative to the folder of both."""
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "more/=d.jpg", RANKED[:2])
    flags = ("--checkpoint", trained.output / "best.pt", "--decide", "label_f1")
    call(sample, "photos", "more", *flags, "--output", "o", "--num_slides", 0)
    found = read_labels(Path("o/predictions.csv"))
    lines = lines_of(Path("o"))
    assert found.file_names == [*(f"photos/{name}" for name in NAMES), "more/=d.jpg"]
    assert [set(labels) for labels in found.label_sets] == [{*r["predicted"]} for r in lines]
    assert any(found.label_sets)
    call(data_loader, "--image_path", ".", "--annotations", "o/predictions.csv")
    assert "5 images" in capsys.readouterr().out


def test_two_folders_do_not_share_an_output_folder(trained, photos, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ("--checkpoint", trained.output / "best.pt", "--num_slides", 0)
    call(sample, "photos", *flags)
    call(sample, "photos/sub/", *flags)
    assert len(lines_of(Path("samples/photos"))) == 4
    assert [line["image"] for line in lines_of(Path("samples/sub"))] == [
        name.removeprefix("sub/") for name in NAMES[1:]
    ]


def test_hostile_tables_are_refused(trained, photos, tmp_path):
    flags = ("--output", tmp_path / "o", "--checkpoint", trained.output / "best.pt")
    call(sample, photos, *flags, "--num_slides", 0)
    about, lines = tmp_path / "o/sample.json", tmp_path / "o/predictions.jsonl"
    whole = about.read_text(), lines.read_text()
    for content in ("", "[]", "{}", '{"program": 1}', whole[0].replace("HybridNet", "x")):
        about.write_text(content)
        assert "was not written by this program" in refusal(sample, photos, *flags)
    about.write_text(whole[0])
    for content in ("1\n", "{\n", '{"image": 1, "labels": {}, "predicted": []}\n'):
        lines.write_text(content)
        assert "line 1, is damaged" in refusal(sample, photos, *flags)
