"""Free tags spelt in several ways -> one label each: `--normalise_tags`.

Two tags are the same if they differ in case, in spaces, hyphens and underscores, or in a plural:
"Traffic Light", "traffic_lights" and "trafficlight" are one. The label is spelt as on most training
images. A plural is what loses its ending without changing its stem (Snowball, from nltk), so that
"news" is no plural of "new"; irregular ones, "leaves" or "children", stay as they are.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from dataclasses import replace

from labels.annotated import AnnotatedImages
from labels.vocabulary import Vocabulary
from util.log import log

ENDINGS = (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", ""))


@functools.cache
def tag_key(tag: str) -> str:
    """What all spellings of a tag have in common.

    >>> tag_key("Traffic_Lights") == tag_key("trafficlight") == "trafficlight"
    True
    """
    words = _tools()[0].tokenize(tag.casefold())
    return "".join(map(_singular, words)) or tag


def _singular(word: str) -> str:
    stem = _tools()[1].stem
    for plural, ending in ENDINGS:
        if word.endswith(plural) and len(word) > len(plural) + 1:
            singular = word[: -len(plural)] + ending
            return singular if stem(singular) == stem(word) else word
    return word


@functools.cache
def _tools() -> tuple:
    """nltk takes a second to import, and few runs need it."""
    from nltk.stem import SnowballStemmer
    from nltk.tokenize import RegexpTokenizer

    return RegexpTokenizer(r"[\s_\-]+", gaps=True), SnowballStemmer("english")


def merge_tags(images: AnnotatedImages) -> AnnotatedImages:
    """The same images with one spelling of each tag; says on stderr what was merged."""
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
    """Every label replaced by its spelling, without repetition."""

    def of_all(sets: list[tuple[str, ...]] | None) -> list[tuple[str, ...]] | None:
        return sets and [tuple(dict.fromkeys(spelling.get(x, x) for x in s)) for s in sets]

    return replace(
        images,
        label_sets=of_all(images.label_sets),
        difficult=of_all(images.difficult),
        categories=sorted({spelling.get(label, label) for label in images.categories}),
    )


def spellings(images: AnnotatedImages, vocabulary: Vocabulary) -> dict[str, str]:
    """How a vocabulary of normalised tags spells these images' labels; empty for any other."""
    if not vocabulary.normalised:
        return {}
    known = {tag_key(label): label for label in (*vocabulary.labels, *vocabulary.dropped)}
    return {label: known.get(tag_key(label), label) for label in images.categories}
