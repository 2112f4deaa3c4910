"""Whether a promise of precision or recall is kept on the evaluated images, see promise.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.metrics import RULES, LabelSets
from inference.predictions import Predictions
from inference.promises import (
    CONFIDENCE,
    NEVER,
    find_thresholds,
    is_promise,
    promises_of,
    say,
    split_promise,
)
from util.errors import UsageError


def promised_thresholds(
    checkpoint: dict, decide: str, path: Path, folds: int | None, rules: Path | None
) -> np.ndarray | None:
    """The thresholds that keep the promise `decide`; None for another rule. Raises UsageError."""
    if not is_promise(decide):
        return None
    if folds or rules:
        wrong = "--folds" if folds else "--rules"
        raise UsageError(f"--decide {decide} is a promise of one model alone: leave out {wrong}")
    return find_thresholds(promises_of(checkpoint), decide, str(path))


def keep_promise(
    decide: str,
    checkpoint: dict,
    thresholds: np.ndarray | None,
    p: Predictions,
    labels: tuple[str, ...],
) -> tuple[dict[str, np.ndarray], dict]:
    """The rule's N×C label sets by its name, and what metrics.json has of it; empty without one."""
    if thresholds is None:
        return {}, {}
    said, promises = say(p.marginals, thresholds, decide), checkpoint["promises"]
    return {decide: said}, {
        "promise": promise_results(decide, promises, thresholds, p.targets, said, labels, p.known)
    }


def promise_results(
    decide: str,
    promises: dict,
    thresholds: np.ndarray,
    targets: np.ndarray,
    said: np.ndarray,
    labels: tuple[str, ...],
    known: np.ndarray | None = None,
) -> dict:
    """What was promised, and the precision and recall in percent on the evaluated images.

    targets, said: N×C bool. known: N×C bool, where the truth is known (None: everywhere); elsewhere
    a label does not count as said. In the result, thresholds are null for what is never said, and 0
    for what is always said; `per_label` is there if each label has a promise of its own.
    """
    kind, target = split_promise(decide)
    counts = LabelSets(targets, said, known).count()
    hits, num_said, num_true = (int(n.sum()) for n in (counts.hits, counts.predicted, counts.true))
    shown = [None if t >= NEVER else round(float(t), 6) for t in thresholds]
    found = {
        "kind": kind,
        "target": 100 * target,
        "confidence": 100 * CONFIDENCE,
        "hold_out_images": promises["num_images"],
        "thresholds": shown,
        "said": num_said,
        "precision": 100 * hits / num_said if num_said else float("nan"),
        "recall": 100 * hits / num_true if num_true else float("nan"),
    }
    if kind.startswith("label_"):
        columns = (labels, shown, counts.predicted.tolist(), counts.hits, counts.true)
        found["per_label"] = [
            {
                "label": label,
                "threshold": threshold,
                "said": n,
                "precision": 100 * float(hit / n) if n else float("nan"),
                "recall": 100 * float(hit / true) if true else float("nan"),
            }
            for label, threshold, n, hit, true in zip(*columns, strict=True)
        ]
    return found


def rule_meaning(rule: str) -> str:
    """A decision rule in words, for tables."""
    if not is_promise(rule):
        return RULES[rule]
    kind, target = split_promise(rule)
    what = kind.removeprefix("label_")
    each = " of each label" if kind.startswith("label_") else ""
    return f"promises a {what}{each} of at least {target:g} (confidence {CONFIDENCE:g})"
