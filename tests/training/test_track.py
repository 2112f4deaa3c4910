"""--track: a tool beside log.jsonl. Trackio and wandb are stand-ins; TensorBoard is read back."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
from conftest import TRAIN, call, refusal

import train
from training.track import TOOLS, tracking
from util.errors import RunError

LINES = [{"epoch": 1, "val_mAP": 50.0, "x": None, "y": float("nan")}, {"epoch": 2, "val_mAP": 60.0}]


class Tool:
    """Stands for trackio and wandb: keeps what it is given, and prints as they do."""

    def __init__(self) -> None:
        self.started, self.logged, self.ended = None, [], False

    def init(self, project=None, **options):
        print("hello")
        self.started = {"project": project, **options}
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, metrics, step):
        print("logged")
        if metrics.get("val_mAP") == 13:
            raise OSError("disk full")
        self.logged.append((step, metrics))

    def finish(self):
        self.ended = True

    def Settings(self, **options):  # noqa: N802
        return options


@pytest.fixture(params=("trackio", "wandb"))
def tool(request, monkeypatch):
    stand_in = Tool()
    monkeypatch.setitem(sys.modules, request.param, stand_in)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return request.param, stand_in


def test_a_tool_gets_each_epoch(tool, tmp_path, monkeypatch, capsys):
    name, stand_in = tool
    with tracking(name, tmp_path / "run", {"seed": 3}, 1) as tracker:
        for line in LINES:
            tracker.report(line)
    assert stand_in.logged == [(1, {"val_mAP": 50.0}), (2, {"val_mAP": 60.0})]
    assert stand_in.ended
    assert stand_in.started["config"] == {"seed": 3}
    assert stand_in.started["name"] == "run"
    if name == "wandb":
        assert stand_in.started["mode"] == "offline"
        monkeypatch.setenv("WANDB_MODE", "online")
    with tracking(name, tmp_path, {}, 3):
        assert stand_in.started.get("mode") == ("online" if name == "wandb" else None)
        assert stand_in.started["resume"] == ("auto" if name == "wandb" else "allow")
    assert capsys.readouterr().out == "", "stdout is data"


def test_a_tool_that_fails_does_not_end_the_run(tool, tmp_path, monkeypatch, capsys):
    name, stand_in = tool
    with tracking(name, tmp_path, {}, 1) as tracker:
        for value in (13, 14):
            tracker.report({"epoch": 1, "val_mAP": value})
    assert stand_in.logged == []
    assert capsys.readouterr().err.count(f"WARNING: {name} fails (disk full); the run goes on") == 1
    monkeypatch.setattr(stand_in, "init", lambda *a, **k: 1 / 0)
    with pytest.raises(RunError, match=f"{name} does not start"), tracking(name, tmp_path, {}, 1):
        pass


def test_without_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    for name in TOOLS:
        assert refusal(train, "--track", name).endswith(f"pip install {name}")


def test_train_tracks(workdir, monkeypatch, capsys):
    """The numbers of log.jsonl; a run that is continued has each epoch once."""
    stand_in = Tool()
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    monkeypatch.setattr("train.check_tool", lambda name: None)
    call(train, *TRAIN, "--num_epochs", 1, "--track", "trackio")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{"epoch": step, **metrics} for step, metrics in stand_in.logged] == lines
    assert stand_in.started["config"]["num_epochs"] == 1


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (1, 2):  # the second command trains epoch 2 again
        with tracking("tensorboard", tmp_path, {"seed": 3}, first) as tracker:
            for line in LINES[first - 1 :]:
                tracker.report(line)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("val_mAP")] == [(1, 50.0), (2, 60.0)]
