"""Files of the user where a script would write: none is replaced. And outputs that cannot be."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import EVALUATE, TRAIN, call, need_export, refusal

import build_vocab
import data_loader
import evaluate
import export
import sample
import train
from labels.vocabulary import load_vocabulary

LABELS = "data/annotations/instances.json"
PHOTO = "data/images/img_02.jpg"


def test_annotations_are_not_replaced_by_their_vocabulary(workdir):
    before = Path(LABELS).read_bytes()
    sentence = refusal(build_vocab, "--annotations", LABELS, "--vocab_path", LABELS)
    assert "is no vocabulary and is not replaced" in sentence
    assert Path(LABELS).read_bytes() == before
    for _ in range(2):  # an earlier vocabulary is
        call(build_vocab, "--annotations", LABELS, "--vocab_path", "v.json")
    assert len(load_vocabulary(Path("v.json")))


@pytest.mark.parametrize("name", ["report.html", "evaluate.log", "predictions.npz"])
def test_a_report_of_the_user_stays(trained, workdir, name):
    Path("o").mkdir()
    (Path("o") / name).write_text("mine")
    flags = ("--checkpoint", trained.output / "best.pt", "--output_dir", "o", "--report")
    assert f"o/{name} would be replaced" in refusal(evaluate, *EVALUATE, *flags)
    assert [path.name for path in Path("o").iterdir()] == [name]
    (Path("o") / name).unlink()
    for _ in range(2):  # our own are
        call(evaluate, *EVALUATE, *flags)


def test_the_folder_of_another_run_is_no_place_for_an_export(trained, workdir, capsys):
    need_export()
    flags = ("--checkpoint", trained.output / "best.pt", "--output_dir")
    shutil.copytree(trained.output, "other")
    Path("own").mkdir()
    Path("own/config.json").write_text('{"of": "something else"}')
    for folder in ("other", "own", trained.output):
        assert "config.json or best.pt of its own" in refusal(export, *flags, folder)
    assert Path("own/config.json").read_text() == '{"of": "something else"}'
    call(export, *flags, "e")
    Path("e/MODEL_CARD.md").write_text("licence: mine")
    call(export, *flags, "e")
    assert Path("e/MODEL_CARD.md").read_text() == "licence: mine"
    assert "e/MODEL_CARD-2.md: read it" in capsys.readouterr().out


def test_a_file_is_no_output_folder(trained, workdir):
    """Said before anything is printed, for a photo as for a folder."""
    Path("notes.txt").write_text("mine")
    for images in (PHOTO, "data/images"):
        flags = ("--checkpoint", trained.output / "best.pt", "--output", "notes.txt")
        assert "cannot make the folder notes.txt" in refusal(sample, images, *flags)
    assert Path("notes.txt").read_text() == "mine"


def test_a_disk_that_cannot_be_written_to_is_named_at_once(trained, workdir):
    Path("disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "disk"]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk")
    try:
        flags = ("--checkpoint", trained.output / "best.pt", "--output_dir", "disk")
        assert "cannot write into the folder disk" in refusal(evaluate, *EVALUATE, *flags)
    finally:
        subprocess.run(["umount", "disk"], check=True)


@pytest.mark.parametrize("flag", ["--label_names", "--labels_to_merge", "--checked"])
def test_files_that_flags_name_are_there(workdir, capsys, flag):
    """Also those that these labels do not need."""
    for path, what in (("nothing.txt", "no file"), ("data", "a folder")):
        with pytest.raises(SystemExit) as caught:
            call(data_loader, "--image_path", "data/images", flag, path)
        assert caught.value.code == 2
        assert f"{path} is {what}" in capsys.readouterr().err


def test_a_run_in_the_folder_of_its_photos_has_a_name(workdir, monkeypatch):
    for label in ("cat", "dog"):
        (workdir / "pets" / label).mkdir(parents=True)
        for i in range(4):
            shutil.copy(PHOTO, f"pets/{label}/{i}.jpg")
    monkeypatch.chdir("pets")
    call(train, *TRAIN, "--image_path", ".", "--num_epochs", 1)
    (run,) = Path("runs").iterdir()
    assert run.name == "pets-chain"
    assert json.loads((run / "config.json").read_text())
    monkeypatch.chdir("..")
