"""A run that is interrupted and started again gives the same files as one without interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import (
    REPO,
    TRAIN,
    call,
    load,
    log_lines,
    refusal,
    run,
    same,
    write_tiny_set,
)
from filelock import FileLock
from processes import start

import train
from inference import checkpoint
from training import report, resume, saver, signals, state
from util.errors import RunError, UsageError

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import kills

FLAGS = (*TRAIN, "--num_epochs", 3)  # 3 steps an epoch
OFTEN = ("--save_minutes", 1e-9)  # a save after each step
OUTPUT = "runs/instances-chain"


class Stopped(BaseException):
    """Stands for the end of the process."""


def everything(output) -> dict:
    """The files of a run that must not depend on interruptions."""
    files = {name: load(output / name) for name in ("best.pt", "last.pt")}
    for content in files.values():
        content["flags"] = {k: v for k, v in content["flags"].items() if k not in resume.MAY_CHANGE}
    return {**files, "log": log_lines(output)}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Three epochs without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    write_tiny_set(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(train, *FLAGS)
    found = everything(folder / OUTPUT)
    shutil.rmtree(folder / OUTPUT)
    return found


def stop_at(patch, module, name: str, number: int, done: bool) -> None:
    """End the process at this call of a function: before it runs, or (done) right after it."""
    original, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(name)
        if len(calls) < number or done:
            original(*args)
        if len(calls) == number:
            raise Stopped

    patch.setattr(module, name, stopping)


# each run stops twice: the second stop is in the run that continues after the first
STOPS = [
    (("save_last", 2, True), ("save_last", 3, True)),  # within an epoch, twice
    (
        ("save_last", 3, True),
        ("save_best", 1, False),
    ),  # after an epoch's steps; then before best.pt
    (("save_best", 1, True), ("append_log", 1, True)),  # best.pt is written, last.pt is not
    (("draw_curves", 2, True), ("save_last", 1, False)),
    (("end_step", 5, True), ("end_step", 1, False)),  # between saves
]
MODULES = {
    "append_log": report,
    "draw_curves": report,
    "end_step": state.TrainState,
    "save_best": saver.Saver,
}


@pytest.mark.parametrize("stops", STOPS, ids=lambda stops: stops[0][0])
def test_an_interrupted_run_gives_the_same_files(workdir, monkeypatch, whole_run, stops):
    often = OFTEN if stops[0][0] == "save_last" else ()
    for name, number, done in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, MODULES.get(name, saver), name, number, done)
            with pytest.raises(Stopped):
                call(train, *FLAGS, *often)
    call(train, *FLAGS, "--num_workers", 1)
    assert same(everything(workdir / OUTPUT), whole_run)


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(
    workdir, monkeypatch, whole_run, capsys
):
    with monkeypatch.context() as patch:
        stop_at(patch, saver, "save_last", 5, True)
        with pytest.raises(Stopped):
            call(train, *FLAGS, *OFTEN)
    last = workdir / OUTPUT / "last.pt"
    os.truncate(last, last.stat().st_size // 2)
    (last.parent / ".new.pt").write_bytes(b"half")
    (last.parent / ".last.pt.tmp123").write_bytes(b"half")
    call(train, *FLAGS)
    err = capsys.readouterr().err
    assert "WARNING: runs/instances-chain/last.pt is damaged" in err
    assert "continuing from runs/instances-chain/previous.pt" in err
    assert same(everything(workdir / OUTPUT), whole_run)
    assert not list(last.parent.glob(".*pt*"))


def test_two_damaged_checkpoints_are_an_error(workdir):
    (workdir / OUTPUT).mkdir(parents=True)
    for name in ("last.pt", "previous.pt"):
        (workdir / OUTPUT / name).write_bytes(b"PK\x03\x04 garbage")
    assert "last.pt is damaged" in refusal(train, *FLAGS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(workdir, whole_run, number):
    """The workers get the signal too, as from a terminal or a scheduler."""
    started = start("train.py", *FLAGS, "--num_workers", 1, cwd=workdir, timeout=60)
    (pid,), (_, err) = started.pids, started.files
    while "writing to" not in err.read_text() and started.is_running():
        time.sleep(0.01)
    time.sleep(0.2)
    for each in (pid, *kills.children(pid)):
        os.kill(each, number)
    result = started.wait()
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: stopped by SIG"), result.stderr
    assert "Traceback" not in result.stderr
    assert (workdir / OUTPUT / "last.pt").exists()
    call(train, *FLAGS)
    assert same(everything(workdir / OUTPUT), whole_run)


def test_two_runs_in_the_same_folder_are_an_error(workdir):
    (workdir / OUTPUT).mkdir(parents=True)
    with FileLock(workdir / OUTPUT / signals.LOCK):
        assert "another run is writing to" in refusal(train, *FLAGS)
        assert [p.name for p in (workdir / OUTPUT).iterdir()] == [signals.LOCK]


def test_changes_are_named_and_can_be_accepted(workdir, capsys):
    call(train, *TRAIN, "--num_epochs", 1)
    annotations = workdir / "data/annotations/instances.json"
    content = json.loads(annotations.read_text())
    zebra = {"image_id": 110, "category_id": 24}
    content["annotations"] = [a for a in content["annotations"] if not zebra.items() <= a.items()]
    annotations.write_text(json.dumps(content))
    more = (*TRAIN, "--num_epochs", 2, "--learning_rate", 0.003, "--output_dir", OUTPUT)
    sentence = refusal(train, *more)
    assert "--num_epochs was 1, is 2" in sentence
    assert "--learning_rate was 0.002, is 0.003" in sentence
    assert "training images or their labels have changed" in sentence
    call(train, *more, "--accept_changes")
    assert "WARNING: continuing, although --num_epochs" in capsys.readouterr().err
    last = load(workdir / OUTPUT / "last.pt")
    assert last["training"]["progress"][0] == 2
    assert last["training"]["scheduler"]["total_steps"] == last["training"]["progress"][2]
    assert "--arch cannot change" in refusal(train, *more, "--accept_changes", "--arch", "resnet18")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 25 MB: enough for one last.pt (17 MB), but not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=25m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def remount(disk, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint(workdir, whole_run, small_disk):
    """With space on the disk, the same command continues and gives the same files."""
    flags = (*FLAGS, "--output_dir", small_disk / "run")
    with pytest.raises(RunError, match=r"cannot write .*pt \(.*(No space left|disk full)"):
        call(train, *flags)
    assert load(small_disk / "run/last.pt")["training"]["progress"][2] == 3
    assert not list((small_disk / "run").glob(".*tmp*")), "no half-written file remains"
    remount(small_disk, "size=200m")
    call(train, *flags)
    assert same(everything(small_disk / "run"), whole_run)


def test_a_full_disk_ends_all_processes(workdir, small_disk):
    """One of two processes cannot save: each ends with one sentence, and none waits."""
    flags = (*FLAGS, "--output_dir", small_disk / "run")
    result = run("train.py", *flags, cwd=workdir, processes=2)
    assert result.returncode == 1, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2, result.stderr
    assert sum("cannot write" in error for error in errors) == 1
    assert sum("another process of this run has ended" in error for error in errors) == 1
    assert "Traceback" not in result.stderr
    assert load(small_disk / "run/last.pt")["training"]["progress"][2] == 3


def test_a_clock_that_is_set_back_changes_nothing(workdir, monkeypatch, whole_run):
    """It loses a year with each look at it: saves, lines and times stay as they are."""
    now = iter(time.time() - year * 3.15e7 for year in range(10**6))
    monkeypatch.setattr(time, "time", lambda: next(now))
    with monkeypatch.context() as patch:
        stop_at(patch, saver, "save_last", 3, True)
        with pytest.raises(Stopped):
            call(train, *FLAGS, *OFTEN)
    call(train, *FLAGS)
    assert same(everything(workdir / OUTPUT), whole_run)
    lines = (workdir / OUTPUT / "log.jsonl").read_text().splitlines()
    assert all(0 < json.loads(line)["seconds"] < 1000 for line in lines)


def test_a_read_only_disk_is_one_error(workdir, small_disk):
    (small_disk / "run").mkdir()
    remount(small_disk, "ro")
    assert "cannot" in refusal(train, *FLAGS, "--output_dir", small_disk / "run")
    assert "cannot make the folder" in refusal(train, *FLAGS, "--output_dir", small_disk / "new")


def test_an_image_disappears_during_training(workdir, monkeypatch, whole_run):
    """The steps so far are saved. When the image is back, the run gives the same files."""
    original = state.TrainState.end_step
    image, away = workdir / "data/images/img_03.jpg", workdir / "away.jpg"

    def end_step(self, *args):
        original(self, *args)
        if self.steps == 4 and image.exists():
            image.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(state.TrainState, "end_step", end_step)
        assert "img_03.jpg" in refusal(train, *FLAGS)
    assert load(workdir / OUTPUT / "last.pt")["training"]["progress"][2] >= 4
    away.rename(image)
    call(train, *FLAGS)
    assert same(everything(workdir / OUTPUT), whole_run)


def test_a_killed_worker_is_one_error(workdir, whole_run):
    """The system kills workers if memory runs out; torch then raises at any place in a step."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
        "import model, multiprocessing, time, train\n"
        "from util.cli import run_script\n"
        "encode, calls = model.HybridNet.encode_features, []\n"
        "def killing(self, features):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        multiprocessing.active_children()[0].kill()\n"
        "        time.sleep(5)\n"
        "    return encode(self, features)\n"
        "model.HybridNet.encode_features = killing\n"
        "run_script(train.main, train.get_args_parser())\n"
    )
    (workdir / "killing.py").write_text(code)
    result = run(workdir / "killing.py", *FLAGS, "--num_workers", 1, cwd=workdir, timeout=120)
    assert result.returncode == 1, result.stderr
    assert "a process that loads images was killed" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    call(train, *FLAGS)
    assert same(everything(workdir / OUTPUT), whole_run)


