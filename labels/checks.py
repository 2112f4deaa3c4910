"""What looks wrong with labels: misspelt ones, and several in one."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from labels.tags import letters_of, tag_key
from labels.vocabulary import Vocabulary

FEW = 10  # images: labels on fewer can hardly be learned, and may be misspelt
RARER = 5  # times rarer than the label that it looks like: shirt and skirt are two labels
LETTERS = 5  # at least: shorter words are often one letter apart, as cat and car
SERIAL = re.compile(r"(?<![^\W_])(?:[^\W\d_]|[ivx]+)(?![^\W_])")  # a, b; i, ii, iv
BETWEEN = re.compile(r"[\s|;,/+&#_-]+(?:and\s+)?")  # what may separate labels


def likely_misspellings(
    vocabulary: Vocabulary, targets: np.ndarray | None = None
) -> list[tuple[str, str]]:
    """Pairs (rarer, more frequent) of labels that probably mean the same, rarest first.

    targets: N×C bool, of images that have the labels. Labels look the same if they differ in case,
    spaces, hyphens or underscores; in a plural; or in one edit (a letter is missing, added,
    replaced, or swapped with the next one), if one is on fewer than FEW images and RARER times
    rarer. Not if they differ in numbers or in a letter that stands alone (type A, type B), or if
    some image has both. Only labels that are equal after one letter is removed are compared: 10,000
    labels take a second.
    """
    counts = dict(zip(vocabulary.labels, vocabulary.counts, strict=True))
    keys = {label: tag_key(label) for label in counts}
    groups = defaultdict(set)  # labels by their keys, whole and with one letter removed
    for label, key in keys.items():
        for i in range(len(key) if len(key) >= LETTERS else 0):
            groups[key[:i] + key[i + 1 :]].add(label)
        groups[key].add(label)

    def look_alike(rare: str, usual: str) -> bool:
        if re.findall(r"\d+", rare) != re.findall(r"\d+", usual):
            return False
        if letters_of(rare) == letters_of(usual):
            return True
        a, b = keys[rare], keys[usual]
        if a != b:
            if min(len(a), len(b)) < LETTERS or counts[rare] >= FEW:
                return False
            if counts[rare] * RARER > counts[usual] or _serials(rare) != _serials(usual):
                return False
            if not _one_edit_apart(a, b):
                return False
        both = (vocabulary.rank[rare], vocabulary.rank[usual])
        return targets is None or not targets[:, both].all(1).any()

    found: dict[str, str] = {}
    for labels in groups.values():
        ranked = sorted(labels, key=vocabulary.rank.__getitem__)
        for n, usual in enumerate(ranked):
            for rare in ranked[n + 1 :]:
                if rare not in found and look_alike(rare, usual):
                    found[rare] = usual
    for rare, usual in found.items():
        while usual in found:  # always a more frequent one
            usual = found[usual]
        found[rare] = usual
    return sorted(found.items(), key=lambda pair: -vocabulary.rank[pair[0]])


def _serials(label: str) -> list[str]:
    return SERIAL.findall(label.casefold())


def _one_edit_apart(a: str, b: str) -> bool:
    from nltk import edit_distance  # imported here: it takes 2 to 4 seconds

    return edit_distance(a, b, transpositions=True) == 1


def several_in_one(labels: tuple[str, ...]) -> list[str]:
    """Labels that consist of other labels, as `cat dog` beside `cat` and `dog`."""
    known = set(labels)
    parts = {label: [p for p in BETWEEN.split(label) if p] for label in labels}
    return [label for label in labels if len(parts[label]) > 1 and known.issuperset(parts[label])]
