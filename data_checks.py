"""What a newcomer should know of a data set before it is trained on, in a few lines on stderr."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from shards import ShardMember
from tags import tag_key
from utils import is_first, log
from vocabulary import Vocabulary

FEW = 10  # images; of a label on fewer there is hardly anything to learn
SHOWN = 5  # examples of each kind
RARER = 5  # times, than the label that it looks like; shirt and skirt are two labels
LETTERS = 5  # a word of fewer is soon like another: cat, car
SAMPLE = 1024  # bytes


def tell_checks(targets: np.ndarray, vocabulary: Vocabulary, *parts: list) -> None:
    """Log what may be wrong: targets (N×C) of the training images, each part's image paths."""
    if not is_first():
        return
    counts = targets.sum(0)
    if unlabelled := int((~targets.any(1)).sum()):
        log(f"check: {unlabelled:,} images have no label")
    few = [f"{label} ({n})" for label, n in zip(vocabulary.labels, counts, strict=True) if n < FEW]
    if few:
        log(f"check: {len(few):,} labels are on fewer than {FEW} images: {_some(few)}")
    if alike := look_alike(vocabulary):
        pairs = [f"{rare!r} for {usual!r}" for rare, usual in alike]
        log(f"check: {len(alike):,} labels look misspelt: {_some(pairs)}")
    if twins := duplicates(*parts):
        pairs = [f"{a} = {b}" for a, b in twins]
        log(f"check: {len(twins):,} images are in two splits: {_some(pairs)}")


def _some(examples: list[str]) -> str:
    more = f" and {len(examples) - SHOWN:,} more" if len(examples) > SHOWN else ""
    return ", ".join(examples[:SHOWN]) + more


def look_alike(vocabulary: Vocabulary) -> list[tuple[str, str]]:
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


def duplicates(*parts: list[Path] | list[ShardMember]) -> list[tuple[Path, Path]]:
    """Pairs of files of equal content in different parts; images in shards are not looked at.

    Sizes first; then a few bytes of files whose size is in two parts, and only then whole files.
    """
    groups: dict[object, list[tuple[int, Path]]] = defaultdict(list)
    for number, part in enumerate(parts):
        for path in set(part):
            if not isinstance(path, ShardMember) and path.is_file():  # if not, training tells
                groups[os.stat(path).st_size].append((number, path))
    for look in (_middle, _digest):
        finer = defaultdict(list)
        for key, members in groups.items():
            if len({number for number, _ in members}) > 1:
                for number, path in members:
                    finer[key, look(path)].append((number, path))
        groups = finer
    pairs = []
    for members in groups.values():
        first = min(members)
        pairs += [(first[1], path) for number, path in sorted(members) if number != first[0]]
    return sorted(pairs)


def _middle(path: Path) -> bytes:
    """A few bytes; not the first, in which pictures of one camera are alike."""
    with open(path, "rb") as file:
        file.seek(os.stat(path).st_size // 2)
        return file.read(SAMPLE)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
