"""Training again: which folder a run is in, what it says has changed, and its images.csv."""

from pathlib import Path

import pytest
import torch
from conftest import LABEL_SETS, TRAIN, call, coco, load, refusal, write_json

import train
from images.part import Part
from labels.annotated import AnnotatedImages
from labels.read import read_labels
from training import saver, state
from training.data import TrainAndVal
from training.run_folder import changed_labels, free_folder, newest_run, run_folders, write_records
from training.signals import LOCK

ONE = (*TRAIN, "--num_epochs", 1)
NAME = "runs/instances-chain"


class Stopped(BaseException):
    """Stands for the end of the process."""


def correct(number: int, *labels: str) -> None:
    """Correct the labels of an image."""
    sets = list(LABEL_SETS)
    sets[number] = labels
    write_json(coco(sets), Path("data/annotations/instances.json"))


def files_of(folder: str) -> dict:
    """Contents and times; older versions of filelock write to the lock."""
    files = Path(folder).iterdir()
    return {p: (p.read_bytes(), p.name == LOCK or p.stat().st_mtime_ns) for p in files}


def test_corrected_labels_start_a_new_run(workdir, capsys):
    """Nothing of the old run changes. Each set of labels has its own run, which can be repeated."""
    call(train, *ONE)
    first, original = files_of(NAME), Path("data/annotations/instances.json").read_bytes()
    correct(1, "person", "cat", "apple")
    capsys.readouterr()
    call(train, *ONE)
    said = capsys.readouterr().err
    assert f"2 labels on 1 photo changed; a new run in {NAME}-2" in said
    assert "the best is epoch 1: validation set NLL" in said
    assert files_of(NAME) == first
    second = files_of(f"{NAME}-2")
    call(train, *ONE)
    assert f"{NAME}-2 is finished" in capsys.readouterr().err
    Path("data/annotations/instances.json").write_bytes(original)
    call(train, *ONE)
    assert f"{NAME} is finished" in capsys.readouterr().err
    assert files_of(NAME) == first
    assert files_of(f"{NAME}-2") == second
    call(train, *ONE, "--seed", 1)
    said = capsys.readouterr().err
    assert f"2 labels on 1 photo changed; --seed was 0, is 1; a new run in {NAME}-3" in said
    assert load(Path(f"{NAME}-3/best.pt"))["flags"]["output_dir"] == f"{NAME}-3"
    assert not Path(f"{NAME}-4").exists()


def test_an_unfinished_run(workdir, monkeypatch, capsys):
    """Other labels start a new run. With other flags only, the user has to say what is meant."""

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(saver.Saver, "save_best", stop)
        with pytest.raises(Stopped):
            call(train, *ONE)
    sentence = refusal(train, *ONE, "--seed", 1)
    assert f"the run in {NAME} is another (--seed was 0, is 1)" in sentence
    assert "--accept_changes" in sentence
    assert "--output_dir" in sentence
    correct(0, "person", "zebra")
    with monkeypatch.context() as patch:
        patch.setattr(saver.Saver, "save_best", stop)
        with pytest.raises(Stopped):
            call(train, *ONE)
    assert f"1 label on 1 photo changed; a new run in {NAME}-2" in capsys.readouterr().err
    call(train, *ONE, "--seed", 1, "--accept_changes")
    said = capsys.readouterr().err
    assert f"continuing {NAME}-2 after epoch 0" in said
    assert not (Path(NAME) / "best.pt").exists()


def test_a_new_label_can_come_with_the_correction(workdir, capsys):
    """The vocabulary of the first run is not used for the second."""
    call(train, *ONE)
    categories = {"person": 1, "cat": 2, "dog": 3, "apple": 4, "zebra": 5, "giraffe": 6}
    sets = [*LABEL_SETS[:-1], ("giraffe",)]
    write_json(coco(sets, categories=categories), Path("data/annotations/instances.json"))
    call(train, *ONE)
    assert "1 label on 1 photo changed" in capsys.readouterr().err
    labels = load(Path(f"{NAME}-2/best.pt"))["vocabulary"]["labels"]
    assert "giraffe" in labels
    assert "giraffe" not in load(Path(f"{NAME}/best.pt"))["vocabulary"]["labels"]
    sentence = refusal(train, *ONE, "--output_dir", NAME)
    assert "the training images or their labels have changed" in sentence
    assert "the vocabulary cannot change: choose another --output_dir" in sentence


def test_a_command_that_ends_early_leaves_no_vocabulary(workdir, capsys):
    """An image of the first batch is bad. Without its labels the same command trains."""
    bad = workdir / "data/images/img_06.jpg"
    bad.write_bytes(b"no picture")
    assert "img_06.jpg" in refusal(train, *ONE, "--batch_size", 16)
    correct(6)
    call(train, *ONE, "--batch_size", 16)
    assert [p.name for p in Path("runs").iterdir()] == ["instances-chain"]


def test_nothing_of_the_user_is_replaced(workdir):
    folder = Path("own")
    folder.mkdir()
    for name in ("images.csv", "log.jsonl", "curves.png", "config.json"):
        (folder / name).write_text("my,list\n")
        assert f"own/{name} would be replaced" in refusal(train, *ONE, "--output_dir", "own")
        assert (folder / name).read_text() == "my,list\n"
        (folder / name).unlink()
    (folder / "best.pt").write_bytes(b"mine")
    assert "no last.pt to continue from" in refusal(train, *ONE, "--output_dir", "own")
    assert (folder / "best.pt").read_bytes() == b"mine"


