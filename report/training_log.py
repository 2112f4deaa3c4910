"""The log of a training run: a JSON line per epoch, curves, and a few mistakes as text."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from inference.predictions import Predictions
from util.errors import UsageError
from util.files import write_picture, write_whole
from util.log import log
from util.marked import PROGRAM
from util.reading import parse_json, read_bytes

CURVES = {  # unit (left and right chart) -> key in log.jsonl -> name
    "nats per image": {
        "train_set_nll": "set NLL, training",
        "val_set_nll": "set NLL, validation",
        "train_cnn_bce": "CNN loss, training",
    },
    "%, validation images": {"val_mAP": "mAP", "val_OF1": "OF1", "val_EM": "exact match"},
}


Value = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)] | None  # null: undefined


class Epoch(msgspec.Struct):
    """The entries of a line of log.jsonl that are drawn."""

    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**31)]
    train_set_nll: Value = None
    val_set_nll: Value = None
    train_cnn_bce: Value = None
    val_mAP: Value = None  # noqa: N815
    val_OF1: Value = None  # noqa: N815
    val_EM: Value = None  # noqa: N815


def append_log(line: dict, path: Path) -> None:
    """Add an epoch's line; it replaces lines of this and later epochs, left by a crashed run.

    A damaged log is moved aside. Raises RunError if the file cannot be written.
    """
    if path.is_file() and read_log(path) == [] and path.stat().st_size:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
    kept = [earlier for earlier in read_log(path) if earlier["epoch"] < line["epoch"]]
    text = "".join(json.dumps(each) + "\n" for each in [*kept, line])
    write_whole(path, text)


def read_log(path: Path) -> list[dict]:
    """The epochs of a run's log.jsonl; [] if it is missing or damaged (with a note on stderr)."""
    try:
        lines = read_bytes(path).splitlines()
        epochs = [parse_json(line, Epoch) for line in lines if line.strip()]
        if any(after["epoch"] <= before["epoch"] for before, after in pairwise(epochs)):
            raise ValueError("the epochs are not in order")
        return epochs
    except FileNotFoundError:
        return []
    except (OSError, ValueError, UsageError):
        log(f"note: {path} is damaged and ignored; the next epoch moves it to {path.name}.damaged")
        return []


def draw_curves(log_path: Path, path: Path) -> None:
    """Draw the curves of log.jsonl as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = read_log(log_path)
    # a fixed layout takes half the time of a constrained one
    places = {"left": 0.075, "right": 0.985, "bottom": 0.125, "top": 0.97, "wspace": 0.18}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), gridspec_kw=places)
    for axis, (unit, curves) in zip(axes, CURVES.items(), strict=True):
        for key, name in curves.items():
            values = [np.nan if e.get(key) is None else e[key] for e in epochs]
            axis.plot([e["epoch"] for e in epochs], values, marker="o", markersize=4, label=name)
        axis.set(xlabel="epoch", ylabel=unit, ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    mark = {"Software": PROGRAM}
    write_picture(path, lambda file: figure.savefig(file, dpi=110, format="png", metadata=mark))
    plt.close(figure)


def format_mistakes(
    p: Predictions, threshold: float, paths: list[Path], labels: tuple[str, ...], how_many: int = 3
) -> list[str]:
    """A line for each image whose annotated labels the model finds least probable.

    threshold: a label of at least this probability counts as predicted. paths: N image files.
    """
    lines = []
    predicted, unknown = p.marginals >= threshold, p.unknown_mask()
    for i in np.argsort(-p.set_nll, kind="stable")[:how_many]:
        parts = [
            f"{what} {', '.join(labels[c] for c in np.flatnonzero(which))}"
            for what, which in (
                ("right", p.targets[i] & predicted[i]),
                ("missed", p.targets[i] & ~predicted[i]),
                ("added", predicted[i] & ~p.targets[i] & ~unknown[i]),
                ("not known", predicted[i] & unknown[i]),
            )
            if which.any()
        ]
        lines.append(f"  {paths[i].name}: {'; '.join(parts) or 'right: no label'}")
    return lines
