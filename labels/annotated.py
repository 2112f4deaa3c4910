"""AnnotatedImages: what every label reader returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from util.errors import UsageError
from util.log import log

SHARD_INDEX = "shards.json"  # annotations that lie with their images, see shards.py


@dataclass(frozen=True)
class AnnotatedImages:
    """What annotations say: one entry per image, of COCO in order of image id, else as listed.

    splits: train, val or test for each image, where the annotations divide their images.
    difficult: those of each image's labels that VOC's figures leave out, see voc.py.
    """

    source: str
    file_names: list[str]
    label_sets: list[tuple[str, ...]]  # label names, without repetition
    categories: list[str]
    kind: str = "COCO"  # the format it was read from
    splits: list[str] | None = None
    difficult: list[tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.file_names)

    def select(self, keep: list[int]) -> AnnotatedImages:
        """The entries at these positions, in this order."""
        columns = ("file_names", "label_sets", "splits", "difficult")
        given = {name: column for name in columns if (column := getattr(self, name)) is not None}
        return replace(self, **{name: [c[i] for i in keep] for name, c in given.items()})

    def labelled(self) -> AnnotatedImages:
        """Without the images that have no label."""
        return self.select([i for i, labels in enumerate(self.label_sets) if labels])

    def of_split(self, *names: str) -> AnnotatedImages:
        """The images of the first of these splits that there is; all if images are not divided."""
        if self.splits is None:
            return self
        name = next((name for name in names if name in self.splits), None)
        if name is None:
            raise UsageError(f"{self.source} has no image of the split {' or '.join(names)}")
        log(f"{self.source}: the split {name} is used, {self.splits.count(name):,} images")
        return self.select([i for i, split in enumerate(self.splits) if split == name])


def from_plain(plain: dict, path: Path, kind: str = "COCO") -> AnnotatedImages:
    """AnnotatedImages of their fields, with label sets as positions in `categories`.

    Raises many things if given something else.
    """
    file_names, categories, splits = plain["file_names"], plain["categories"], plain.get("splits")
    label_sets = [tuple(map(categories.__getitem__, s)) for s in plain["label_sets"]]
    if len({len(each) for each in (file_names, label_sets, splits or file_names)}) > 1:
        raise ValueError("not an index of annotations")
    return AnnotatedImages(str(path), file_names, label_sets, categories, kind, splits)
