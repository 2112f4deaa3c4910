"""Rules that annotations never break, and which chance can hardly explain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labels.annotated import AnnotatedImages
from labels.rules import EXCLUSIVE, IMPLIES, ONE_OF, write_rule
from labels.targets import encode_targets
from labels.vocabulary import Vocabulary
from util.log import counted, log

CHANCE = 0.01  # of finding any rule at all where labels are independent
MOST_STEPS = 20_000  # of the search for groups
ROWS = 4096  # images that are counted at once


@dataclass(frozen=True)
class Found:
    """A rule, why it was found, and how many images would break it if labels were independent."""

    kind: str
    labels: tuple[int, ...]  # ranks
    reason: str
    expected: float


def find_rules(targets: np.ndarray, labels: Sequence[str]) -> list[Found]:
    """The rules that N×C bool annotations never break, those hardest to explain by chance first.

    If label a on n images and b on m of N were independent, the chance that no image has both is at
    most exp(-n m / N), where n m / N is the expected number (the hypergeometric distribution of
    Fisher's exact test, bounded by (1 - n / N)^m). A rule is found if this, times the number of
    rules that are tested, is at most CHANCE (Bonferroni). `a -> b` is "never a without b". Rules
    that follow from others are left out.
    """
    num_images, counts = len(targets), targets.sum(0).astype(np.float64)
    both = np.zeros((len(counts), len(counts)))  # images with both labels
    for start in range(0, num_images, ROWS):
        on = targets[start : start + ROWS].astype(np.float32)
        both += on.T @ on
    tested = 1.5 * len(counts) * max(len(counts) - 1, 1)
    enough = math.log(tested / CHANCE)
    together = np.outer(counts, counts) / max(num_images, 1)
    alone = np.outer(counts, num_images - counts) / max(num_images, 1)  # a without b
    implies = (both == counts[:, None]) & (alone >= enough)
    excludes = (both == 0) & (together >= enough)
    groups = list(_groups(targets.astype(bool), excludes))
    found = [
        *_found_groups(groups, targets),
        *_found_implications(implies, counts, alone, num_images, labels),
        *_found_exclusions(excludes, together),
    ]
    found = list(_without_implied(found))
    return sorted(found, key=lambda rule: -rule.expected)


def rules_file(images: AnnotatedImages, vocabulary: Vocabulary) -> str:
    """The rules that annotations never break as a rules file, with a comment behind each rule."""
    targets = encode_targets(images, vocabulary, training=False)
    lines = [f"# never broken on {len(images):,} images of {images.source}; keep what must be true"]
    for rule in find_rules(targets, vocabulary.labels):
        names = [vocabulary.labels[i] for i in rule.labels]
        lines.append(f"{write_rule(rule.kind, names)}  # {rule.reason}")
    log(f"{counted(len(lines) - 1, 'rule')} found: delete those that only chance has kept")
    return "\n".join(lines)


def _found_implications(
    implies: np.ndarray,
    counts: np.ndarray,
    alone: np.ndarray,
    num_images: int,
    labels: Sequence[str],
) -> Iterator[Found]:
    """`a -> b`, the most frequent a first, and for each the rarest b: others then follow."""
    pairs = zip(*implies.nonzero(), strict=True)
    for a, b in sorted(pairs, key=lambda pair: (-counts[pair[0]], counts[pair[1]])):
        share = f"{100 * counts[b] / num_images:.3g} %"
        reason = f"{counts[a]:,.0f} of {counts[a]:,.0f}; {labels[b]} is on {share} of the images"
        yield Found(IMPLIES, (int(a), int(b)), reason, float(alone[a, b]))


def _found_exclusions(excludes: np.ndarray, together: np.ndarray) -> Iterator[Found]:
    """`a x b`, in order of the number that chance would give."""
    pairs = zip(*np.triu(excludes, 1).nonzero(), strict=True)
    for a, b in sorted(pairs, key=lambda p: -together[p]):
        expected = float(together[a, b])
        reason = f"on no image together; {expected:,.1f} would be if they were independent"
        yield Found(EXCLUSIVE, (int(a), int(b)), reason, expected)


def _found_groups(groups: list[list[int]], targets: np.ndarray) -> Iterator[Found]:
    """`one of`, if every image has exactly one label of the group."""
    for group in groups:
        rate = targets[:, group].mean(0)
        odd = 1 - sum(rate[i] * np.prod(1 - np.delete(rate, i)) for i in range(len(group)))
        reason = f"each of the {len(targets):,} images has exactly one"
        yield Found(ONE_OF, tuple(group), reason, float(len(targets) * odd))


def _groups(targets: np.ndarray, excludes: np.ndarray) -> Iterator[list[int]]:
    """Labels that exclude each other in pairs, one of which is on every image."""
    stack = [([], np.ones(len(targets), bool), np.ones(targets.shape[1], bool))]
    for _ in range(MOST_STEPS):
        if not stack:
            return
        group, lacking, allowed = stack.pop()
        if not lacking.any():
            if len(group) > 1:
                yield sorted(group)
            continue
        # an image that lacks one must get it from its own labels
        for label in np.flatnonzero(targets[lacking.argmax()] & allowed):
            fits = allowed & excludes[label]
            stack.append(([*group, int(label)], lacking & ~targets[:, label], fits))


def _without_implied(found: Sequence[Found]) -> Iterator[Found]:
    """The rules that do not follow from those before them."""
    involved = sorted({label for rule in found for label in rule.labels})
    position, size = {label: i for i, label in enumerate(involved)}, len(involved)
    reach = np.eye(2 * size, dtype=bool)  # what follows from a label that is on, or (+ size) off
    for rule in found:
        members = [position[label] for label in rule.labels]
        off = 0 if rule.kind == IMPLIES else size
        steps = [(a, b + off) for a, b in itertools.combinations(members, 2)]
        if rule.kind != ONE_OF and all(reach[step] for step in steps):
            continue
        for a, b in steps:
            for start, end in ((a, b), ((b + size) % (2 * size), a + size)):
                reach |= np.outer(reach[:, start], reach[end])
        yield rule
