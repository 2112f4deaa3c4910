"""The scenes of the default set: which objects occur together, and how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# A scene is a setting and rules, applied in order. A rule is a probability and labels: "a + b" are
# both drawn, of "a | b" one is, "a*3" means one to three. "at c" applies only if c is in the image,
# and places the labels on it; "with c" only needs c; of "c | d", the first in the image is used.
SCENES = {
    "kitchen": (
        "indoor",
        "0.95 sink",
        "0.75 dining table",
        "0.50 person",
        "0.60 chair*2 with dining table",
        "0.65 bowl + spoon + orange*2 at dining table",
        "0.35 bottle + cup at sink",
        "0.12 cat | dog",
    ),
    "dining room": (
        "indoor",
        "0.97 dining table",
        "0.95 chair*3",
        "0.70 person*2",
        "0.65 fork*2 + knife*2 + spoon*2 at dining table",
        "0.60 cup*2 + bottle at fork",
        "0.10 cat | dog",
    ),
    "living room": (
        "indoor",
        "0.97 couch",
        "0.75 tv",
        "0.75 remote at tv",
        "0.60 person*2",
        "0.50 cat | dog",
        "0.35 cell phone at person",
    ),
    "office": (
        "indoor",
        "0.97 tv | laptop",
        "0.85 mouse + keyboard at tv",
        "0.50 mouse at laptop",
        "0.80 chair",
        "0.75 person",
        "0.65 tie at person",
        "0.40 cell phone at laptop",
    ),
    "bathroom": (
        "indoor",
        "0.97 sink",
        "0.65 toothbrush*2 + cup at sink",
        "0.50 person",
        "0.15 cat",
    ),
    "street": (
        "outdoor",
        "0.97 car*3",
        "0.70 bus | truck",
        "0.70 traffic light*2 with car",
        "0.75 person*3",
        "0.55 handbag at person",
        "0.35 tie + cell phone at person",
    ),
    "farm": (
        "outdoor",
        "0.97 horse*2 | cow*2",
        "0.55 dog with horse",
        "0.65 bird*3 with cow",
        "0.60 person at horse",
        "0.35 truck",
    ),
    "park": (
        "outdoor",
        "0.97 person*3",
        "0.60 sports ball at person",
        "0.60 dog | bird*3",
        "0.40 umbrella + handbag at person",
    ),
    "slope": (
        "outdoor",
        "0.97 person*3",
        "0.85 skis*2 at person",
        "0.20 dog",
        "0.20 bird*2",
    ),
}
EMPTY_CHANCE = 0.02  # images without any label

# limits of the longest side, as a share of the image's; labels that define a scene are large
SMALL = (0.12, 0.28)
# the same for given label sets: of the most and the least frequent label
FREQUENT, RARE = (0.35, 0.85), (0.14, 0.30)
SIZES = {
    (0.50, 0.95): "person, dining table, couch, bus, truck, horse, cow, sink, tv",
    (0.36, 0.70): "car, chair, laptop, cat, dog, umbrella, skis, bowl",
    SMALL: "traffic light, bird, handbag, tie, sports ball, bottle, cup, fork, knife, spoon,"
    " orange, mouse, remote, keyboard, cell phone, toothbrush",
}

Sizes = dict[str, tuple[float, float]]  # label -> limits of the size


@dataclass(frozen=True)
class Thing:
    """One object to draw: `size` is a share of the image's side, `anchor` the label it is on."""

    name: str
    size: float
    anchor: str | None = None


def log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A random number between the limits, uniform on a logarithmic scale."""
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


def default_sizes() -> Sizes:
    """The table SIZES, by label."""
    return {name: limits for limits, names in SIZES.items() for name in names.split(", ")}


def sample_things(rules: tuple[str, ...], sizes: Sizes, rng: np.random.Generator) -> list[Thing]:
    """Apply the rules of a scene in order. Returns the objects to draw."""
    things: list[Thing] = []
    for rule in rules:
        chance, labels = rule.split(" ", 1)
        labels, _, hosts = labels.replace(" with ", " at ").partition(" at ")
        present = {thing.name for thing in things}
        found = [host for host in hosts.split(" | ") if host in present]
        if rng.random() >= float(chance) or (hosts and not found):
            continue
        terms = labels.split(" + ") if "+" in labels else [rng.choice(labels.split(" | "))]
        for term in terms:
            name, _, most = term.partition("*")
            for _ in range(rng.integers(1, int(most or 1) + 1)):
                anchor = found[0] if " at " in rule else None
                things.append(Thing(name, log_uniform(sizes[name], rng), anchor))
    return things
