"""Part of a data set, ready to be read: images, where they are, and their targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from images.shards import ShardMember
from labels.annotated import AnnotatedImages
from labels.targets import encode_targets, encode_unknown
from labels.vocabulary import Vocabulary


@dataclass(frozen=True)
class Part:
    """N images with their labels, where they are, targets N×C bool, unknown labels N×C bool.

    unknown: None if all labels are known.
    """

    images: AnnotatedImages
    paths: list[Path] | list[ShardMember]
    targets: np.ndarray
    unknown: np.ndarray | None = None

    @classmethod
    def encode(
        cls,
        images: AnnotatedImages,
        paths: list[Path] | list[ShardMember],
        vocabulary: Vocabulary,
        training: bool = True,
    ) -> Part:
        """The images with their targets for a vocabulary. Raises UsageError, see encode_targets."""
        targets = encode_targets(images, vocabulary, training)
        return cls(images, paths, targets, encode_unknown(images, vocabulary))

    def select(self, rows: np.ndarray) -> Part:
        """The images at these positions, in this order."""
        paths = [self.paths[i] for i in rows]
        unknown = None if self.unknown is None else self.unknown[rows]
        return Part(self.images.select(rows.tolist()), paths, self.targets[rows], unknown)
