"""Rules that annotations never break, and which chance can hardly explain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labels.annotated import AnnotatedImages
from labels.rules import EXCLUSIVE, IMPLIES, ONE_OF, write_rule
from labels.targets import encode_targets, encode_unknown
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


def find_rules(
    targets: np.ndarray, labels: Sequence[str], unknown: np.ndarray | None = None
) -> list[Found]:
    """The rules that N×C bool annotations never break, those hardest to explain by chance first.

    unknown: N×C bool, labels that may be there or not. Of two labels, only the N images count on
    which both are known. If label a on n images and b on m of N were independent, the chance that
    no image has both is at most exp(-n m / N), where n m / N is the expected number (the
    hypergeometric distribution of Fisher's exact test, bounded by (1 - n / N)^m). A rule is found
    if this, times the number of rules that are tested, is at most CHANCE (Bonferroni). `a -> b` is
    "never a without b". Rules that follow from others are left out.
    """
    num_labels = targets.shape[1]
    both, first, num_images = _count_pairs(targets, unknown)
    tested = 1.5 * num_labels * max(num_labels - 1, 1)
    enough = math.log(tested / CHANCE)
    together = first * first.T / np.maximum(num_images, 1)
    alone = first * (num_images - first.T) / np.maximum(num_images, 1)  # a without b
    implies = (both == first) & (alone >= enough)
    excludes = (both == 0) & (together >= enough)
    groups = list(_groups(targets.astype(bool), excludes))
    found = [
        *_found_groups(groups, targets),
        *_found_implications(implies, first, alone, num_images, labels),
        *_found_exclusions(excludes, together),
    ]
    found = list(_without_implied(found))
    return sorted(found, key=lambda rule: -rule.expected)


def _count_pairs(
    targets: np.ndarray, unknown: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For labels a, b the number of images with both, with a, and in all, C×C each.

    Only images on which both are known count.
    """
    both, first, num_images = np.zeros((3, targets.shape[1], targets.shape[1]))
    for start in range(0, len(targets), ROWS):
        on = targets[start : start + ROWS].astype(np.float32)
        both += on.T @ on
        if unknown is not None:
            known = (~unknown[start : start + ROWS]).astype(np.float32)
            first += on.T @ known
            num_images += known.T @ known
    if unknown is None:
        return both, first + both.diagonal()[:, None], num_images + len(targets)
    return both, first, num_images


def rules_file(images: AnnotatedImages, vocabulary: Vocabulary) -> str:
    """The rules that annotations never break as a rules file, with a comment behind each rule."""
    targets = encode_targets(images, vocabulary, training=False)
    unknown = encode_unknown(images, vocabulary)
    lines = [f"# never broken on {len(images):,} images of {images.source}; keep what must be true"]
    for rule in find_rules(targets, vocabulary.labels, unknown):
        names = [vocabulary.labels[i] for i in rule.labels]
        lines.append(f"{write_rule(rule.kind, names)}  # {rule.reason}")
    log(f"{counted(len(lines) - 1, 'rule')} found: delete those that only chance has kept")
    return "\n".join(lines)


def _found_implications(
    implies: np.ndarray,
    first: np.ndarray,
    alone: np.ndarray,
    num_images: np.ndarray,
    labels: Sequence[str],
) -> Iterator[Found]:
    """`a -> b`, the most frequent a first, and for each the rarest b: others then follow."""
    counts, pairs = first.diagonal(), zip(*implies.nonzero(), strict=True)
    for a, b in sorted(pairs, key=lambda pair: (-counts[pair[0]], counts[pair[1]])):
        share = f"{100 * first[b, a] / num_images[a, b]:.3g} %"
        number = f"{first[a, b]:,.0f} of {first[a, b]:,.0f}"
        reason = f"{number}; {labels[b]} is on {share} of the images"
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
