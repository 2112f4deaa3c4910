"""A checkpoint without pickle: its tensors as safetensors, everything else as JSON.

    model.safetensors   the state dict, under PyTorch's names
    config.json         all other parts of the checkpoint (see inference/checkpoint.py)

Any language can read both (https://huggingface.co/docs/safetensors). To get the checkpoint back:

    from inference.checkpoint import restore, save_checkpoint
    from deploy.safetensors_io import load_export

    checkpoint = load_export(folder)               # what load_checkpoint returns
    model, vocabulary, preprocessing = restore(checkpoint, folder)
    save_checkpoint(checkpoint, Path("best.pt"))   # for evaluate.py and sample.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from inference.checkpoint import FORMAT_VERSION, PARTS
from inference.checkpoint_checks import check_parts
from util.errors import UsageError
from util.files import without_nan, write_whole
from util.reading import check_ordinary, read_json

TENSORS, CONFIG = "model.safetensors", "config.json"
LEFT_OUT = ("weights", "training")  # "training" is needed only to resume a run


def save_export(checkpoint: dict, folder: Path) -> None:
    """Write both files, each in one step. Raises RunError if they cannot be written."""
    # safetensors has no channels_last memory format, which the filters here are in
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint["weights"].items()}
    config = {k: v for k, v in checkpoint.items() if k not in LEFT_OUT}
    if config.get("promises"):  # has tensors
        config["promises"] = {
            kind: rows.tolist() if isinstance(rows, Tensor) else rows
            for kind, rows in config["promises"].items()
        }
    text = json.dumps(without_nan(config), indent=1, ensure_ascii=False) + "\n"
    data = text.encode("utf-8", "surrogateescape")  # a path may contain bytes that are not text
    write_whole(folder / TENSORS, save(tensors, {"format": "pt"}))
    write_whole(folder / CONFIG, data)


def may_replace(folder: Path) -> bool:
    """Whether the folder has no config.json but one of `save_export`."""
    try:
        return read_json(folder / CONFIG).get("format") == FORMAT_VERSION
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError, UsageError, AttributeError):
        return False


def load_export(folder: str | Path) -> dict:
    """Read both files as a checkpoint; tensors are equal to the bit.

    Raises UsageError if a file is missing, damaged or not from export.py.
    """
    folder = Path(folder)
    try:
        config = read_json(folder / CONFIG)
        check_ordinary(folder / TENSORS)
        tensors = load_file(folder / TENSORS)
    except MemoryError:  # the file is mapped, whatever its size
        raise UsageError(f"{folder / TENSORS} is larger than the free memory") from None
    except OSError as error:
        raise UsageError(
            f"cannot read the weights in {folder} ({error.strerror or error})"
        ) from None
    except (ValueError, KeyError, SafetensorError):  # KeyError: a type that torch lacks
        raise UsageError(f"{folder} has a damaged {CONFIG} or {TENSORS}: export again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT_VERSION:
        raise UsageError(f"{folder / CONFIG} was not written by export.py")
    checkpoint = {**config, "weights": tensors}
    if missing := [part for part in PARTS if part not in checkpoint]:
        raise UsageError(f"{folder / CONFIG} is damaged: it lacks {', '.join(missing)}")
    try:
        check_parts(checkpoint)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{folder} is damaged: {error}") from None
    if checkpoint.get("promises"):
        try:
            checkpoint["promises"] = {
                kind: torch.tensor(rows) if isinstance(rows, list) else rows
                for kind, rows in checkpoint["promises"].items()
            }
        except (AttributeError, TypeError, ValueError, RuntimeError):
            raise UsageError(f"{folder / CONFIG} is damaged: its promises are no numbers") from None
    return checkpoint
