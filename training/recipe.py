"""How to train, by where the encoder's weights come from: defaults of train.py's flags.

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
STARTS = ("pretrained", "weights", "start_from")  # flags that give the encoder trained weights


def recipe_for(flags: Mapping[str, object]) -> dict[str, object]:
    """The defaults for a start at random or at trained weights, as train.py's flags say it."""
    return PRETRAINED if any(flags.get(name) for name in STARTS) else RANDOM


def fill_in(flags: dict[str, object]) -> None:
    """Give the flags of train.py that are None their defaults, in place."""
    for name, value in recipe_for(flags).items():
        if flags[name] is None:
            flags[name] = value


def describe_default(name: str) -> str:
    """The default of a flag, for its help text."""
    random, pretrained = RANDOM[name], PRETRAINED[name]
    if random == pretrained:
        return f"default: {random}"
    return f"default: {random}; {pretrained} from trained weights"
