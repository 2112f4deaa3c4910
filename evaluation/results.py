"""The results of evaluate.py as one dictionary of plain values: what metrics.json keeps."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from evaluation.bootstrap import WeightedMetrics, metric_intervals
from evaluation.calibration import calibration_bins
from evaluation.metrics import all_metrics, label_set_sizes, per_label
from inference.predictions import Predictions
from labels.text import means_data
from util.files import without_nan, write_whole

DECODER_NAMES = {"chain": "label decoder", "softmax": "softmax decoder", "none": "no decoder"}
DATA_FLAGS = ("image_path", "annotations")  # of train.py


def describe_run(checkpoint: dict, path: Path, annotations: Path) -> dict:
    """Which checkpoint was evaluated, and on which annotations."""
    vocabulary = checkpoint["vocabulary"]
    return {
        "name": name_run(checkpoint, path),
        "training": {"images": vocabulary["num_images"], "counts": vocabulary["counts"]},
        "checkpoint": str(path),
        "epoch": checkpoint["epoch"],
        "decoder": checkpoint["model"]["decoder"],
        "annotations": str(annotations),
        "threshold": checkpoint["threshold"],
        "label_thresholds": checkpoint["label_thresholds"],
        "threshold_fitted_on": checkpoint["selected_on"],
    }


def name_run(checkpoint: dict, path: Path) -> str:
    """A model's name for people: "ResNet-18 with label decoder, trained on ccp, 27 Nov 2026"."""
    model, flags = checkpoint["model"], checkpoint["flags"]
    name = f"{model['arch'].replace('resnet', 'ResNet-')} with {DECODER_NAMES[model['decoder']]}"
    if flags.get("image_path"):
        data = _data_name(*(str(flags.get(k)) for k in DATA_FLAGS))
        # trained in the folder of the images: the run's folder has its name
        data = data or path.absolute().parent.name.removesuffix(f"-{model['decoder']}")
        name += f", trained on {data}"
    saved = time.localtime(path.stat().st_mtime)
    return f"{name}, {saved.tm_mday} {time.strftime('%b %Y', saved)}"


def _data_name(image_path: str, annotations: str) -> str:
    """The nearest folder whose name is more than "images" or "train"; else the label file's.

    Empty if the images and the labels are in the folder ".".
    """
    folders = [name for name in reversed(Path(image_path).parts) if name.strip("./")]
    names = [*folders, Path(annotations).stem]
    return next((name for name in names if not means_data(name)), [*folders, ""][0])


def metric_results(
    p: Predictions, sets: dict[str, np.ndarray], labels: tuple[str, ...], decide: str
) -> dict:
    """All metrics of the predictions. `sets` maps decision rules to N×C label sets.

    decide: the rule whose sets give the per-label precision, recall and F1. In the result, `pairs`
    is there if some image-label pairs are unknown.
    """
    known = p.known
    pairs = known is not None and {"known": int(known.sum()), "all": known.size}
    return {
        "num_images": len(p.targets),
        **({"pairs": pairs} if pairs else {}),
        "set_nll": float(p.set_nll.mean()),
        **all_metrics(p.targets, p.marginals, sets, known),
        "decide": decide,
        "per_label": per_label(labels, p.targets, p.marginals, sets[decide], known),
        "map_certain": 100 * float(p.certain.mean()),
    }


def report_results(p: Predictions, sets: dict[str, np.ndarray]) -> dict:
    """What the report needs besides: intervals, calibration bins and label set sizes."""
    weighted = WeightedMetrics(p.targets, p.marginals, sets, p.set_nll, p.known)
    return {
        "intervals": metric_intervals(weighted),
        "calibration": calibration_bins(p.targets, p.marginals, known=p.known),
        "label_set_sizes": label_set_sizes(p.targets, sets, p.known),
    }


def write_results(results: dict, tables: str, output_dir: Path) -> str:
    """Write metrics.json and evaluate.log; return the text of metrics.json."""
    as_json = json.dumps(without_nan(results), indent=1)
    for name, text in (("metrics.json", as_json), ("evaluate.log", tables)):
        write_whole(output_dir / name, text + "\n")
    return as_json
