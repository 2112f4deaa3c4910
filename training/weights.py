"""The encoder's first weights from a file: `train.py --weights FILE`.

The file is one of torch.save or a .safetensors file: a state dict, perhaps inside a dictionary with
other things, or a checkpoint of train.py. What fits by name (training/weight_names.py) is copied, a
classifier is ignored, and what is missing starts at random.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from encoder import ARCHS, build_encoder, import_timm, is_noncommercial, weights_licence
from inference.checkpoint import is_checkpoint
from inference.torch_file import BadFileError, read_torch_file
from training.weight_names import find_missing, match, own_tensors
from util.errors import UsageError
from util.log import counted, log, some
from util.reading import is_ordinary

# of dictionaries that hold a state dict; averaged weights first, as timm does
PARTS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
MAX_DEPTH = 4  # of a dictionary in a dictionary; one may hold itself
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
LITE0 = "tf_efficientnet_lite0"


def load_weights_file(encoder: nn.Module, arch: str, path: Path) -> None:
    """Copy the tensors of a file that have the encoder's names; log what it has and what it lacks.

    arch: the encoder's name. Raises UsageError if the file cannot be read or does not fit.
    """
    try:
        content = read_weights(path)
        state, part = find_state(content)
    except OSError as error:
        raise UsageError(f"cannot read --weights {path} ({error.strerror or error})") from None
    except ValueError as error:
        raise UsageError(f"cannot read --weights {path}: {error}") from None
    fitting, reason = {}, ""
    try:
        fitting = match(encoder, state)
    except ValueError as error:
        reason = str(error)
    missing = find_missing(encoder, fitting)
    if missing and (other := fitting_arch(state, candidates(arch, content, path))):
        raise UsageError(f"--weights {path} is of {other}, not of {arch}: give --arch {other}")
    if reason:
        raise UsageError(f"--weights {path} does not fit --arch {arch}: {reason}")
    try:
        check_values(fitting, own_tensors(encoder))
    except ValueError as error:
        raise UsageError(f"--weights {path}: {error}") from None
    getattr(encoder, "net", encoder).load_state_dict(fitting, strict=False)  # converts to float32
    log_loaded(fitting, missing, f"{path} ({part})" if part else str(path))
    if is_checkpoint(content):
        log(
            f"WARNING: if {path} was trained on images of this data set, some of them may be held "
            "out now, and the validation metrics too good: --start_from holds out the same images"
        )


def log_licence(arch: str) -> None:
    """Say under which licence the weights are that --pretrained fetched."""
    licence = weights_licence(arch)
    owner = "torchvision" if arch in ARCHS else "timm"
    log(
        f"weights of {arch}: " + (f"licence {licence}" if licence else f"{owner} states no licence")
    )
    if licence and is_noncommercial(licence):
        log(f"WARNING: the licence {licence} forbids commercial use of these weights")


def log_loaded(fitting: Mapping[str, Tensor], missing: list[str], source: str) -> None:
    """Say how many tensors were copied, and which parts of the encoder start at random."""
    total = len(fitting) + len(missing)
    if not missing:
        log(f"encoder: all {total} tensors from {source}")
        return
    known = {".".join(name.split(".")[:n]) for name in fitting for n in range(1, 9)}
    groups: Counter[str] = Counter()  # by the shortest start of a name that no tensor here has
    for name in missing:
        starts = [".".join(name.split(".")[:n]) for n in range(1, 9)]
        groups[next((start for start in starts if start not in known), name)] += 1
    random = some([f"{start} ({counted(n, 'tensor')})" for start, n in groups.items()])
    log(f"encoder: {len(fitting)} of {total} tensors from {source}; at random: {random}")
    if 2 * len(fitting) < total:
        log("WARNING: less than half of the encoder's tensors are in this file")


def read_weights(path: Path) -> object:
    """The content of a file of torch.save or of safetensors. Raises OSError, ValueError."""
    try:
        return read_torch_file(path)
    except BadFileError:
        if not is_ordinary(path) or path.suffix != ".safetensors":
            raise
    try:
        return load_file(path)
    except (SafetensorError, KeyError):  # KeyError: a type of numbers that torch lacks
        raise ValueError("it is not a .safetensors file, or damaged") from None
    except MemoryError:  # the file is mapped, whatever its size
        raise ValueError("it is larger than the free memory") from None


def find_state(content: object) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file's content, and which part of the file that is; "" for all of it.

    Raises ValueError if there is none.
    """
    part, state = "", {}
    if is_checkpoint(content):
        content, part = content.get("weights"), "its averaged weights"
    for _ in range(MAX_DEPTH):
        if not isinstance(content, dict):
            break
        state = {k: v for k, v in content.items() if type(k) is str and isinstance(v, Tensor)}
        inner = next((name for name in PARTS if isinstance(content.get(name), dict)), None)
        if state or inner is None:
            break
        content, part = content[inner], f"its {inner}"
    if not state:
        raise ValueError(
            "it holds no state dict of tensors; if it is a whole model, save model.state_dict()"
        )
    return state, part


def candidates(arch: str, content: object, path: Path) -> list[str]:
    """Other encoders that the file may be of: what a checkpoint says, or the file's name."""
    names = [*ARCHS, LITE0]
    if is_checkpoint(content) and isinstance(content.get("model"), dict):
        names.insert(0, content["model"].get("arch"))
    try:
        known = import_timm(arch).list_models()
    except ValueError:  # timm is not installed
        known = []
    else:
        names += sorted((name for name in known if name in str(path)), key=len)[:-4:-1]
    return [name for name in names if name != arch and (name in ARCHS or name in known)]


def fitting_arch(state: Mapping[str, Tensor], names: list[str]) -> str | None:
    """The first of these encoders all of whose tensors are in `state`."""
    for name in names:
        try:
            encoder = empty_encoder(name)
            if not find_missing(encoder, match(encoder, state)):
                return name
        except ValueError:
            continue
    return None


@functools.cache
def empty_encoder(arch: str) -> nn.Module:
    """The encoder without numbers, which takes no memory."""
    with torch.device("meta"):
        return build_encoder(arch)


def check_values(fitting: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Weights are finite floating-point numbers, counters whole numbers. Raises ValueError."""
    for name, tensor in fitting.items():
        is_float = own[name].is_floating_point()
        if tensor.dtype not in (FLOATS if is_float else WHOLE):
            kind = "floating-point" if is_float else "whole"
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name} has the type {dtype}, not {kind} numbers")
        if not torch.isfinite(tensor.to(own[name].dtype)).all():
            raise ValueError(f"{name} has values that are not finite")
