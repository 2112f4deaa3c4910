"""Annotations that break rules, and what the rules say of the annotated sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference.predictions import Predictions
from inference.rules import LabelRules


def rule_results(p: Predictions, rules: LabelRules, file_names: Sequence[str]) -> dict:
    """What --rules adds.

    broken: for each rule the images whose annotations break it. set_nll and set_nll_without: with
    and without the rules, of the images that keep them, in nats (nan if there is none); the others
    have probability 0 given the rules. probability_kept: P(rules are kept | image), estimated, of
    the median and of the lowest image.
    """
    keeps = rules.keeps(p.targets)
    without = p.set_nll[keeps].astype(np.float64)
    given = without + p.log_kept[keeps]
    return {
        "broken": [
            {
                "rule": rule.text,
                "images": [file_names[i] for i in np.flatnonzero(rule.is_broken(p.targets))],
            }
            for rule in rules.rules
        ],
        "images_kept": int(keeps.sum()),
        "probability_kept": np.exp(np.quantile(p.log_kept.astype(np.float64), [0.5, 0])).tolist(),
        "set_nll": float(given.mean()) if keeps.any() else np.nan,
        "set_nll_without": float(without.mean()) if keeps.any() else np.nan,
    }


def breaking_labels(doubts: np.ndarray, targets: np.ndarray, rules: LabelRules) -> np.ndarray:
    """Of the labels in each rule that an image breaks, the most doubtful one that can fix it: N×C.

    doubts: N×C, as from `analysis.suspicions`. A label can if its rule is kept without it, or with
    it. No single label may be enough; then it is the most doubtful of all in the rule.
    """
    found = np.zeros(targets.shape, bool)
    for rule in rules.rules:
        members = list(rule.labels)
        for image in np.flatnonzero(rule.is_broken(targets)):
            flipped = np.repeat(targets[image : image + 1], len(members), 0)
            flipped[np.arange(len(members)), members] ^= True
            fixes = ~rule.is_broken(flipped)
            fixes |= not fixes.any()
            best = np.where(fixes, doubts[image, members], -np.inf).argmax()
            found[image, members[best]] = True
    return found
