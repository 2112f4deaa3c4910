"""metrics.json as other commands read it: with the types and names that they rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from evaluation.metrics import SET_METRICS
from inference.predictions import DECISIONS
from util.reading import read_json

Percent = Annotated[float, msgspec.Meta(ge=-1, le=101)] | None  # null: undefined; some rounding
Nats = Annotated[float, msgspec.Meta(ge=-1, le=1e9)] | None
Span = tuple[float | None, float | None]  # of a 95 % interval


class Row(msgspec.Struct):
    """An entry of per_label."""

    label: str
    support: int
    AP: Percent


class Intervals(msgspec.Struct):
    """What --report adds."""

    set_nll: Span
    mAP: Span  # noqa: N815  as in the file
    predicted_sets: dict[str, dict[str, Span]]


class Metrics(msgspec.Struct):
    """The entries of metrics.json that are used; evaluation/results.py writes them, and more."""

    checkpoint: str
    epoch: int
    decoder: Literal["chain", "softmax", "none"]
    annotations: str
    protocol: str
    command: str
    num_images: int
    num_samples: int
    mAP_labels: int  # noqa: N815
    threshold: float
    label_thresholds: float | list[float]
    set_nll: Nats
    mAP: Percent  # noqa: N815
    map_at_10: Percent = msgspec.field(name="mAP@10")
    ECE: Percent
    per_label: list[Row]
    predicted_sets: dict[str, dict[str, Percent]]
    folds: int | None = None
    given_rules: list[str] = []
    intervals: Intervals | msgspec.UnsetType = msgspec.UNSET


def read_metrics(path: Path) -> dict:
    """The content of a metrics.json. Raises OSError, UsageError, ValueError with the reason."""
    found = read_json(path, Metrics)
    thresholds, rules = found["label_thresholds"], found["predicted_sets"]
    spans = found.get("intervals", {}).get("predicted_sets", {})
    if not found["per_label"]:
        raise ValueError("it has no labels")
    if isinstance(thresholds, list) and len(thresholds) != len(found["per_label"]):
        raise ValueError("label_thresholds and per_label have different lengths")
    if lacking := [rule for rule in DECISIONS if rule not in rules]:
        raise ValueError(f"predicted_sets lacks {lacking[0]}")
    for values in (*rules.values(), *spans.values()):
        if lacking := [name for name in SET_METRICS if name not in values]:
            raise ValueError(f"predicted_sets lacks {lacking[0]}")
    return found
