"""Decision rules that promise a precision or a recall: `--decide precision=0.95`.

A checkpoint has the thresholds that keep each promise (evaluation/promise.py fits them):

    num_images                 N images of the hold-out
    precision        T×R       one for each rank: the most probable label of an image, the next, …
    recall           T×1       one for all labels
    label_precision  T×C       one for each label
    label_recall     T×C       one for each label

A row for each of the T values in TARGETS. A label is said if its probability reaches its threshold.
A threshold of NEVER is never reached: nothing can be promised of this rank or label. A threshold of
0 always is: this label is said on every image, since no less would keep the promise.
"""

from __future__ import annotations

import argparse

import numpy as np

from inference.predictions import DECISIONS
from util.errors import UsageError

TARGETS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
KINDS = ("precision", "recall", "label_precision", "label_recall")
CONFIDENCE = 0.9  # the probability, over hold-outs, with which a promise holds
MOST = 20  # labels that are said of an image at most, to keep the precision over all labels
NONE_HELD_OUT = "the training images themselves (none is held out)"  # selected_on of a checkpoint
NEVER = 2.0  # above every probability
DECIDE = (
    "decision rule: threshold, label_f1 (each label's own threshold), map (the most probable set), "
    "f1 (the set with the highest expected F1), or a promise: precision=0.95, recall=0.9 "
    "(label_precision, label_recall: of each label), see docs/PROMISE.md"
)


def decision(text: str) -> str:
    """argparse type of --decide: one of DECISIONS, or a kind of promise and its value.

    >>> decision("precision=0.90")
    'precision=0.9'
    """
    kind, _, value = text.partition("=")
    if text in DECISIONS:
        return text
    if kind not in KINDS:
        names = ", ".join([*DECISIONS, *(f"{kind}=0.9" for kind in KINDS)])
        raise argparse.ArgumentTypeError(f"must be one of {names}, not {text!r}")
    try:
        target = float(value)
    except ValueError:
        target = None
    if target not in TARGETS:
        values = ", ".join(map(str, TARGETS))
        raise argparse.ArgumentTypeError(f"{kind}= must be one of {values}, not {value!r}")
    return f"{kind}={target:g}"


def is_promise(decide: str) -> bool:
    """Whether a decision rule is one of this module's."""
    return "=" in decide


def split_promise(decide: str) -> tuple[str, float]:
    """The kind and the value of a promise."""
    kind, _, value = decide.partition("=")
    return kind, float(value)


def promises_of(checkpoint: dict) -> dict | None:
    """A checkpoint's thresholds; None if older code trained it, or if no image was held out."""
    return None if checkpoint["selected_on"] == NONE_HELD_OUT else checkpoint.get("promises")


def find_thresholds(promises: dict | None, decide: str, source: str) -> np.ndarray:
    """The thresholds that keep a promise: R, 1 or C float32 values, by its kind.

    promises: see `promises_of`. source: the checkpoint, for errors. Raises UsageError if there are
    none, and if nothing can be promised of any label.
    """
    if not promises:
        raise UsageError(
            f"{source} has no promises: either older code trained it, or no image was held out. "
            f"Train again, with a hold-out, to use --decide {decide}"
        )
    kind, target = split_promise(decide)
    thresholds = np.asarray(promises[kind], np.float32)[TARGETS.index(target)]
    if (thresholds >= NEVER).all():
        raise UsageError(
            f"{decide} cannot be promised of {source}: its hold-out of {promises['num_images']:,} "
            "images is too small, or the model too often wrong; ask for less"
        )
    return thresholds


def say(marginals: np.ndarray, thresholds: np.ndarray, decide: str) -> np.ndarray:
    """The labels that a promise says, N×C bool; marginals N×C."""
    if split_promise(decide)[0] != "precision":
        return marginals >= thresholds
    order, ranked = rank_labels(marginals)
    said = np.zeros(marginals.shape, bool)
    most = len(thresholds)
    np.put_along_axis(said, order[:, :most], ranked[:, :most] >= thresholds, axis=1)
    return said


def rank_labels(marginals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's labels, N×C, the most probable first, and their probabilities, N×C.

    Of equally probable labels the more frequent one (the lower column) is first.
    """
    order = np.argsort(-marginals, axis=1, kind="stable")
    return order, np.take_along_axis(marginals, order, axis=1)
