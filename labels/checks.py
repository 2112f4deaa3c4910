"""What a newcomer should know of a data set before it is trained on, in a few lines on stderr."""

from __future__ import annotations

from collections import defaultdict

from labels.tags import tag_key
from labels.vocabulary import Vocabulary

RARER = 5  # times, than the label that it looks like; shirt and skirt are two labels
LETTERS = 5  # a word of fewer is soon like another: cat, car


def likely_misspellings(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Pairs (rarer, more frequent) of labels that are probably meant to be one, rarest first.

    They differ in case, spaces or plural; or in one letter, missing, wrong, too many or exchanged
    with its neighbour, and in how often they occur. Labels are compared only with those that they
    share a shortened spelling with: 10,000 take a second.
    """
    from nltk import edit_distance

    counts = dict(zip(vocabulary.labels, vocabulary.counts, strict=True))
    keys = {label: tag_key(label) for label in counts}
    shortened = defaultdict(set)
    for label, key in keys.items():
        for i in range(len(key) if len(key) >= LETTERS else 0):
            shortened[key[:i] + key[i + 1 :]].add(label)
        shortened[key].add(label)
    found = {}
    for labels in shortened.values():
        ranked = sorted(labels, key=vocabulary.rank.__getitem__)
        for n, usual in enumerate(ranked):
            for rare in ranked[n + 1 :]:
                same = keys[rare] == keys[usual]
                long = min(len(keys[rare]), len(keys[usual])) >= LETTERS
                rarer = counts[rare] * RARER <= counts[usual]
                if rare not in found and (same or (long and rarer)):
                    a, b = keys[rare], keys[usual]
                    if same or edit_distance(a, b, transpositions=True) == 1:
                        found[rare] = usual
    return sorted(found.items(), key=lambda pair: -vocabulary.rank[pair[0]])
