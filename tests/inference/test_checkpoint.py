"""Checkpoints from strangers and from other code: each is read, or refused in one sentence."""

import inspect
import os
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import REPO, same

import model
from inference import checkpoint as module
from inference.checkpoint import find_checkpoint, load_checkpoint, restore, save_checkpoint
from util.errors import RunError, UsageError

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import valid_inputs
from tiny_network import tiny_resnet


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A checkpoint of a tiny network, and a function that saves it changed and reads it."""
    monkeypatch.setattr(torchvision.models, "resnet18", tiny_resnet)
    checkpoint = valid_inputs.tiny_checkpoint()
    del checkpoint["commit"]
    (tmp_path / "valid").mkdir()
    torch.save(checkpoint, tmp_path / "valid/best.pt")

    def refusal(**changes: object) -> str:
        torch.save({**checkpoint, **changes}, tmp_path / "x.pt")
        with pytest.raises(UsageError) as caught:
            restore(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")
        return str(caught.value)

    return checkpoint, refusal, tmp_path


def test_wrong_parts(small):
    checkpoint, refusal, _ = small

    def damage(part: str, value: object) -> str:
        sentence = refusal(**{part: value})
        assert "x.pt is damaged" in sentence
        return sentence

    settings, weights = checkpoint["model"], checkpoint["weights"]
    for change in (
        {"arch": "get_model"},
        {"arch": "vit_b_16"},
        {"decoder": "x" * 5000},
        {"embed_size": 10**9},
        {"embed_size": 10**400},
        {"hidden_size": "4"},
        {"hidden_size": -1},
        {"hidden_size": True},
        {"freeze_encoder": 1},
        {"stages": 0},
        {"stages": 5},
        {"stages": float("nan")},
        {"stages": torch.tensor([1, 2])},
        {"pretrained": True},  # would download a file
        {7: 7},
    ):
        assert "its model" in damage("model", {**settings, **change})
    for value in (None, [], "resnet18"):
        assert "its model has no settings" in damage("model", value)
    assert "do not fit" in damage("model", {**settings, "hidden_size": 60_000})
    boundless = {**weights, "classifier.bias": torch.zeros(1).expand(2**20, 2**20)}
    assert "larger than the file" in damage("weights", boundless)
    for tensor in (torch.eye(3).to_sparse(), torch.full((3,), float("nan")), "text"):
        assert "weights" in damage("weights", {**weights, "classifier.bias": tensor})
    for value in (float("nan"), float("inf"), 10**400, "0.5", None, True):
        assert "threshold" in damage("threshold", value)
        assert "prior_weight" in damage("prior_weight", value)
    for value in (float("nan"), float("inf"), 10**400, 0.0, -1.0, "1", None, True):
        assert "temperature" in damage("temperature", value)
    for value in ([0.5, float("nan")], [0.5, "0.5"], [[0.5, 0.5]], "0.5", None, {"a": 0.5}):
        assert "label_thresholds" in damage("label_thresholds", value)
    assert "do not fit" in damage("label_thresholds", [0.5] * 1000)
    for value in ("a.jpg", 3, {"a.jpg": 1}, ["a.jpg", 3], [["a.jpg"]]):
        assert "held_out" in damage("held_out", value)
    for value in ({"annotations": 7}, {"val_annotations": "x"}, {"a": {}}, {"annotations": "\0"}):
        assert "flags" in damage("flags", value)
    for value in ({"image_size": 10**9}, {"image_size": -1}, {"image_size": 32.0}, {}, {"a": 1}):
        damage("preprocessing", value)


@pytest.mark.parametrize(
    ("commit", "start"),
    [
        (None, "is damaged: "),
        ("def5678", "is damaged: "),
        ("unknown", "is damaged: "),
        (7, "is damaged: "),
        ("abc1234", "was written by other code (commit abc1234, this is def5678): "),
    ],
)
def test_checkpoints_of_other_code_say_so(small, monkeypatch, commit, start):
    checkpoint, refusal, path = small
    monkeypatch.setattr(module, "code_commit", lambda: "def5678")
    end = "; check out that commit to use it" if "other" in start else ""
    settings, weights = checkpoint["model"], checkpoint["weights"]
    lacking = {k: v for k, v in settings.items() if k != "decoder"}
    shorter = {k: v for k, v in weights.items() if k != "classifier.bias"}
    for changes, reason in (
        ({"model": {**settings, "not_one": 1}}, "its model has the setting 'not_one', which this"),
        ({"model": lacking}, "its model lacks the setting 'decoder'"),
        (
            {"model": {**settings, "arch": "no_such_net"}},
            "its model's arch is 'no_such_net'; possible are",
        ),
        (
            {"weights": {**weights, "decoder.new": torch.ones(1)}},
            "its weights do not fit its model",
        ),
        ({"weights": shorter}, "its weights do not fit its model"),
    ):
        sentence = refusal(commit=commit, **changes)
        assert sentence.startswith(f"{path / 'x.pt'} {start}{reason}")
        assert sentence.endswith(end)
    assert "is damaged" in refusal(commit=commit, temperature=float("nan")), "whoever wrote it"
    del checkpoint["temperature"]
    assert refusal(commit=commit) == f"{path / 'x.pt'} {start}it lacks temperature{end}"


def test_a_new_argument_of_the_model_is_a_setting(small, monkeypatch, capsys):
    """It is kept and checked by its type, without a change of the code for checkpoints."""
    checkpoint, refusal, path = small

    old = model.HybridNet.__init__

    def newer(self, *args, smoothing: float = 0.0, layers: int | None = None, **kwargs):
        old(self, *args, **kwargs)

    signature = inspect.signature(old)
    added = list(inspect.signature(newer).parameters.values())[2:4]
    newer.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
    newer.__annotations__ = {**old.__annotations__, "smoothing": float, "layers": int | None}
    monkeypatch.setattr(model.HybridNet, "__init__", newer)
    settings = {**checkpoint["model"], "smoothing": 0.1, "layers": None}
    assert model.settings_of(settings) == settings
    torch.save({**checkpoint, "model": settings}, path / "new.pt")
    restore(load_checkpoint(path / "new.pt"), path / "new.pt")
    for change in ({"smoothing": "0.1"}, {"smoothing": float("inf")}, {"layers": 2.0}):
        (name,) = change
        assert f"setting {name!r} has a wrong value" in refusal(model={**settings, **change})
    model_before, _, _ = restore(checkpoint, path / "x.pt")
    assert "older than the setting 'smoothing'; its default 0.0 is used" in capsys.readouterr().err
    assert same(model_before.state_dict(), checkpoint["weights"])


def test_a_compressed_checkpoint_is_refused(small):
    """Its records could unpack to a thousand times its size."""
    _, _, folder = small
    with (
        zipfile.ZipFile(folder / "valid/best.pt") as old,
        zipfile.ZipFile(folder / "x.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UsageError, match="damaged or not a checkpoint"):
        load_checkpoint(folder / "x.pt")


def test_a_checkpoint_that_takes_forever_to_hash_is_refused(small):
    """Its key is a tuple of 2**90 tuples in 400 bytes, and torch.load would visit each."""
    slow = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(1, 90))
    with zipfile.ZipFile(small[2] / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}q\x00)q\x01" + slow + b"h\x00h\x5aK\x01s.")
        archive.writestr("x/version", "3\n")
    with pytest.raises(UsageError, match="damaged or not a checkpoint"):
        load_checkpoint(small[2] / "x.pt")


# --- which checkpoint -------------------------------------------------------------------------


def test_the_folder_of_a_run_means_its_best_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"there is no runs/\*/best.pt"):
        find_checkpoint()
    for name in ("runs/a/best.pt", "runs/b/best.pt", "runs/b/last.pt", "runs/c/last.pt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert find_checkpoint(Path("runs/a")) == Path("runs/a/best.pt")
    assert "using runs/a/best.pt" in capsys.readouterr().err
    assert find_checkpoint(Path("runs/b/last.pt")) == Path("runs/b/last.pt")
    for folder, hint in (("runs/c", "runs/c/last.pt"), ("runs", "runs/a/best.pt")):
        with pytest.raises(UsageError, match=f"the folder {folder} has no best.pt.*{hint}"):
            find_checkpoint(Path(folder))
    with pytest.raises(UsageError, match=r"no checkpoint runs/d/best.pt; there is .*a/best.pt"):
        load_checkpoint(find_checkpoint(Path("runs/d/best.pt")))
    with pytest.raises(UsageError, match=r"no checkpoint runs/x; there is runs/a/best.pt"):
        load_checkpoint(find_checkpoint(Path("runs/x")))


def test_a_run_of_the_future_is_the_latest_one(tmp_path, capsys):
    """The clock was set back, or the files come from another machine."""
    for name, years in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        os.utime(tmp_path / name / "best.pt", (time.time() + years * 3e7,) * 2)
    assert find_checkpoint(runs=tmp_path) == tmp_path / "b/best.pt"
    assert "the latest run (its date is in the future)" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_is_not_called_damaged(small, monkeypatch):
    checkpoint, _, folder = small
    torch.save(checkpoint, folder / "x.pt")

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "read_torch_file", refused)
    with pytest.raises(UsageError, match=r"^cannot read .*x\.pt \(Permission denied\)$"):
        load_checkpoint(folder / "x.pt")


def test_the_reason_why_a_checkpoint_cannot_be_written(small):
    """torch knows of full disks only."""
    if not Path("/proc/self").is_dir():
        pytest.skip("the system has no folder in which nobody may write")
    with pytest.raises(RunError, match=r"^cannot write /proc/self/x\.pt \((?!is the disk full)"):
        save_checkpoint(small[0], Path("/proc/self/x.pt"))
