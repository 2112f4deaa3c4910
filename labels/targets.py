"""Label sets -> target matrices for a vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labels.annotated import AnnotatedImages
from labels.tags import spellings
from labels.vocabulary import Vocabulary
from util.errors import UsageError
from util.log import log, some


def encode_targets(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray:
    """N×C bool, C in order of rank.

    Labels that the vocabulary leaves out as too rare are ignored, and named on stderr. Raises
    UsageError for labels that the vocabulary does not know.
    """
    targets = np.zeros((len(images), len(vocabulary)), bool)
    dropped = set(vocabulary.dropped)
    ignored = {}
    spelling = spellings(images, vocabulary)
    for i, labels in enumerate(images.label_sets):
        for label in labels:
            label = spelling.get(label, label)
            if label in vocabulary.rank:
                targets[i, vocabulary.rank[label]] = True
            elif label in dropped:
                ignored[label] = None
            else:
                raise UsageError(
                    f"{images.source} has the label {label!r}, which the vocabulary lacks; "
                    "build a vocabulary from these annotations with build_vocab.py"
                )
    if ignored:
        log(
            f"{images.source}: {len(ignored):,} labels too rare for the vocabulary are left out: "
            f"{some(list(ignored))}"
        )
    return targets


def encode_difficult(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray | None:
    """N×C bool: where a label counts neither as true nor as false, see voc.py; None if nowhere."""
    if not images.difficult or not any(images.difficult):
        return None
    return encode_targets(replace(images, label_sets=images.difficult), vocabulary)
