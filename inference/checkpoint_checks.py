"""What a checkpoint from a stranger must be, so that nothing it says costs more than its own size.

`torch.load(weights_only=True)` runs no code, but takes any sizes and types. Everything here
raises ValueError, with the reason.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from model import ARCHS, DECODERS, NUM_STAGES, HybridNet

MOST_NAMED = 32  # 3**10 steps at worst
# of a model: with others the weights would not fit
SETTINGS = {"arch", "decoder", "embed_size", "hidden_size", "freeze_encoder", "stages"}
PATH_FLAGS = ("image_path", "annotations", "val_image_path", "val_annotations")


def check_archive(path: Path) -> None:
    """A zip as torch writes it, nothing compressed: what it unpacks to is no larger than itself."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("a record is compressed")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are larger than itself")
        if len({record.filename for record in records}) < len(records):
            raise ValueError("two of its records have one name")
        if archive.testzip():  # torch itself does not look at the checksums
            raise ValueError("a record is not as it was written")
        for record in records:
            if record.filename.endswith(".pkl"):
                check_pickle(archive.read(record))


def check_pickle(data: bytes) -> None:
    """Tuples are hardly ever named again: of tuples of the same tuples no end of hashing comes.

    (Each level doubles the work, and 400 bytes have 90 levels.) What torch.save writes names a
    few, such as Adam's betas. Only what stands on top of the stack is put into the memo.
    """
    tuples: set[int] = set()  # places in the memo
    named, is_tuple = 0, False
    for opcode, place, _ in pickletools.genops(data):
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            (tuples.add if is_tuple else tuples.discard)(place)
            continue
        again = opcode.name in ("BINGET", "LONG_BINGET") and place in tuples
        is_tuple = again or "TUPLE" in opcode.name
        named += again
    if named > MOST_NAMED:
        raise ValueError("its tuples are nested to no end")


def check_parts(checkpoint: dict) -> None:
    """Types and ranges of every part but the vocabulary and the preprocessing, which check theirs.

    Tensors must lie in memory once: one number can stand for a tensor of any size.
    """
    settings, weights, flags = (checkpoint[k] for k in ("model", "weights", "flags"))
    good = {
        "model": isinstance(settings, dict)
        and set(settings) <= SETTINGS
        and {"arch", "decoder"} <= set(settings)
        and settings["arch"] in ARCHS
        and settings["decoder"] in DECODERS
        and all(_is_size(settings.get(k, 1)) for k in ("embed_size", "hidden_size"))
        and type(settings.get("freeze_encoder", False)) is bool
        and type(settings.get("stages", 1)) is int
        and 1 <= settings.get("stages", 1) <= NUM_STAGES,
        "weights": isinstance(weights, dict)
        and all(type(k) is str and _is_whole(v) for k, v in weights.items()),
        "temperature": type(checkpoint["temperature"]) in (int, float)
        and 0 < checkpoint["temperature"] < math.inf,
        "prior_weight": _is_number(checkpoint["prior_weight"]),
        "threshold": _is_number(checkpoint["threshold"]),
        "label_thresholds": all(map(_is_number, _flat([checkpoint["label_thresholds"]]))),
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


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


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
