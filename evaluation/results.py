"""The results of evaluate.py as one dictionary of plain values: what metrics.json keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.bootstrap import WeightedMetrics, metric_intervals
from evaluation.calibration import calibration_bins
from evaluation.metrics import all_metrics, label_set_sizes, per_label
from inference.predictions import Predictions


def describe_run(checkpoint: dict, path: Path, annotations: Path) -> dict:
    """Which checkpoint was evaluated, and on which annotations."""
    return {
        "checkpoint": str(path),
        "epoch": checkpoint["epoch"],
        "decoder": checkpoint["model"]["decoder"],
        "annotations": str(annotations),
        "threshold": checkpoint["threshold"],
        "label_thresholds": checkpoint["label_thresholds"],
        "threshold_fitted_on": checkpoint["selected_on"],
    }


def metric_results(
    p: Predictions, sets: dict[str, np.ndarray], labels: tuple[str, ...], decide: str
) -> dict:
    """All metrics of the predictions. `sets` maps decision rules to N×C label sets.

    decide: the rule whose sets give the per-label precision, recall and F1.
    """
    return {
        "num_images": len(p.targets),
        "set_nll": float(p.set_nll.mean()),
        **all_metrics(p.targets, p.marginals, sets),
        "decide": decide,
        "per_label": per_label(labels, p.targets, p.marginals, sets[decide]),
        "map_certain": 100 * float(p.certain.mean()),
    }


def report_results(p: Predictions, sets: dict[str, np.ndarray]) -> dict:
    """What the report needs besides: intervals, calibration bins and label set sizes."""
    weighted = WeightedMetrics(p.targets, p.marginals, sets, p.set_nll)
    return {
        "intervals": metric_intervals(weighted),
        "calibration": calibration_bins(p.targets, p.marginals),
        "label_set_sizes": label_set_sizes(p.targets, sets),
    }