def test_changed_bytes_are_detected(workdir, monkeypatch, capsys):
    """torch does not check the checksums of a file."""
    with monkeypatch.context() as patch:  # a finished run has no previous.pt
        stop_at(patch, saver.Saver, "finish", 1, False)
        with pytest.raises(Stopped):
            call(train, *TRAIN, "--num_epochs", 1)
    last = workdir / OUTPUT / "last.pt"
    content = bytearray(last.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    last.write_bytes(content)
    call(train, *TRAIN, "--num_epochs", 1)
    err = capsys.readouterr().err
    assert "last.pt is damaged" in err
    assert "continuing from runs/instances-chain/previous.pt" in err
    state = load(workdir / OUTPUT / "last.pt")
    state["training"] = {"progress": [0, 0, 0]}
    checkpoint.save_checkpoint(state, last)
    assert "training state does not fit" in refusal(train, *TRAIN, "--num_epochs", 1)


def run_until(error: BaseException | None, monkeypatch, new_steps: int, save_last) -> None:
    """A run that has made this many steps since its last save, and saves once more or fails."""
    run = SimpleNamespace(is_whole=True, step=3, steps=3, pending=[], state_dict=dict)
    monkeypatch.setattr(saver, "save_last", save_last)
    monkeypatch.setattr(saver.Saver, "checkpoint", lambda self: {})
    with saver.Saver(run, {}, None, 10, lambda: None) as saving:
        saving.loader = None
        run.steps += new_steps
        if error:
            raise error
        saving.save()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("an image is gone"), 1),
        (RunError("the cache was replaced"), 1),
        (MemoryError(), 1),
        (saver.LossError("nan"), 0),  # useless weights
        (KeyboardInterrupt(), 0),  # the user does not want to wait
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("new_steps", [1, 0])
def test_what_an_error_in_mid_epoch_saves(monkeypatch, error, expected, new_steps):
    saves = []
    with pytest.raises(type(error)):
        run_until(error, monkeypatch, new_steps, lambda content, folder: saves.append(content))
    assert len(saves) == expected * new_steps


def test_a_save_that_fails_is_not_tried_again(monkeypatch):
    tries = []

    def full(content, folder):
        tries.append(folder)
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="full"):
        run_until(None, monkeypatch, 1, full)
    assert len(tries) == 1
