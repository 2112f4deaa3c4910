"""Decode a data set with one model, or with several that each judge a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from data_loader import LabelledImages, load_data_set, make_loader
from evaluation.analysis import Decoded, decode_and_analyse
from evaluation.choice import Chosen
from images.bad_images import BadImages
from images.cache import ImageCache
from images.shards import ShardMember
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, restore
from inference.predictions import Predictions, predicted_sets
from inference.rules import LabelRules
from labels.annotated import AnnotatedImages
from labels.targets import encode_difficult, encode_targets
from labels.vocabulary import Vocabulary
from model import HybridNet
from util.errors import UsageError
from util.log import counted, log, progress


@dataclass(frozen=True)
class Subject:
    """The images of an evaluation, N of them, with their annotations."""

    images: AnnotatedImages
    paths: list[Path] | list[ShardMember]
    targets: np.ndarray  # N×C bool
    difficult: np.ndarray | None  # N×C bool, see `encode_difficult`

    def select(self, rows: np.ndarray) -> Subject:
        """These images, in this order."""
        return Subject(
            self.images.select(rows.tolist()),
            [self.paths[i] for i in rows],
            self.targets[rows],
            None if self.difficult is None else self.difficult[rows],
        )


def load_subject(
    chosen: Chosen, vocabulary: Vocabulary, keep_unlabelled: bool, limit: int | None, skip_bad: bool
) -> Subject:
    """Find the chosen images and encode their labels. Raises UsageError."""
    images, paths = load_data_set(
        chosen.image_path, chosen.images, keep_unlabelled, limit, allow_missing=skip_bad
    )
    targets = encode_targets(images, vocabulary, training=False)
    return Subject(images, paths, targets, encode_difficult(images, vocabulary))


@dataclass(frozen=True)
class ImageReader:
    """How the images of an evaluation are read."""

    preprocessing: Preprocessing
    cache: ImageCache | None
    bad: BadImages | None  # where to list images that cannot be read; without it they raise
    batch_size: int
    num_workers: int
    pin_memory: bool

    def batches(self, subject: Subject) -> Iterable:
        """Batches (images, targets, indices) in order."""
        data = LabelledImages(
            subject.paths, subject.targets, self.preprocessing, cache=self.cache, bad=self.bad
        )
        return make_loader(data, self.batch_size, self.num_workers, pin_memory=self.pin_memory)


@dataclass(frozen=True)
class Judge:
    """A model and the images that it judges."""

    model: HybridNet
    checkpoint: dict  # what it was restored from
    rows: np.ndarray  # indices of the images


def restore_folds(
    best: list[Path], folds: list[np.ndarray], vocabulary: Vocabulary
) -> Iterator[Judge]:
    """Each fold's model with the images that it judges. Raises UsageError for other labels."""
    for path, rows in zip(best, folds, strict=True):
        checkpoint = load_checkpoint(path)
        model, own, _ = restore(checkpoint, path)
        if own.labels != vocabulary.labels:
            raise UsageError(f"{path} has other labels than the checkpoint: move it away")
        yield Judge(model, checkpoint, rows)


@dataclass(frozen=True)
class Judged:
    """The images that could be read, with all that their models say of them."""

    subject: Subject
    decoded: Decoded
    predictions: Predictions  # without the labels of difficult objects
    sets: dict[str, np.ndarray]  # decision rule -> N×C bool
    thresholds: np.ndarray  # N×1, of each image's model
    models: list[HybridNet]  # N, each image's own


def judge_images(
    judges: Iterable[Judge],
    subject: Subject,
    reader: ImageReader,
    amp: torch.autocast,
    device: torch.device,
    num_samples: int,
    known: np.ndarray | None,
    flips: bool,
    peaks: bool,
    rules: LabelRules | None = None,
) -> Judged:
    """Decode every image by its judge; the last five arguments are `decode_and_analyse`'s."""
    one, by_label = np.empty((len(subject.paths), 1)), np.empty(subject.targets.shape)
    parts, models = [], {}
    for judge in judges:
        rows = judge.rows
        decoded = decode_and_analyse(
            judge.model.to(device),
            progress(reader.batches(subject.select(rows)), "evaluating"),
            amp,
            num_samples,
            None if known is None else known[rows],
            flips,
            peaks,
            rules,
        )
        parts.append(replace(decoded, indices=rows[decoded.indices]))
        one[rows] = judge.checkpoint["threshold"]
        by_label[rows] = judge.checkpoint["label_thresholds"]
        models |= dict.fromkeys(rows.tolist(), judge.model)
    decoded = Decoded.join(parts)
    read = decoded.indices
    if left_out := len(subject.paths) - len(read):
        what = counted(left_out, "image cannot be read and is", "images cannot be read and are")
        log(f"{what} left out: {reader.bad.path}")
    subject, p = subject.select(read), decoded.predictions
    if subject.difficult is not None:
        count = f"{subject.difficult.sum():,} labels of difficult objects"
        log(f"{count} are left out, except of the set NLL")
        p = p.without(subject.difficult)
    sets = predicted_sets(p, one[read], by_label[read], rules)
    return Judged(subject, decoded, p, sets, one[read], [models[i] for i in read.tolist()])
