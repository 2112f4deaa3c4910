"""A checkpoint without pickle: its tensors as safetensors, all else as JSON.

    model.safetensors   the state dict, tensor by tensor, under PyTorch's names
    config.json         every other part of the checkpoint (see checkpoint.py)

Both are read by any language (https://huggingface.co/docs/safetensors). The way back, in Python:

    from inference.checkpoint import restore, save_checkpoint
    from deploy.safetensors_io import load_export

    checkpoint = load_export(folder)                       # as load_checkpoint would give it
    model, vocabulary, preprocessing = restore(checkpoint, folder)
    save_checkpoint(checkpoint, Path("best.pt"))            # for evaluate.py and sample.py
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from inference.checkpoint import FORMAT_VERSION, PARTS, add_defaults
from util.errors import UsageError
from util.files import without_nan, write_atomically

TENSORS, CONFIG = "model.safetensors", "config.json"
LEFT_OUT = ("weights", "training")  # what continues a run is of no use elsewhere


def save_export(checkpoint: dict, folder: Path) -> None:
    """Write both files, each in one step. Raises RunError."""
    # safetensors knows one memory format, the filters here are channels_last
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint["weights"].items()}
    config = {k: v for k, v in checkpoint.items() if k not in LEFT_OUT}
    text = json.dumps(without_nan(config), indent=1, ensure_ascii=False) + "\n"
    data = text.encode("utf-8", "surrogateescape")  # a path may hold bytes that are no text
    write_atomically(folder / TENSORS, lambda t: t.write_bytes(save(tensors, {"format": "pt"})))
    write_atomically(folder / CONFIG, lambda t: t.write_bytes(data))


def load_export(folder: Path) -> dict:
    """Read them back as a checkpoint, its tensors equal to the bit. Raises UsageError."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        tensors = load_file(folder / TENSORS)
    except OSError as error:
        raise UsageError(
            f"cannot read the weights in {folder} ({error.strerror or error})"
        ) from None
    except (ValueError, SafetensorError):
        raise UsageError(f"{folder} holds a damaged {CONFIG} or {TENSORS}: export again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT_VERSION:
        raise UsageError(f"{folder / CONFIG} is not one that export.py wrote")
    checkpoint = {**config, "weights": tensors}
    if missing := [part for part in PARTS if part not in checkpoint]:
        raise UsageError(f"{folder / CONFIG} is damaged: it lacks {', '.join(missing)}")
    add_defaults(checkpoint)
    return checkpoint
