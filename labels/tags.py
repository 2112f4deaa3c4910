"""Free tags with several spellings -> one label each: `--normalise_tags`.

Two tags are the same if they differ only in case, in spaces, hyphens and underscores, or in a
plural: "Traffic Light", "traffic_lights" and "trafficlight" are one label. The label has the
spelling of most training images. A word is a plural if it keeps its stem (Snowball stemmer, from
nltk) without the ending: "news" is not a plural of "new". Irregular plurals such as "leaves" or
"children" stay as they are.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace

from labels.annotated import AnnotatedImages
from labels.vocabulary import Vocabulary
from util.log import log

ENDINGS = (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", ""))
SPACES = re.compile(r"[\s_\-]+")


@functools.cache
def tag_key(tag: str) -> str:
    """The same text for all spellings of a tag.

    >>> tag_key("Traffic_Lights") == tag_key("trafficlight") == "trafficlight"
    True
    """
    words = SPACES.split(tag.casefold())
    return "".join(map(_singular, words)) or tag


def _singular(word: str) -> str:
    for plural, ending in ENDINGS:
        if word.endswith(plural) and len(word) > len(plural) + 1:
            singular = word[: -len(plural)] + ending
            stem = _stemmer().stem
            return singular if stem(singular) == stem(word) else word
    return word


@functools.cache
def _stemmer():
    from nltk.stem import SnowballStemmer  # imported here: it takes 2 to 4 seconds

    return SnowballStemmer("english")


def merge_tags(images: AnnotatedImages) -> AnnotatedImages:
    """The same images with one spelling of each tag. Says on stderr what was merged."""
    counts = Counter(label for labels in images.label_sets for label in labels)
    groups = defaultdict(list)
    for label in images.categories:
        groups[tag_key(label)].append(label)
    spelling = {}
    for group in groups.values():
        best = min(group, key=lambda label: (-counts[label], label))
        spelling.update(dict.fromkeys(group, best))
        if len(group) > 1:
            others = ", ".join(f"{g!r} ({counts[g]:,})" for g in group if g != best)
            log(f"--normalise_tags: {best!r} ({counts[best]:,} images) is also {others}")
    merged = len(images.categories) - len(groups)
    log(f"--normalise_tags: {len(images.categories):,} spellings, {len(groups):,} labels")
    return respell(images, spelling) if merged else images


def respell(images: AnnotatedImages, spelling: dict[str, str]) -> AnnotatedImages:
    """Replace every label by its spelling. No image has a label twice.

    If the annotations say different things of two spellings, true counts more than unknown, and
    unknown more than absent.
    """

    def replaced(sets: list[tuple[str, ...]] | None) -> list[tuple[str, ...]] | None:
        return sets and [tuple(dict.fromkeys(spelling.get(x, x) for x in s)) for s in sets]

    label_sets, unknown = replaced(images.label_sets), replaced(images.unknown)
    return replace(
        images,
        label_sets=label_sets,
        difficult=replaced(images.difficult),
        unknown=unknown and without(unknown, label_sets),
        categories=sorted({spelling.get(label, label) for label in images.categories}),
    )


def without(
    sets: Iterable[tuple[str, ...]], removed: Iterable[Collection[str]]
) -> list[tuple[str, ...]]:
    """Each set without the labels that are to be removed from it."""
    return [
        tuple(x for x in labels if x not in out) if out else labels
        for labels, out in zip(sets, removed, strict=True)
    ]


def same_spelling(labels: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (label, known label) that differ only in case, spaces, hyphens or underscores."""
    by_letters = {letters_of(label): label for label in known}
    return [(x, by_letters[key]) for x in labels if (key := letters_of(x)) in by_letters]


def letters_of(label: str) -> str:
    """The label in lower case, without spaces, hyphens and underscores.

    >>> letters_of("Traffic_Light")
    'trafficlight'
    """
    return SPACES.sub("", label.casefold()) or label


def spellings(images: AnnotatedImages, vocabulary: Vocabulary) -> dict[str, str]:
    """From these images' labels to the spelling of a normalised vocabulary; empty for others."""
    if not vocabulary.normalised:
        return {}
    known = {tag_key(label): label for label in (*vocabulary.labels, *vocabulary.dropped)}
    return {label: known.get(tag_key(label), label) for label in images.categories}
