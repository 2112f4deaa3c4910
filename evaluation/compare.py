"""Finished evaluations of the same images side by side, with intervals of their differences.

evaluate.py writes two files: metrics.json with every metric and predictions.npz with every image's
predictions, which the bootstrap needs.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np
import scipy

from evaluation.bootstrap import WeightedMetrics, bootstrap_intervals
from evaluation.metrics import SHOWN
from evaluation.metrics_file import read_metrics
from inference.predictions import Predictions, predicted_sets
from inference.rules import LabelRules
from labels.rules import parse_rules
from util.errors import UsageError
from util.files import write_atomically
from util.reading import read_arrays

PREDICTIONS = "predictions.npz"
ONE_EACH = ("certain", "set_nll", "log_kept")  # arrays with a value for each image, not each pair
NUMBERS = ("marginals", "set_nll", "log_kept")  # all others are bool


def save_predictions(
    p: Predictions, labels: tuple[str, ...], file_names: list[str], folder: Path
) -> None:
    """Write predictions.npz: the arrays of `Predictions`, labels C and file_names N."""
    arrays = {field.name: getattr(p, field.name) for field in fields(p)}
    arrays = {name: array for name, array in arrays.items() if array is not None}

    def write(path: Path) -> None:
        with path.open("wb") as file:  # given a path, numpy would add its own ending
            np.savez_compressed(
                file, labels=np.array(labels), file_names=np.array(file_names), **arrays
            )

    write_atomically(folder / PREDICTIONS, write)


@dataclass(frozen=True)
class Run:
    """What evaluate.py wrote for one checkpoint."""

    path: Path  # of its metrics.json
    results: dict
    labels: list[str]
    file_names: list[str]
    predictions: Predictions


def read_run(path: Path) -> Run:
    """Read metrics.json and predictions.npz beside it. Raises UsageError."""
    again = "run evaluate.py again to write it"
    try:
        results = read_metrics(path)
    except OSError as error:
        raise UsageError(
            f"cannot read {path} ({error.strerror}); --compare takes metrics.json"
        ) from None
    except ValueError as error:
        wrong = f"{path} is not a metrics.json of evaluate.py ({error})"
        raise UsageError(f"{wrong}; {again}") from None
    if results.get("folds"):
        raise UsageError(f"{path} is of several models (--folds): --compare takes those of one")
    arrays_path = path.with_name(PREDICTIONS)
    try:
        labels, names, p = read_predictions(arrays_path)
    except FileNotFoundError:
        raise UsageError(f"{arrays_path} is missing beside {path.name}; {again}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{arrays_path} is damaged ({error}); {again}") from None
    fits = labels == [row["label"] for row in results["per_label"]]
    if not fits or not np.isclose(p.set_nll.mean(), _number(results["set_nll"]), rtol=1e-5):
        raise UsageError(f"{path} and {arrays_path.name} are from different evaluations; {again}")
    return Run(path, results, labels, names, p)


def read_predictions(path: Path) -> tuple[list[str], list[str], Predictions]:
    """Labels, file names and predictions of a predictions.npz.

    Raises OSError, UsageError, ValueError with the reason.
    """
    arrays = read_arrays(path)
    needed = {field.name for field in fields(Predictions) if field.default is MISSING}
    if lacking := sorted({"labels", "file_names", *needed} - arrays.keys()):
        raise ValueError(f"it lacks {lacking[0]}")
    for name in ("labels", "file_names"):
        if arrays[name].dtype.kind != "U" or arrays[name].ndim != 1 or not len(arrays[name]):
            raise ValueError(f"{name} are no texts")
    labels, names = (arrays[name].tolist() for name in ("labels", "file_names"))
    given = {f.name: arrays[f.name] for f in fields(Predictions) if f.name in arrays}
    for name, array in given.items():
        shape = (len(names),) if name in ONE_EACH else (len(names), len(labels))
        if array.dtype.kind != ("f" if name in NUMBERS else "b") or array.shape != shape:
            raise ValueError(f"{name} has another type or shape than {len(names)} images need")
    if not ((given["marginals"] >= 0) & (given["marginals"] <= 1)).all():
        raise ValueError("marginals are no probabilities")
    return labels, names, Predictions(**given)


def compare(paths: list[Path]) -> dict:
    """Every run compared with the first one, in plain types for the console, JSON and page.

    pairs       known and all image-label pairs; None if all are known
    runs        name, paths, decoder and epoch of each
    metrics     of each metric: the values of all runs, the differences from the first run, and
                the differences' 95 % intervals [low, high] (paired bootstrap over images)
    per_label   AP in percent of all runs
    wilcoxon    for each run but the first: on how many labels its AP is higher and lower, and p of
                the Wilcoxon signed-rank test that AP does not differ. Labels share images and are
                not independent, so p is a description rather than a test.

    Raises UsageError unless all runs have the same images and labels.
    """
    if len(paths) < 2:
        raise UsageError("--compare needs two metrics.json or more")
    first, *others = runs = [read_run(path) for path in paths]
    for other in others:
        _refuse_to_mix(first, other)
    weighted = [_weighted_metrics(run) for run in runs]
    names = weighted[0].names
    kept = [k for k, name in enumerate(names) if len(name) == 1 or name[-1] in SHOWN]
    values = [[_look_up(run.results, names[k]) for run in runs] for k in kept]
    differences = [
        bootstrap_intervals(
            lambda w, other=other: other(w)[kept] - weighted[0](w)[kept], len(first.file_names)
        )
        for other in weighted[1:]
    ]
    ap = np.array([[_number(row["AP"]) for row in run.results["per_label"]] for run in runs])
    return {
        "num_images": len(first.file_names),
        "pairs": first.results.get("pairs"),
        "protocol": first.results["protocol"],
        "annotations": first.results["annotations"],
        "runs": [
            {"name": name, "metrics": str(run.path)}
            | {key: run.results[key] for key in ("checkpoint", "decoder", "epoch")}
            for name, run in zip(_names(paths), runs, strict=True)
        ],
        "metrics": [
            {
                "metric": " ".join(names[k][-2:]),
                "values": of_runs,
                "differences": [value - of_runs[0] for value in of_runs[1:]],
                "intervals": [pairs[i].tolist() for pairs in differences],
            }
            for i, (k, of_runs) in enumerate(zip(kept, values, strict=True))
        ],
        "per_label": [
            {"label": label, "support": int(first.predictions.targets[:, c].sum())}
            | {"AP": ap[:, c].tolist()}
            for c, label in enumerate(first.labels)
        ],
        "wilcoxon": [_signed_ranks(row - ap[0]) for row in ap[1:]],
    }


def _names(paths: list[Path]) -> list[str]:
    """The runs' names: their folders, numbered if two have the same name."""
    names = [path.resolve().parent.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{name} {n}" for n, name in enumerate(names, start=1)]


def _refuse_to_mix(a: Run, b: Run) -> None:
    """Raise UsageError unless both runs have the same images and labels."""
    if a.labels != b.labels:
        raise UsageError(f"{a.path} and {b.path} have different labels, or rank them differently")
    same_truth = _same_arrays(a, b, "targets") and _same_arrays(a, b, "unknown")
    if a.file_names != b.file_names or not same_truth:
        raise UsageError(
            f"{a.path} and {b.path} have different images or annotations: evaluate both with "
            "the same --image_path, --annotations, --limit and --keep_unlabelled"
        )


def _weighted_metrics(run: Run) -> WeightedMetrics:
    p, rules = run.predictions, None
    if given := run.results.get("given_rules"):
        given = parse_rules("\n".join(given), run.labels, str(run.path))
        rules = LabelRules(given, len(run.labels))
    sets = predicted_sets(p, run.results["threshold"], run.results["label_thresholds"], rules)
    return WeightedMetrics(p.targets, p.marginals, sets, p.set_nll, p.known)


def _same_arrays(a: Run, b: Run, name: str) -> bool:
    return np.array_equal(*(getattr(run.predictions, name) for run in (a, b)))


def _look_up(results: dict, name: tuple[str, ...]) -> float:
    for key in name:
        results = results[key]
    return _number(results)


def _number(value: float | None) -> float:
    """JSON has null for an undefined metric."""
    return float("nan") if value is None else value


def _signed_ranks(differences: np.ndarray) -> dict[str, float]:
    """Wilcoxon signed-rank test over labels with a defined AP; p is 1 if none differs."""
    differences = differences[~np.isnan(differences)]
    higher, lower = int((differences > 0).sum()), int((differences < 0).sum())
    p = float(scipy.stats.wilcoxon(differences).pvalue) if higher + lower else 1.0
    return {"labels": len(differences), "higher": higher, "lower": lower, "p": p}
