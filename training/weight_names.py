"""Which tensors of a file are the encoder's, by their names: see `match`.

These names fit:

- the encoder's own, which are torchvision's or timm's
- the same after a prefix, such as `module.` or `encoder.`
- those that timm itself converts, for example from another image size
- those of the package efficientnet-pytorch, for timm's tf_efficientnets (`_blocks.3._expand_conv`):
  both are TensorFlow's networks
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

COUNTER = "num_batches_tracked"  # of BatchNorm
# efficientnet-pytorch's names of layers and timm's
EFFICIENTNET = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **SQUEEZE,
}
FIRST_BLOCK = {  # has no expansion
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **SQUEEZE,
}


def own_tensors(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's state dict, under the names of torchvision or timm."""
    return getattr(encoder, "net", encoder).state_dict()


def find_missing(encoder: nn.Module, fitting: Mapping[str, Tensor]) -> list[str]:
    """The names of the encoder's tensors that `fitting` lacks.

    Files of old torch versions lack the counters of BatchNorm, which change nothing: they do not
    count as missing.
    """
    return [
        name
        for name in own_tensors(encoder)
        if name not in fitting and name.replace(COUNTER, "running_mean") not in fitting
    ]


def match(encoder: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` that the encoder has, under its own names.

    Raises ValueError with the first misfit if there are none, or if `state` is of another network:
    shapes differ, or it has more tensors in the same parts.
    """
    net, own = getattr(encoder, "net", encoder), own_tensors(encoder)
    reason = ""
    for named in readings(net, own, state):
        misfit = find_misfit(net, own, named)
        if not misfit:
            return {name: tensor for name, tensor in named.items() if name in own}
        reason = reason or misfit
    raise ValueError(reason)


def readings(
    net: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Iterator[Mapping[str, Tensor]]:
    """`state` under names that the encoder may have, the likeliest first. Raises ValueError."""
    stripped = strip_prefix(state, own)
    yield stripped
    is_tf = getattr(net, "pretrained_cfg", {}).get("architecture", "").startswith("tf_")
    if is_tf and any(name.startswith("_blocks.") for name in state):
        yield rename_efficientnet(state, own)
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)  # of timm
    if convert:
        try:
            yield convert(dict(stripped), net)
        except Exception:  # it was made for other tensors
            return


def strip_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of `state` with the prefix after which most names are the encoder's.

    A prefix counts if most of the encoder's names follow it, or most names of the file have it.
    Raises ValueError if two prefixes are equally good, as in a file with a teacher and a student.
    """
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".", 5)
        ends = [".".join(parts[n:]) for n in range(len(parts))]
        found.update(name.removesuffix(end) for end in ends if end in own)
    (best, number), *others = [*found.most_common(2), ("", 0)]
    if 2 * number < min(len(own), len(state)):
        return dict(state)
    if others[0][1] == number:
        raise ValueError(f"it holds two networks, {best[:60]!r} and {others[0][0][:60]!r}")
    return {k.removeprefix(best): tensor for k, tensor in state.items() if k.startswith(best)}


def rename_efficientnet(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors under efficientnet-pytorch's names -> under timm's names.

    That package counts blocks through the network (`_blocks.3`), timm within each stage
    (`blocks.2.0`).
    """
    blocks = [*dict.fromkeys(m[0] for name in own if (m := re.match(r"blocks\.\d+\.\d+", name)))]
    renamed = {}
    for name, tensor in state.items():
        *block, layer, end = name.split(".")
        table, start = EFFICIENTNET, ""
        if len(block) == 2 and block[1].isdecimal() and int(block[1]) < len(blocks):
            is_first = f"_blocks.{block[1]}._expand_conv.weight" not in state
            table, start = (FIRST_BLOCK if is_first else BLOCK), blocks[int(block[1])] + "."
        renamed[f"{start}{table.get(layer, layer)}.{end}"] = tensor
    return renamed


def find_misfit(
    net: nn.Module, own: Mapping[str, Tensor], named: Mapping[str, Tensor]
) -> str | None:
    """Why these tensors are not the encoder's; None if they are, or are a part of them."""
    if not any(name in own for name in named):
        return "none of its tensors has the name of an encoder tensor"
    classifier = getattr(net, "pretrained_cfg", {}).get("classifier") or "fc"
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    parts = {name.split(".")[0] for name in own}
    for name, tensor in named.items():
        if name in own and tensor.shape != own[name].shape:
            there, here = (str(tuple(t.shape))[:60] for t in (tensor, own[name]))
            return f"{name} has shape {there}, the encoder's has {here}"
        is_classifier = name.startswith(tuple(f"{c}." for c in classifiers))
        if name not in own and name.split(".")[0] in parts and not is_classifier:
            return f"it has {name[:60]}, which the encoder lacks"
    return None
