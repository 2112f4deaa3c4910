"""Label sets -> target matrices for a vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labels.annotated import AnnotatedImages
from labels.tags import spellings
from labels.vocabulary import Vocabulary
from util.errors import UsageError
from util.log import log


def encode_targets(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray:
    """N×C bool. Labels the vocabulary dropped are ignored; unknown ones raise UsageError."""
    targets = np.zeros((len(images), len(vocabulary)), bool)
    dropped = set(vocabulary.dropped)
    ignored = 0
    spelling = spellings(images, vocabulary)
    for i, labels in enumerate(images.label_sets):
        for label in labels:
            label = spelling.get(label, label)
            if label in vocabulary.rank:
                targets[i, vocabulary.rank[label]] = True
            elif label in dropped:
                ignored += 1
            else:
                raise UsageError(
                    f"{images.source} has the label {label!r}, which the vocabulary lacks; "
                    "build one with build_vocab.py from these annotations"
                )
    if ignored:
        log(f"{images.source}: {ignored:,} labels too rare for the vocabulary are ignored")
    return targets


def encode_difficult(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray | None:
    """N×C bool: where neither yes nor no is right, see voc.py; None if the format has no such."""
    if not images.difficult or not any(images.difficult):
        return None
    return encode_targets(replace(images, label_sets=images.difficult), vocabulary)
