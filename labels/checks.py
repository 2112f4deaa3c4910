"""What looks wrong with labels: misspelt ones, and several in one."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from labels.tags import letters_of, tag_key
from labels.vocabulary import Vocabulary

FEW = 10  # images: labels on fewer can hardly be learned, and may be misspelt
RARER = 5  # times rarer than the label that it looks like: shirt and skirt are two labels
LETTERS = 5  # at least: shorter words are often one letter apart, as cat and car
LONG = 7  # letters: shorter words often differ from another word in one letter, as shirt and skirt
NUMBERS = re.compile(r"\d+")
SERIAL = re.compile(r"(?<![^\W_])(?:[^\W\d_]|[ivx]+)(?![^\W_])")  # a, b; i, ii, iv
BETWEEN = re.compile(r"[\s|;,/+&#_-]+(?:and\s+)?")  # what may separate labels


@dataclass
class _Spellings:
    """Labels that differ only in case, spaces, hyphens or underscores: one label."""

    labels: list[str]  # the most frequent one first
    count: int  # images of all of them

    @property
    def usual(self) -> str:
        return self.labels[0]


def likely_misspellings(
    vocabulary: Vocabulary, targets: np.ndarray | None = None
) -> list[tuple[str, str]]:
    """Pairs (rarer, more frequent) of labels that probably mean the same, rarest first.

    targets: N×C bool, of images that have the labels. Labels look the same if they differ in case,
    spaces, hyphens or underscores; in a plural; or in one edit, see `_is_misspelt`. Spellings of
    one label are counted together. Not if they differ in numbers, or if some image has both. Only
    labels that are equal after one letter is removed are compared: 10,000 labels take a second.
    """
    known = _spellings(vocabulary)
    groups = defaultdict(list)  # by their letters, whole and with one removed; by their singular
    for number, spellings in enumerate(known):
        letters = letters_of(spellings.usual)
        keys = {letters, tag_key(spellings.usual)}
        keys |= {letters[:i] + letters[i + 1 :] for i in range(len(letters))}
        for key in keys:
            groups[key].append(number)

    def on_one_image(a: _Spellings, b: _Spellings) -> bool:
        if targets is None:
            return False
        has_a, has_b = (
            targets[:, [vocabulary.rank[label] for label in each.labels]].any(1) for each in (a, b)
        )
        return bool((has_a & has_b).any())

    means: dict[int, int] = {}  # number of a spelling -> that of the usual one, always smaller
    for numbers in groups.values():
        for n, usual in enumerate(numbers):
            for rare in numbers[n + 1 :]:
                pair = known[rare], known[usual]
                if rare not in means and _look_alike(*pair) and not on_one_image(*pair):
                    means[rare] = usual
    found = {}
    for number, spellings in enumerate(known):
        while number in means:
            number = means[number]
        usual = known[number].usual
        found |= {label: usual for label in spellings.labels if label != usual}
    return sorted(found.items(), key=lambda pair: -vocabulary.rank[pair[0]])


def _spellings(vocabulary: Vocabulary) -> list[_Spellings]:
    """All labels by their spellings, the most frequent first."""
    counts = dict(zip(vocabulary.labels, vocabulary.counts, strict=True))
    same = defaultdict(list)  # part 1 1 and part 11 differ
    for label in vocabulary.labels:
        same[letters_of(label), tuple(NUMBERS.findall(label))].append(label)
    found = [_Spellings(labels, sum(counts[x] for x in labels)) for labels in same.values()]
    return sorted(found, key=lambda spellings: -spellings.count)


def _look_alike(rare: _Spellings, usual: _Spellings) -> bool:
    a, b = rare.usual, usual.usual
    if NUMBERS.findall(a) != NUMBERS.findall(b):
        return False
    return tag_key(a) == tag_key(b) or _is_misspelt(rare, usual)


def _is_misspelt(rare: _Spellings, usual: _Spellings) -> bool:
    """Whether a label is rare, and one edit away from one that is much more frequent.

    An edit: a letter is missing, added, swapped with the next one, or, in a long word, replaced.
    shirt and skirt, beach and bench are two words. So are heels and wheels: the first letter is
    seldom wrong. A letter that stands alone is part of a name: type A, type B.
    """
    a, b = letters_of(rare.usual), letters_of(usual.usual)
    if min(len(a), len(b)) < LETTERS or a[0] != b[0]:
        return False
    if rare.count >= FEW or rare.count * RARER > usual.count:
        return False
    if _serials(rare.usual) != _serials(usual.usual):
        return False
    if len(a) == len(b) < LONG and sorted(a) != sorted(b):
        return False
    return _one_edit_apart(a, b)


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
