"""What a checkpoint from a stranger must be, so that nothing it says costs more than its own size.

`torch.load(weights_only=True)` runs no code, but takes any sizes and types. Everything here
raises ValueError, with the reason.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from model import ARCHS, DECODERS, HybridNet

PATH_FLAGS = ("image_path", "annotations", "val_image_path", "val_annotations")


def check_archive(path: Path) -> None:
    """A zip as torch writes it, nothing compressed: what it unpacks to is no larger than itself."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("a record is compressed")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise ValueError("its records are larger than itself")


def check_parts(checkpoint: dict) -> None:
    """Types and ranges of every part but the vocabulary and the preprocessing, which check theirs.

    Tensors must lie in memory once: one number can stand for a tensor of any size.
    """
    settings, weights, flags = (checkpoint[k] for k in ("model", "weights", "flags"))
    good = {
        "model": isinstance(settings, dict)
        and set(settings) <= {"arch", "decoder", "embed_size", "hidden_size", "freeze_encoder"}
        and {"arch", "decoder"} <= set(settings)
        and settings["arch"] in ARCHS
        and settings["decoder"] in DECODERS
        and all(_is_size(settings.get(k, 1)) for k in ("embed_size", "hidden_size"))
        and type(settings.get("freeze_encoder", False)) is bool,
        "weights": isinstance(weights, dict)
        and all(type(k) is str and _is_whole(v) for k, v in weights.items()),
        "threshold": type(checkpoint["threshold"]) in (int, float)
        and math.isfinite(checkpoint["threshold"]),
        "epoch": type(checkpoint["epoch"]) is int,
        "selected_on": type(checkpoint["selected_on"]) is str,
        "flags": isinstance(flags, dict)
        and all(type(k) is str for k in flags)
        and all(map(_is_plain, _flat(flags.values())))
        and all(type(flags.get(k)) in (str, type(None)) for k in PATH_FLAGS)
        and not (flags.get("val_annotations") and not flags.get("val_image_path")),
    }
    if wrong := [part for part, is_good in good.items() if not is_good]:
        raise ValueError(f"wrong values in {', '.join(wrong)}")


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= 2**16


def _flat(values: Iterable) -> list:
    """With the members of lists, of flags that take several values, in their place."""
    return [v for value in values for v in (value if type(value) is list else [value])]


def _is_plain(value: object) -> bool:
    return type(value) in (bool, int, float, type(None)) or (
        type(value) is str and "\0" not in value
    )


def _is_whole(tensor: object) -> bool:
    """A finite tensor each of whose numbers has a place in memory."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        and bool(torch.isfinite(tensor).all())
    )


def check_fit(settings: dict, num_labels: int, weights: dict[str, torch.Tensor]) -> None:
    """Names and shapes are those of the model with these settings, which is not built for it."""
    with torch.device("meta"):
        expected = HybridNet(num_labels=num_labels, **settings).state_dict()
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in expected.items()}:
        raise ValueError("its weights do not fit its sizes")