def test_a_longer_run(workdir, monkeypatch, capsys):
    """It has the rates that a run of that length has in these epochs: higher ones than before."""
    call(train, *TRAIN)
    rates, original = [], state.TrainState.update_ema

    def note_rate(self):
        rates.append(self.scheduler.get_last_lr()[0])
        original(self)

    monkeypatch.setattr(state.TrainState, "update_ema", note_rate)
    call(train, *TRAIN, "--num_epochs", 4, "--accept_changes")
    assert "trained 4 epochs; the best is epoch" in capsys.readouterr().err
    longer = state.TrainState(torch.nn.Linear(2, 2), torch.device("cpu"), 3, 4, 2e-3)
    for _ in range(7):  # of 12 steps; 6 are done, and a rate is noted after its step
        longer.optimizer.step()
        longer.scheduler.step()
    assert rates[0] == longer.scheduler.get_last_lr()[0]
    assert rates[0] > 0.3 * 2e-3
    assert rates[:-1] == sorted(rates[:-1], reverse=True)
    assert len(Path(f"{NAME}/log.jsonl").read_text().splitlines()) == 4
    capsys.readouterr()
    call(train, *ONE, "--val_fraction", 0.3)
    said = capsys.readouterr().err
    assert "--val_fraction was 0.1, is 0.3; --num_epochs was 4, is 1; a new run in" in said
    assert f"(--accept_changes continues {NAME} instead)" in said


def test_images_csv(workdir):
    call(train, *ONE, "--val_fraction", 0.3)
    listed = read_labels(Path(f"{NAME}/images.csv"))
    sets = {f"img_{i:02d}.jpg": set(labels) for i, labels in enumerate(LABEL_SETS) if labels}
    assert dict(zip(listed.file_names, map(set, listed.label_sets), strict=True)) == sets
    held = [n for n, s in zip(listed.file_names, listed.splits, strict=True) if s == "val"]
    assert sorted(held) == sorted(load(Path(f"{NAME}/best.pt"))["held_out"])


# --- without training -------------------------------------------------------------------------


def table(sets: dict[str, tuple[str, ...]], val: dict | None = None) -> TrainAndVal:
    parts = [
        Part(AnnotatedImages("a.csv", list(part), list(part.values()), []), [], None)
        for part in (sets, sets if val is None else val)
    ]
    return TrainAndVal(*parts, vocabulary=None, selected_on="")


def record(folder: Path, images: TrainAndVal) -> None:
    (folder / "v.pkl").touch()
    write_records(folder, images, folder / "v.pkl", is_changed=True)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"a": ("x",), "b": ("x", "y"), "c": ("z",)}, ""),
        ({"c": ("z",), "b": ("y", "x"), "a": ("x",)}, ""),
        ({"a": ("y",), "b": ("x", "y"), "c": ("z",)}, "1 label on 1 photo changed"),
        ({"a": (), "b": ("z",), "c": ("z",)}, "3 labels on 2 photos changed"),
        ({"a": ("x",), "b": ("x", "y")}, "1 photo is gone"),
        ({"c": ("z",), "d": ("x",), "e": ("x",)}, "2 photos are new, 2 are gone"),
        (
            {"a": ("x", "z"), "b": ("x", "y"), "d": ("z",)},
            "1 label on 1 photo changed, 1 photo is new, 1 is gone",
        ),
    ],
)
def test_what_changed(tmp_path, now, said):
    record(tmp_path, table({"a": ("x",), "b": ("x", "y")}, {"c": ("z",)}))
    assert changed_labels(tmp_path, table(now)) == said


def test_without_a_record_nothing_is_said(tmp_path):
    assert changed_labels(tmp_path, table({"a": ("x",)})) == ""
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00")
    assert changed_labels(tmp_path, table({"a": ("x",)})) == ""


def test_a_name_that_no_table_holds_is_no_reason_not_to_train(tmp_path, capsys):
    record(tmp_path, table({"a": ("x",), "b\0": ("y",)}))
    assert "images.csv is not written" in capsys.readouterr().err


def test_numbers_of_folders(tmp_path):
    base = tmp_path / "a[1]-chain"

    def begin(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pt").touch()

    assert free_folder(base) == newest_run(base) == base
    base.mkdir()
    assert free_folder(base) == newest_run(base) == base
    (base / "last.pt").touch()
    assert newest_run(base) == base
    assert free_folder(base).name == "a[1]-chain-2"
    for name in ("a[1]-chain-2", "a[1]-chain-10", "a[1]-chain-02", "a[1]-chain-1", "a1-chain-99"):
        begin(name)
    (tmp_path / "a[1]-chain-11").write_text("a file")
    assert [p.name for p in run_folders(base)] == ["a[1]-chain-10", "a[1]-chain-2", "a[1]-chain"]
    assert newest_run(base).name == "a[1]-chain-10"
    assert free_folder(base).name == "a[1]-chain-12"
    (tmp_path / "a[1]-chain-13").mkdir()
    assert free_folder(base).name == "a[1]-chain-13"
