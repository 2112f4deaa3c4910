"""Labels that look misspelt."""

from __future__ import annotations

from collections import defaultdict

from labels.tags import tag_key
from labels.vocabulary import Vocabulary

RARER = 5  # times rarer than the label that it looks like: shirt and skirt are two labels
LETTERS = 5  # at least: shorter words are often one letter apart, as cat and car


def likely_misspellings(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Pairs (rarer, more frequent) of labels that probably mean the same, rarest first.

    They differ in case, spaces or plural. Or they are one edit apart (a letter is missing, added,
    replaced, or swapped with the next one) and one is RARER times rarer. Only labels that are equal
    after one letter is removed are compared: 10,000 labels take a second.
    """
    counts = dict(zip(vocabulary.labels, vocabulary.counts, strict=True))
    keys = {label: tag_key(label) for label in counts}
    groups = defaultdict(set)  # labels by their keys, whole and with one letter removed
    for label, key in keys.items():
        for i in range(len(key) if len(key) >= LETTERS else 0):
            groups[key[:i] + key[i + 1 :]].add(label)
        groups[key].add(label)
    found = {}
    for labels in groups.values():
        ranked = sorted(labels, key=vocabulary.rank.__getitem__)
        for n, usual in enumerate(ranked):
            for rare in ranked[n + 1 :]:
                a, b = keys[rare], keys[usual]
                comparable = min(len(a), len(b)) >= LETTERS
                comparable = comparable and counts[rare] * RARER <= counts[usual]
                if rare not in found and (a == b or (comparable and _one_edit_apart(a, b))):
                    found[rare] = usual
    return sorted(found.items(), key=lambda pair: -vocabulary.rank[pair[0]])


def _one_edit_apart(a: str, b: str) -> bool:
    from nltk import edit_distance  # imported here: it takes 2 to 4 seconds

    return edit_distance(a, b, transpositions=True) == 1
