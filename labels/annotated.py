"""AnnotatedImages: what every label reader returns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from util.errors import UsageError
from util.log import counted, log

SHARD_INDEX = "shards.json"  # COCO json beside tar shards of images, see images/shards.py


def all_but(labels: Sequence[str], *known: Iterable[Collection[str]]) -> list[tuple[str, ...]]:
    """For each image those of these labels that are in none of its sets."""
    found = []
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # one copy of each set
    for sets in zip(*known, strict=True):
        said = {label for names in sets for label in names}
        rest = tuple(label for label in labels if label not in said)
        found.append(shared.setdefault(rest, rest))
    return found


def union(
    sets: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]] | None
) -> list[tuple[str, ...]]:
    """For each image the labels of both; `sets` if there are no others."""
    if not others:
        return list(sets)
    return [tuple(dict.fromkeys((*a, *b))) for a, b in zip(sets, others, strict=True)]


@dataclass(frozen=True)
class AnnotatedImages:
    """One entry per image: COCO's in order of image id, those of other formats as listed.

    splits: train, val or test for each image, if the annotations give them.
    difficult: the labels of each image that VOC's metrics ignore, see voc.py.
    unknown: for each image, the labels that may or may not be on it; none is in its label set. A
    label that is neither there nor in its label set is absent.
    """

    source: str
    file_names: list[str]
    label_sets: list[tuple[str, ...]]  # label names, each once
    categories: list[str]
    kind: str = "COCO"  # NAME of the format
    splits: list[str] | None = None
    difficult: list[tuple[str, ...]] | None = None
    unknown: list[tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.file_names)

    def select(self, keep: list[int]) -> AnnotatedImages:
        """The entries at these positions, in this order."""
        columns = ("file_names", "label_sets", "splits", "difficult", "unknown")
        given = {name: column for name in columns if (column := getattr(self, name)) is not None}
        return replace(self, **{name: [c[i] for i in keep] for name, c in given.items()})

    def part(self, rows: list[int]) -> AnnotatedImages:
        """The entries at these positions, without the categories that only others have."""
        chosen = self.select(rows)
        lacking = self.labels() - chosen.labels()
        return replace(chosen, categories=[c for c in self.categories if c not in lacking])

    def unknown_sets(self) -> list[tuple[str, ...]]:
        """The unknown labels of each image, also if there are none."""
        return self.unknown or [()] * len(self)

    def labels(self) -> set[str]:
        """The labels that are on some image; those that are only ever unknown are not."""
        return {label for s in (self.label_sets, self.difficult or ()) for of in s for label in of}

    def labelled(self) -> AnnotatedImages:
        """The annotated images that have a label, or may have one."""
        some = self.annotated()
        unknown = some.unknown_sets()
        pairs = enumerate(zip(some.label_sets, unknown, strict=True))
        return some.select([i for i, (s, u) in pairs if s or u])

    def annotated(self) -> AnnotatedImages:
        """The images without those of which all labels are unknown."""
        every = {*self.categories}
        pairs = enumerate(zip(self.label_sets, self.unknown_sets(), strict=True))
        return self.select([i for i, (s, u) in pairs if s or not u or not every.issubset(u)])

    def known(self) -> list[tuple[str, ...]] | None:
        """The labels of each image that are known to be on it or not; None if all are."""
        return self.unknown and all_but(self.categories, self.unknown)

    def of_split(self, *names: str) -> AnnotatedImages:
        """The images of the first of these splits that exists; all images if there are no splits.

        Labels that are only in other splits are not among its categories. Raises UsageError if
        there are splits, but none of these.
        """
        if self.splits is None:
            return self
        name = next((name for name in names if name in self.splits), None)
        if name is None:
            raise UsageError(f"{self.source} has no image of the split {' or '.join(names)}")
        images = counted(self.splits.count(name), "image")
        log(f"{self.source}: the split {name} is used, {images}")
        return self.part([i for i, split in enumerate(self.splits) if split == name])
