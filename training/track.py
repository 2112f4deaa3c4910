"""Watch a run in TensorBoard, Trackio or Weights & Biases, beside its log.jsonl.

Nothing leaves this machine unless its user says so: Trackio with TRACKIO_SPACE_ID or
TRACKIO_SERVER_URL, Weights & Biases with WANDB_MODE=online. log.jsonl has everything, so a tool
that fails in the middle of a run only ends its own record.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from util.distributed import rank
from util.errors import RunError, UsageError
from util.log import log

PROJECT = "HybridNet"
Log = Callable[[dict[str, float], int], None]  # metrics, epoch
Started = tuple[Log, Callable[[], None]]  # and what ends it


def _tensorboard(folder: Path, flags: Mapping[str, object], epoch: int) -> Started:
    from torch.utils.tensorboard import SummaryWriter

    # epochs that are trained again, after a crash, replace their old points
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch)
    if epoch == 1:
        writer.add_text("flags", f"```\n{json.dumps(flags, indent=1)}\n```")

    def add(metrics: dict[str, float], epoch: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    return add, writer.close


def _trackio(folder: Path, flags: Mapping[str, object], epoch: int) -> Started:
    import trackio

    resume = "never" if epoch == 1 else "allow"
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    run = trackio.init(PROJECT, name=folder.name, config=dict(flags), resume=resume, **quiet)
    return lambda metrics, epoch: run.log(metrics, step=epoch), run.finish


def _wandb(folder: Path, flags: Mapping[str, object], epoch: int) -> Started:
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    settings = wandb.Settings(console="off", disable_git=True)  # stdout is data
    where = {"project": PROJECT, "name": folder.name, "dir": str(folder), "mode": mode}
    run = wandb.init(config=dict(flags), resume="auto", settings=settings, **where)
    return lambda metrics, epoch: run.log(metrics, step=epoch), run.finish


TOOLS: dict[str, Callable[[Path, Mapping[str, object], int], Started]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}


def check_tool(tool: str | None) -> None:
    """Raise UsageError if the tool's package is not installed: no other flag needs it."""
    if tool and not importlib.util.find_spec(tool):
        raise UsageError(f"--track {tool} needs another package: pip install {tool}")


class Tracker:
    """Passes the epochs on to a tool, until it fails; without one it does nothing."""

    def __init__(self, tool: str = "", started: Started | None = None) -> None:
        self.tool, self.works = tool, started is not None
        self._add, self._end = started or (None, None)

    def report(self, line: dict) -> None:
        """Pass on an epoch's line of log.jsonl, without what is undefined in it."""
        metrics = {k: v for k, v in line.items() if k != "epoch" and v is not None and v == v}
        self._attempt(lambda: self._add(metrics, line["epoch"]))

    def end(self) -> None:
        """End the tool's record."""
        self._attempt(lambda: self._end())

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):
                action()
        except Exception as error:  # of another project: it may be any
            self.works = False
            log(f"WARNING: {self.tool} fails ({error}); the run goes on, log.jsonl has all of it")


@contextlib.contextmanager
def tracking(
    tool: str | None, folder: Path, flags: Mapping[str, object], epoch: int
) -> Iterator[Tracker]:
    """Gives what reports to the tool, one of TOOLS; under torchrun only the first process does.

    folder, flags: of the run. epoch: the first one that will be trained. Raises RunError if the
    tool does not start.
    """
    tracker = Tracker()
    if tool and rank() == 0:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                tracker = Tracker(tool, TOOLS[tool](folder, flags, epoch))
        except Exception as error:
            raise RunError(f"{tool} does not start ({error}): train without --track") from error
    try:
        yield tracker
    finally:
        tracker.end()
