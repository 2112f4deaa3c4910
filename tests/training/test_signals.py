"""What a signal does to a run. Whole runs that are stopped: test_resume.py, test_distributed.py."""

import os
import signal

import pytest

from training.signals import StopOnSignal, lock_output_dir


@pytest.fixture
def stop(monkeypatch):
    """A stop in a clock that stands still at `stop.now`; the signals' effects are put back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started by nohup
    stop = StopOnSignal()
    stop.now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: stop.now)
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_is_one(stop, number, capfd):
    """torchrun passes on what a scheduler has sent to all processes."""
    with stop:
        for _ in range(3):
            signal.raise_signal(number)
            stop.now += 60
    signal.raise_signal(number)  # while the run ends
    assert stop.received == signal.Signals(number).name
    assert capfd.readouterr().err == f"{stop.received}: saving, then stopping\n"


def test_a_second_ctrl_c_stops_at_once(stop, capfd):
    with stop:
        for _ in range(2):  # at the same moment: another process has passed it on
            signal.raise_signal(signal.SIGINT)
        stop.now += 1.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "press Ctrl-C again to stop at once" in capfd.readouterr().err


def test_torchrun_ends_impatient_runs_itself(stop, monkeypatch):
    """It passes Ctrl-C on, at a time of its own, and kills after 30 seconds."""
    for name, value in (("LOCAL_RANK", "0"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            stop.now += 5
    assert stop.received == "SIGINT"


def test_nohup_is_respected(stop):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop:
        signal.raise_signal(signal.SIGHUP)
    assert stop.received is None


def test_a_closed_terminal_is_no_error(stop, monkeypatch):
    def closed(descriptor: int, data: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", closed)
    with stop:
        signal.raise_signal(signal.SIGHUP)
    assert stop.received == "SIGHUP"


def test_only_folders_made_here_are_removed(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    with lock_output_dir(tmp_path / "a/b/c/d"):
        pass
    assert not (tmp_path / "a/b/c").exists()
    assert (tmp_path / "a/b").exists()
    with lock_output_dir(tmp_path / "a/b/c/d"):
        (tmp_path / "a/b/c/d/file").touch()
    assert (tmp_path / "a/b/c/d/file").exists()
