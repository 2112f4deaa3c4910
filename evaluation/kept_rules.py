"""Annotations that break rules, and what the rules say of the annotated sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inference.predictions import Predictions
from inference.rules import LabelRules


def rule_results(p: Predictions, rules: LabelRules, file_names: Sequence[str]) -> dict:
    """What --rules adds.

    broken: for each rule the images whose annotations break it, whatever the unknown labels are.
    set_nll and set_nll_without: with and without the rules, of the images that keep them and have
    no unknown label, in nats (nan if there is none); those that break a rule have probability 0
    given the rules. probability_kept: P(rules are kept | image), estimated, of the median and of
    the lowest image.
    """
    facts = _facts(p.targets, p.known)
    keeps = rules.feasible(facts)
    complete = keeps & facts.all(1)
    without = p.set_nll[complete].astype(np.float64)
    given = without + p.log_kept[complete]
    return {
        "broken": [
            {"rule": text, "images": [file_names[i] for i in np.flatnonzero(broken)]}
            for text, _, _, broken in _broken(rules, facts)
        ],
        "images_kept": int(keeps.sum()),
        "probability_kept": np.exp(np.quantile(p.log_kept.astype(np.float64), [0.5, 0])).tolist(),
        "set_nll": float(given.mean()) if complete.any() else np.nan,
        "set_nll_without": float(without.mean()) if complete.any() else np.nan,
    }


def _facts(targets: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """N×C: 1 and -1 for labels that are known to be on the image or not, 0 for unknown ones."""
    return np.where(targets, np.int8(1), np.int8(-1)) * (1 if known is None else known)


def _broken(
    rules: LabelRules, facts: np.ndarray
) -> Iterator[tuple[str, Sequence[int], LabelRules, np.ndarray]]:
    """Each rule, its labels, it without the others, and the images N bool whose facts break it.

    With unknown labels an image may keep each rule, but not all: these are the last entry.
    """
    rest = ~rules.feasible(facts)
    for rule in rules.rules:
        alone = LabelRules([rule], rules.num_labels)
        broken = ~alone.feasible(facts)
        rest &= ~broken
        yield rule.text, rule.labels, alone, broken
    if rest.any():
        yield "the rules together", rules.involved, rules, rest


def breaking_labels(
    doubts: np.ndarray, targets: np.ndarray, rules: LabelRules, known: np.ndarray | None = None
) -> np.ndarray:
    """Of the labels in each rule that an image breaks, the most doubtful one that can fix it: N×C.

    doubts: N×C, as from `analysis.suspicions`. A label can if its rule is kept without it, or with
    it. No single label may be enough; then it is the most doubtful of all in the rule. known: N×C
    bool, see metrics.py; an unknown label fixes nothing.
    """
    facts = _facts(targets, known)
    found = np.zeros(targets.shape, bool)
    for _, labels, alone, broken in _broken(rules, facts):
        members = list(labels)
        for image in np.flatnonzero(broken):
            flipped = np.repeat(facts[image : image + 1], len(members), 0)
            flipped[np.arange(len(members)), members] *= -1
            fixes = alone.feasible(flipped)
            fixes |= (facts[image, members] != 0) & ~fixes.any()
            best = np.where(fixes, doubts[image, members], -np.inf).argmax()
            found[image, members[best]] = True
    return found
