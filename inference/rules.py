"""Rules on label sets, prepared for decoding: which labels may still come, exactly.

A literal is a label that is on the image or one that is not. `a -> b` and `a x b` forbid two
literals together, and so do all that follow from them: the closure of the implications. Therefore

    if some labels are decided, the others can be chosen so that these rules are kept
    <=>  no two decided literals conflict

(2-SAT: what is decided implies its closure; if that has no contradiction, it breaks no rule, and
all other rules are still as they were.) `one of` also needs one of its labels. Groups that conflict
with each other are joined: a choice takes one label from each of them, all without conflict. Rules
can be kept if no two chosen literals conflict and every joined group has a choice that conflicts
with none of them. So decoding never comes to a dead end, and a check is a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labels.rules import IMPLIES, ONE_OF, Rule, read_rules
from util.errors import UsageError
from util.log import log, some

MOST_CHOICES = 300  # of all groups: one step takes samples × labels × choices operations


@dataclass(frozen=True)
class _Tables:
    """What `LabelRules.fixed` needs on one device; float32 for matrix products. L = 2R literals."""

    involved: Tensor  # R  the labels with rules, by rank
    conflict: Tensor  # L×L  first all R labels on, then all R off
    by_prefix: Tensor  # L×L  the same, but a label that is off counts only for labels after it
    impossible: Tensor  # L  literals that hold in no set
    kills: Tensor  # L×N  literals that exclude a choice
    group: Tensor  # N  of each choice


class LabelRules:
    """Rules on C labels. Raises UsageError if no label set keeps them all, or for too many choices.

    rules: from `labels.rules.read_rules`.
    """

    def __init__(self, rules: Sequence[Rule], num_labels: int) -> None:
        self.rules, self.num_labels = tuple(rules), num_labels
        self.involved, self.conflict, self.choices = _prepare(rules)
        if not _can_be_kept(self.conflict, self.choices):
            raise UsageError(_explain_contradiction(rules))
        self._tables: dict[torch.device, _Tables] = {}

    def tables(self, device: torch.device) -> _Tables:
        """The tables on a device, made once."""
        if device not in self._tables:
            size = len(self.involved)
            after = np.ones((2 * size, 2 * size), bool)
            after[size:] = np.tile(np.triu(after[:size, :size], 1), 2)
            group = [g for g, choices in enumerate(self.choices) for _ in choices]
            arrays = (self.conflict, self.conflict & after, self.conflict.diagonal(), self.kills)
            self._tables[device] = _Tables(
                torch.tensor(self.involved, device=device),
                *(torch.tensor(array, dtype=torch.float32, device=device) for array in arrays),
                torch.tensor(group, dtype=torch.long, device=device),
            )
        return self._tables[device]

    @cached_property
    def reach(self) -> np.ndarray:
        """L×L, whether a literal implies another."""
        return np.roll(self.conflict, len(self.involved), axis=1)

    @cached_property
    def kills(self) -> np.ndarray:
        """L×N, whether a literal excludes a choice; the choices of all joined groups in order."""
        columns = [
            self.conflict[:, list(choice)].any(1) for group in self.choices for choice in group
        ]
        return np.stack(columns, 1) if columns else np.zeros((len(self.conflict), 0), bool)

    def fixed(self, label_sets: Tensor, known: Tensor | None = None) -> Tensor:
        """M×C: 1 for labels that must come next, -1 for labels that cannot, 0 where both can be.

        label_sets: M×C bool, the labels read so far. Entry j is given these and no other label
        before j; only the entries after the last label read have a meaning. known: M×C as in
        `sample_label_sets`. Whatever follows these entries ends in a set that keeps the rules, if
        one that agrees with `known` exists.
        """
        tables = self.tables(label_sets.device)
        size = len(self.involved)
        on = label_sets[:, tables.involved].float()  # M×R
        prefix = torch.cat([on, 1 - on], 1)  # M×L
        blocked = prefix @ tables.by_prefix + tables.impossible  # M×L
        facts = None
        if known is not None:
            facts = torch.cat([known[:, tables.involved] > 0, known[:, tables.involved] < 0], 1)
            facts = facts.float()
            blocked += facts @ tables.conflict
        blocked = blocked > 0
        if len(tables.group):
            blocked |= self._blocked_by_groups(tables, on, facts)
        only = blocked[:, size:].to(torch.int8) - blocked[:, :size].to(torch.int8)
        found = torch.zeros_like(label_sets, dtype=torch.int8) if known is None else known.sign()
        return found.index_copy(1, tables.involved, only.to(found.dtype))

    def _blocked_by_groups(self, tables: _Tables, on: Tensor, facts: Tensor | None) -> Tensor:
        """M×L, the literals that would leave a joined group without a choice.

        on: M×R as in `fixed`; facts: M×L.
        """
        size = len(self.involved)
        killed = on @ tables.kills[:size]  # M×N  by the labels read
        if facts is not None:
            killed = killed + facts @ tables.kills
        # a choice ends with the first label that is passed over and excludes it
        ends = (on[:, :, None] == 0) & (tables.kills[size:] > 0)  # M×R×N
        places = torch.arange(size, device=on.device)
        end = torch.where(ends, places[:, None], size).amin(1)  # M×N
        end = torch.where(killed > 0, -1, end)
        most = end.new_full((len(on), size, len(self.choices)), -1)
        group = tables.group.expand(len(on), size, -1)
        with_label = torch.where(tables.kills[:size] > 0, -1, end[:, None])  # M×R×N
        last = most.scatter_reduce(2, group, with_label, "amax")  # M×R×G
        last_off = most[:, 0].scatter_reduce(1, group[:, 0], end, "amax").amin(1)  # M
        return torch.cat([(last < places[:, None]).any(2), last_off[:, None] <= places], 1)

    def feasible(self, known: np.ndarray) -> np.ndarray:
        """Whether a label set agrees with facts and rules: N×C as in `sample_label_sets` -> N."""
        facts = known[:, self.involved]
        literals = np.concatenate([facts > 0, facts < 0], 1)
        fits = ~((literals.astype(np.float32) @ self.conflict) * literals).any(1)
        alive = literals.astype(np.float32) @ self.kills == 0  # N×choices
        start = 0
        for choices in self.choices:
            fits &= alive[:, start : start + len(choices)].any(1)
            start += len(choices)
        return fits

    def check_facts(
        self, known: np.ndarray, labels: Sequence[str], file_names: Sequence[str] = ()
    ) -> None:
        """Raise UsageError unless label sets agree with the facts N×C and keep the rules.

        file_names: of the images, N, if there are several.
        """
        for row in np.flatnonzero(~self.feasible(known)):
            facts = [
                labels[i] if known[row, i] > 0 else f"no {labels[i]}"
                for i in known[row].nonzero()[0]
            ]
            alone = [r for r in self.rules if not LabelRules([r], len(labels)).feasible(known)[row]]
            which = f"the rule `{alone[0].text}`" if alone else "the rules together"
            where = f"{file_names[row]}: " if file_names else ""
            raise UsageError(f"{where}{which} cannot be kept on an image with {', '.join(facts)}")

    def keeps(self, label_sets: np.ndarray) -> np.ndarray:
        """Which of the label sets N×C bool keep all rules: N bool."""
        broken = np.zeros(len(label_sets), bool)
        for rule in self.rules:
            broken |= rule.is_broken(label_sets)
        return ~broken

    def fixed_labels(self) -> tuple[list[int], list[int]]:
        """The labels that every set that keeps the rules has, and those that none has."""
        size = len(self.involved)
        facts = np.zeros((2 * size, self.num_labels), np.int8)
        facts[np.arange(size), self.involved] = 1
        facts[np.arange(size, 2 * size), self.involved] = -1
        fits = self.feasible(facts)
        on, off = fits[:size], fits[size:]
        return [
            [label for label, fit in zip(self.involved, part, strict=True) if not fit]
            for part in (off, on)
        ]

    def all_sets(self, most: int) -> Tensor | None:
        """All label sets that keep the rules, N×C bool; None if they are more than `most`."""
        sets = torch.zeros(1, self.num_labels, dtype=torch.bool)
        for label in range(self.num_labels):
            fixed = self.fixed(sets)[:, label]
            off, on = sets[fixed <= 0], sets[fixed >= 0].clone()
            on[:, label] = True
            sets = torch.cat([off, on])
            if len(sets) > most:  # each is the beginning of a set: `fixed` knows no dead end
                return None
        return sets


def load_rules(path: Path, labels: Sequence[str]) -> LabelRules:
    """The rules of a text file on C labels; says on stderr which labels they leave no choice.

    Raises UsageError as `read_rules` does, and if no label set keeps all rules.
    """
    rules = LabelRules(read_rules(path, labels), len(labels))
    for which, what in zip(rules.fixed_labels(), ("on every image", "on no image"), strict=True):
        if which:
            names = some([labels[i] for i in which])
            log(f"note: by the rules of {path}, {what}: {names}")
    return rules


def _prepare(
    rules: Sequence[Rule],
) -> tuple[list[int], np.ndarray, list[list[tuple[int, ...]]]]:
    """The labels with rules; L×L, literals that exclude each other; see `_join` for the choices.

    Literals are the R labels on, then the same labels off. Choices hold positions in the labels.
    """
    involved = sorted({label for rule in rules for label in rule.labels})
    position = {label: i for i, label in enumerate(involved)}
    size = len(involved)
    reach = _closure(_implications(rules, position))
    conflict = np.roll(reach, size, axis=1)  # what implies the opposite of a literal excludes it
    possible = ~conflict.diagonal()
    groups = [[position[i] for i in rule.labels] for rule in rules if rule.kind == ONE_OF]
    return involved, conflict, _join([[i for i in g if possible[i]] for g in groups], conflict)


def _implications(rules: Sequence[Rule], position: dict[int, int]) -> np.ndarray:
    """L×L, what each literal implies by one rule, and itself."""
    size = len(position)
    implies = np.eye(2 * size, dtype=bool)
    for rule in rules:
        first, *others = (position[label] for label in rule.labels)
        if rule.kind == IMPLIES:
            for other in others:
                implies[first, other] = implies[size + other, size + first] = True
        else:
            members = [first, *others]
            for i in members:
                implies[i, [size + j for j in members if j != i]] = True
    return implies


def _closure(implies: np.ndarray) -> np.ndarray:
    """The transitive closure of L×L bool, by squaring."""
    while True:
        squared = implies.astype(np.float32) @ implies.astype(np.float32) > 0
        if (squared == implies).all():
            return implies
        implies = squared


def _join(groups: list[list[int]], conflict: np.ndarray) -> list[list[tuple[int, ...]]]:
    """The choices of each set of groups that conflict with each other. Raises UsageError."""
    parts: list[list[list[int]]] = []
    for group in groups:
        touching = [p for p in parts if any(conflict[np.ix_(group, other)].any() for other in p)]
        parts = [p for p in parts if p not in touching]
        parts.append([group, *(other for p in touching for other in p)])
    found, count = [], 0
    for part in parts:
        choices = []
        for choice in _choices(sorted(part, key=len), conflict, ()):
            choices.append(tuple(sorted({*choice})))
            if (count := count + 1) > MOST_CHOICES:
                raise UsageError(
                    f"the rules `one of: …` leave more than {MOST_CHOICES} choices: the labels of "
                    "each group, or combinations of groups that depend on each other; leave out "
                    "some of them"
                )
        found.append(list(dict.fromkeys(choices)))
    return found


def _choices(
    groups: list[list[int]], conflict: np.ndarray, taken: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """One label of each group, no two in conflict."""
    if not groups:
        yield taken
        return
    for label in groups[0]:
        if not conflict[label, list(taken)].any():
            yield from _choices(groups[1:], conflict, (*taken, label))


def _can_be_kept(conflict: np.ndarray, choices: list[list[tuple[int, ...]]]) -> bool:
    """Whether a label set keeps the rules that `_prepare` has prepared."""
    impossible = conflict.diagonal()
    size = len(impossible) // 2
    return not (impossible[:size] & impossible[size:]).any() and all(choices)


def _explain_contradiction(rules: Sequence[Rule]) -> str:
    """A sentence that names rules which contradict each other, as few as possible."""
    needed = list(rules)
    for rule in rules:
        fewer = [other for other in needed if other is not rule]
        try:
            can_be_kept = _can_be_kept(*_prepare(fewer)[1:])
        except UsageError:  # too many choices are choices
            can_be_kept = True
        needed = needed if can_be_kept else fewer
    named = " and ".join(f"`{rule.text}` (line {rule.line})" for rule in needed)
    return f"no label set can keep the rules {named}: change or leave out one of them"
