"""Checks of checkpoints from strangers: what `read_torch_file` read has the right types and sizes.

All functions here raise ValueError with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import get_args, get_type_hints

import torch

from inference.promises import KINDS, MOST, TARGETS
from model import HybridNet, settings_of

MAX_INT = 2**16  # of a model's settings
PATH_FLAGS = ("image_path", "annotations", "val_image_path", "val_annotations")


def check_parts(checkpoint: dict) -> None:
    """Types and ranges of all parts but the model's settings, vocabulary and preprocessing.

    A tensor must have a place in memory for each of its numbers: by strides, one number in the
    file can stand for a tensor of any size.
    """
    weights, flags = checkpoint["weights"], checkpoint["flags"]
    held_out = checkpoint.get("held_out")  # older checkpoints lack it
    good = {
        "weights": isinstance(weights, dict)
        and all(type(k) is str and _is_dense(v) for k, v in weights.items()),
        "temperature": _is_number(checkpoint["temperature"]) and checkpoint["temperature"] > 0,
        "prior_weight": _is_number(checkpoint["prior_weight"]),
        "threshold": _is_number(checkpoint["threshold"]),
        "label_thresholds": all(map(_is_number, _flat([checkpoint["label_thresholds"]]))),
        "epoch": type(checkpoint["epoch"]) is int,
        "selected_on": type(checkpoint["selected_on"]) is str,
        "held_out": held_out is None
        or (type(held_out) is list and all(type(name) is str for name in held_out)),
        "flags": isinstance(flags, dict)
        and all(type(k) is str for k in flags)
        and all(map(_is_plain, _flat(flags.values())))
        and all(type(flags.get(k)) in (str, type(None)) for k in PATH_FLAGS)
        and not (flags.get("val_annotations") and not flags.get("val_image_path")),
    }
    if wrong := [part for part, is_good in good.items() if not is_good]:
        raise ValueError(f"wrong values in {', '.join(wrong)}")


def check_settings(settings: object) -> None:
    """Names and types are those of HybridNet's arguments; HybridNet itself checks the values.

    A setting may be missing: code that is older than the argument wrote the checkpoint.
    """
    if not isinstance(settings, dict) or not all(type(name) is str for name in settings):
        raise ValueError("its model has no settings")
    expected, hints = settings_of({}), get_type_hints(HybridNet.__init__)
    if unknown := [name for name in settings if name not in expected]:
        raise ValueError(f"its model has the setting {unknown[0][:40]!r}, which this code lacks")
    if missing := [name for name in ("arch", "decoder") if name not in settings]:
        raise ValueError(f"its model lacks the setting {missing[0]!r}")
    for name, value in settings.items():
        kinds = get_args(hints[name]) or (hints[name],)  # int | None has two
        is_good = type(value) in kinds or (float in kinds and type(value) is int)
        if is_good and type(value) in (int, float):
            is_good = abs(value) <= MAX_INT  # not so for nan
        if not is_good:
            raise ValueError(f"its model's setting {name!r} has a wrong value")


def check_fit(settings: dict, num_labels: int, weights: dict[str, torch.Tensor]) -> None:
    """The weights have the names and shapes of the model, which takes no memory here.

    settings: arguments of HybridNet.
    """
    try:
        with torch.device("meta"):
            expected = HybridNet(num_labels, **settings).state_dict()
    except ValueError as error:
        raise ValueError(f"its model's {error}") from None
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in expected.items()}:
        raise ValueError("its weights do not fit its model")


def check_promises(promises: object, num_labels: int) -> None:
    """They are None or as inference/promises.py describes them."""
    if promises is None:
        return
    columns = {"recall": 1, "precision": min(num_labels, MOST)}
    if (
        not isinstance(promises, dict)
        or set(promises) != {"num_images", *KINDS}
        or type(promises["num_images"]) is not int
        or not all(_is_dense(promises[kind]) for kind in KINDS)
        or any(promises[kind].dtype != torch.float32 for kind in KINDS)
        or any(
            promises[kind].shape != (len(TARGETS), columns.get(kind, num_labels)) for kind in KINDS
        )
    ):
        raise ValueError("its promises have wrong values")


def _is_number(value: object) -> bool:
    """Whether it is finite, also as a float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _flat(values: Iterable) -> list:
    """The values, with the items of each list in its place."""
    return [v for value in values for v in (value if type(value) is list else [value])]


def _is_plain(value: object) -> bool:
    return type(value) in (bool, int, float, type(None)) or (
        type(value) is str and "\0" not in value
    )


def _is_dense(tensor: object) -> bool:
    """Whether it is a finite tensor on the CPU with memory for each of its numbers."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        and bool(torch.isfinite(tensor).all())
    )
