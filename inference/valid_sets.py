"""Predicted sets that keep rules: the best of all sets that do, by branch and bound.

A decision rule asks for the set with the highest score. Without rules that set is easy to find. If
it breaks a rule, one of the literals that conflict must give way: the search tries each of them,
with all that it implies. The best set of a branch, found without the other rules, bounds the
branch. So few branches are visited, and the result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from inference.rules import LabelRules

# C values (1 on the image, -1 not, 0 free) -> the best set C bool of those, and its score
Relaxed = Callable[[np.ndarray], tuple[float, np.ndarray]]

SURE = 1e6  # a gain that outweighs all others


def nearest_valid_sets(
    gains: np.ndarray, rules: LabelRules, known: np.ndarray | None = None
) -> np.ndarray:
    """The sets that keep the rules and have the highest sum of gains: N×C -> N×C bool.

    gains: P(label | image) - threshold. If wrongly predicting a label costs t and wrongly leaving
    it out costs 1 - t, then P - t is what predicting the label saves on average. So a threshold is
    the decision of lowest expected cost, and this is the decision of lowest expected cost among the
    sets that keep the rules. It is the thresholded set itself wherever that keeps them.
    known: N×C as in `sample_label_sets`; the sets agree with it, if sets with the rules can.
    """
    if known is not None:
        gains = gains + SURE * known
    sets = gains >= 0
    for row in np.flatnonzero(~rules.keeps(sets)):
        sets[row] = _best_valid(rules, lambda fixed, g=gains[row]: _highest_sum(g, fixed))
    return sets


def _highest_sum(gains: np.ndarray, fixed: np.ndarray) -> tuple[float, np.ndarray]:
    """The set with the highest sum of gains C, where `fixed` C is -1, 0 or 1."""
    chosen = np.where(fixed == 0, gains >= 0, fixed > 0)
    return float(gains[chosen].sum()), chosen


def valid_f1_sets(
    f1_sets: Tensor, label_sets: Tensor, weights: Tensor, rules: LabelRules
) -> Tensor:
    """The sets that keep the rules and have the highest expected F1: B×C bool.

    f1_sets: B×C bool, the best of all sets, see `decoding.expected_f1_sets`; label_sets and weights
    as there. Among the sets with m labels, expected F1 is a sum over their labels.
    """
    found = f1_sets.clone()
    keeps = rules.keeps(f1_sets.cpu().numpy())
    for row in np.flatnonzero(~keeps):
        sets, w = label_sets[row].double().cpu(), weights[row].double().cpu()
        best = _best_f1(rules, sets.numpy(), w.numpy())
        found[row] = torch.from_numpy(best).to(found.device)
    return found


def _best_f1(rules: LabelRules, label_sets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`valid_f1_sets` for one image: K×C and K -> C bool."""
    sizes, num_labels = label_sets.sum(1), label_sets.shape[1]
    m = np.arange(num_labels + 1)
    share = 2 * weights[:, None] / np.maximum(sizes[:, None] + m, 1)  # K×M
    per_label = label_sets.T @ share  # C×M
    bounds = -np.sort(-per_label, 0).cumsum(0)[np.maximum(m - 1, 0), m]  # of the sets of each size
    bounds[0] = weights[sizes == 0].sum()
    best, score = np.zeros(num_labels, bool), -np.inf
    for size in np.argsort(-bounds, kind="stable"):
        if bounds[size] <= score:
            break
        found = _best_valid(
            rules,
            lambda fixed, size=size: _best_of_size(per_label[:, size], size, bounds[0], fixed),
            score,
        )
        if found is not None:
            best = found
            score = per_label[best, size].sum() if size else bounds[0]
    return best


def _best_of_size(
    per_label: np.ndarray, size: int, empty: float, fixed: np.ndarray
) -> tuple[float, np.ndarray]:
    """The set of `size` labels with the highest sum; -inf if `fixed` allows none."""
    chosen = fixed > 0
    more = size - int(chosen.sum())
    free = np.flatnonzero(fixed == 0)
    if not 0 <= more <= len(free):
        return -np.inf, chosen
    if more:
        chosen[free[np.argsort(-per_label[free], kind="stable")[:more]]] = True
    return (float(per_label[chosen].sum()) if size else empty), chosen


def _best_valid(
    rules: LabelRules, relaxed: Relaxed, at_least: float = -np.inf
) -> np.ndarray | None:
    """The best set C bool that keeps the rules; None if none has a score above `at_least`."""
    best, found = at_least, None
    stack = [np.zeros(2 * len(rules.involved), bool)]
    while stack:
        literals = stack.pop()
        score, chosen = relaxed(_as_values(rules, literals))
        if score <= best:
            continue
        branches = _branches(rules, literals, chosen[rules.involved])
        if branches is None:
            best, found = score, chosen
        else:
            stack += branches
    return found


def _as_values(rules: LabelRules, literals: np.ndarray) -> np.ndarray:
    """L literals that are fixed -> C values, -1, 0 or 1."""
    size = len(rules.involved)
    values = np.zeros(rules.num_labels, np.int8)
    values[rules.involved] = literals[:size].astype(np.int8) - literals[size:]
    return values


def _branches(
    rules: LabelRules, literals: np.ndarray, chosen: np.ndarray
) -> list[np.ndarray] | None:
    """Ways to fix more literals, of which every valid set takes one; None if `chosen` is valid.

    literals: L, those fixed. chosen: R bool. The last branch is the one to try first.
    """
    size = len(chosen)
    wanted = np.concatenate([chosen, ~chosen])
    clash = (rules.conflict & wanted).any(1) & wanted & ~literals  # L
    if clash.any():
        literal = int(np.argmax(clash))
        ways = [[(literal + size) % (2 * size)], [literal]]
    else:
        missed = [
            choices for choices in rules.choices if not any(chosen[list(c)].all() for c in choices)
        ]
        if not missed:
            return None
        ways = [list(choice) for choice in min(missed, key=len)]
    return list(_with(rules, literals, ways))


def _with(rules: LabelRules, literals: np.ndarray, ways: list[list[int]]) -> Iterator[np.ndarray]:
    """The literals with those of each way, and all that follows; without ways that conflict."""
    for way in ways:
        more = literals | rules.reach[way].any(0)
        if not (rules.conflict[more] & more).any():
            yield more
