"""Label sets -> target matrices for a vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from labels.annotated import AnnotatedImages
from labels.tags import same_spelling, spellings
from labels.vocabulary import Vocabulary
from util.errors import UsageError
from util.log import counted, log, some


def encode_targets(
    images: AnnotatedImages, vocabulary: Vocabulary, training: bool = True
) -> np.ndarray:
    """N×C bool, C in order of rank.

    Labels that the vocabulary leaves out as too rare are ignored, and named on stderr. Labels that
    it does not know are an error in training images (`training`). In others they are ignored, too,
    and counted: a model cannot predict what it was not trained on. Raises UsageError for them, and
    if an unknown label is another spelling of a known one, or if all labels are unknown.
    """
    targets, ignored = _encode(images, vocabulary)
    dropped = set(vocabulary.dropped)
    rare = [label for label in ignored if label in dropped]
    unknown = {label: count for label, count in ignored.items() if label not in dropped}
    if unknown and (training or not (rare or targets.any())):
        what = f"{images.source} has the label {next(iter(unknown))!r}, which the vocabulary lacks"
        if training:
            hint = "build a vocabulary from these annotations with build_vocab.py"
            raise UsageError(f"{what}; {hint}")
        raise UsageError(f"{what}, and no label that it knows: {some(vocabulary.labels)}")
    refuse_other_spelling(images.source, unknown, vocabulary)
    if rare:
        what = counted(len(rare), "label is", "labels are")
        log(f"{images.source}: {what} left out as too rare for the vocabulary: {some(rare)}")
    if unknown:
        named = [f"{label} ({number:,})" for label, number in unknown.items()]
        what = counted(len(unknown), "label is", "labels are")
        log(f"{images.source}: {what} left out, not in the vocabulary: {some(named)}")
    return targets


def refuse_other_spelling(source: str, unknown: Iterable[str], vocabulary: Vocabulary) -> None:
    """Raise UsageError if an unknown label is another spelling of a known one."""
    if alike := same_spelling(unknown, vocabulary.labels):
        label, known = alike[0]
        raise UsageError(
            f"{source} has the label {label!r}, but the training images have {known!r}: if "
            f"they mean the same, give a file with the rows from,to and {label},{known} with "
            "--labels_to_merge; if not, give one of them another name"
        )


def left_out(images: AnnotatedImages, vocabulary: Vocabulary) -> dict[str, dict[str, int]]:
    """Labels that the vocabulary lacks, with the number of these images that each is on.

    "rare": those that it drops as too rare, on these images or not; "unknown": all others. The
    most frequent come first.
    """
    lacking = _encode(images, vocabulary)[1]
    rare = {label: lacking.pop(label, 0) for label in vocabulary.dropped}
    found = {"rare": rare, "unknown": lacking}
    return {k: dict(sorted(counts.items(), key=lambda n: -n[1])) for k, counts in found.items()}


def _encode(images: AnnotatedImages, vocabulary: Vocabulary) -> tuple[np.ndarray, Counter[str]]:
    """N×C bool, and on how many images each label is that the vocabulary lacks."""
    targets = np.zeros((len(images), len(vocabulary)), bool)
    lacking: Counter[str] = Counter()
    spelling = spellings(images, vocabulary)
    for i, labels in enumerate(images.label_sets):
        for label in labels:
            label = spelling.get(label, label)
            if label in vocabulary.rank:
                targets[i, vocabulary.rank[label]] = True
            else:
                lacking[label] += 1
    return targets, lacking


def encode_difficult(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray | None:
    """N×C bool: where a label counts neither as true nor as false, see voc.py; None if nowhere.

    Labels that the vocabulary lacks are ignored.
    """
    if not images.difficult or not any(images.difficult):
        return None
    return _encode(replace(images, label_sets=images.difficult), vocabulary)[0]


def encode_unknown(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray | None:
    """N×C bool: where the annotations do not say whether a label is there; None if nowhere.

    Nowhere it is true for a label that is on the image, in another spelling of a normalised
    vocabulary either. Labels that the vocabulary lacks are ignored.
    """
    if not images.unknown or not any(images.unknown):
        return None
    unknown = _encode(replace(images, label_sets=images.unknown), vocabulary)[0]
    unknown &= ~_encode(images, vocabulary)[0]
    return unknown if unknown.any() else None
