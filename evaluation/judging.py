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
from inference.predictions import predicted_sets
from inference.rules import LabelRules
from labels.annotated import AnnotatedImages
from labels.targets import encode_difficult, encode_targets, encode_unknown
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
    unknown: np.ndarray | None  # N×C bool, pairs that count nowhere; None if all count

    def select(self, rows: np.ndarray) -> Subject:
        """These images, in this order."""
        return Subject(
            self.images.select(rows.tolist()),
            [self.paths[i] for i in rows],
            self.targets[rows],
            None if self.unknown is None else self.unknown[rows],
        )


def load_subject(
    chosen: Chosen, vocabulary: Vocabulary, keep_unlabelled: bool, limit: int | None, skip_bad: bool
) -> Subject:
    """Find the chosen images and encode their labels. Raises UsageError.

    The labels of difficult objects are unknown: VOC's metrics ignore them. An image of which no
    label is known is left out.
    """
    images, paths = load_data_set(
        chosen.image_path, chosen.images, keep_unlabelled, limit, allow_missing=skip_bad
    )
    targets = encode_targets(images, vocabulary, training=False)
    unknown, difficult = (f(images, vocabulary) for f in (encode_unknown, encode_difficult))
    if difficult is not None:
        log(f"{difficult.sum():,} labels of difficult objects are left out")
        unknown = difficult if unknown is None else unknown | difficult
    if unknown is None:
        return Subject(images, paths, targets, None)
    return _without_blank(Subject(images, paths, targets & ~unknown, unknown))


def _without_blank(subject: Subject) -> Subject:
    """The images of which some label is known; says on stderr what counts. Raises UsageError."""
    known, source = ~subject.unknown, subject.images.source
    if not known.any():
        raise UsageError(f"{source} says of no label whether it is on these images")
    log(
        f"{source}: {known.sum():,} of {known.size:,} image-label pairs are known; only these count"
    )
    judged = np.flatnonzero(known.any(1))
    if blank := len(known) - len(judged):
        log(f"{counted(blank, 'image is', 'images are')} left out: no label of them is known")
    return subject.select(judged)


@dataclass(frozen=True)
class ImageReader:
    """How the images of an evaluation are read."""

    preprocessing: Preprocessing
    cache: ImageCache | None
    bad: BadImages | None  # where to list images that cannot be read; without it they raise
    batch_size: int
    num_workers: int
    pin_memory: bool
    encoded: bool = False  # see `LabelledImages`

    def batches(self, subject: Subject) -> Iterable:
        """Batches (images, targets, indices) in order."""
        data = LabelledImages(
            subject.paths,
            subject.targets,
            self.preprocessing,
            cache=self.cache,
            bad=self.bad,
            unknown=subject.unknown,
            encoded=self.encoded,
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
    revealed: np.ndarray | None,
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
            None if revealed is None else revealed[rows],
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
    sets = predicted_sets(decoded.predictions, one[read], by_label[read], rules)
    models = [models[i] for i in read.tolist()]
    return Judged(subject.select(read), decoded, sets, one[read], models)
