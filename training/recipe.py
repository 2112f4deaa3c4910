"""How to train, by the encoder and where its weights come from: defaults of train.py's flags.

benchmarks/quality/recipe.py compares them with others, on hold-outs.
"""

from __future__ import annotations

from collections.abc import Mapping

RANDOM = {
    "num_epochs": 10,
    "learning_rate": 2e-3,
    "layer_decay": 1.0,
    "start_decay": 0.0,
    "augmentation": "light",
}
PRETRAINED = {**RANDOM, "start_decay": 6.0}
PRETRAINED_RESNET = {**PRETRAINED, "learning_rate": 1e-3}
STARTS = ("pretrained", "weights", "start_from")  # flags that give the encoder trained weights


def recipe_for(flags: Mapping[str, object]) -> dict[str, object]:
    """The defaults for this encoder and its start, as train.py's flags say them."""
    if not any(flags.get(name) for name in STARTS):
        return RANDOM
    return PRETRAINED_RESNET if str(flags["arch"]).startswith("resnet") else PRETRAINED


def fill_in(flags: dict[str, object]) -> None:
    """Give the flags of train.py that are None their defaults, in place."""
    for name, value in recipe_for(flags).items():
        if flags[name] is None:
            flags[name] = value


def describe_default(name: str) -> str:
    """The default of a flag, for its help text."""
    random, pretrained, resnet = (r[name] for r in (RANDOM, PRETRAINED, PRETRAINED_RESNET))
    text = f"default: {random}"
    if pretrained != random:
        text += f"; {pretrained} from trained weights"
    if resnet != pretrained:
        text += f"; {resnet} for a ResNet from trained weights"
    return text
