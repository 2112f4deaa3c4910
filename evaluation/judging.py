"""Decode a data set with one model, or with several that each judge a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from data_loader import LabelledImages, load_data_set, make_loader
from evaluation.analysis import Decoded, Questions, decode_and_analyse
from evaluation.choice import Chosen
from images.bad_images import BadImages
from images.cache import ImageCache
from images.part import Part
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, restore
from inference.predictions import predicted_sets
from labels.targets import encode_difficult
from labels.vocabulary import Vocabulary
from model import HybridNet
from util.errors import UsageError
from util.log import counted, log, progress


def load_part(
    chosen: Chosen, vocabulary: Vocabulary, keep_unlabelled: bool, limit: int | None, skip_bad: bool
) -> Part:
    """Find the chosen images and encode their labels. Raises UsageError.

    The labels of difficult objects are unknown: VOC's metrics ignore them. An image of which no
    label is known is left out.
    """
    images, paths = load_data_set(
        chosen.image_path, chosen.images, keep_unlabelled, limit, allow_missing=skip_bad
    )
    part = Part.encode(images, paths, vocabulary, training=False)
    unknown, difficult = part.unknown, encode_difficult(images, vocabulary)
    if difficult is not None:
        log(f"{difficult.sum():,} labels of difficult objects are left out")
        unknown = difficult if unknown is None else unknown | difficult
    if unknown is None:
        return part
    return _without_blank(Part(images, paths, part.targets & ~unknown, unknown))


def _without_blank(part: Part) -> Part:
    """The images of which some label is known; says on stderr what counts. Raises UsageError."""
    known, source = ~part.unknown, part.images.source
    if not known.any():
        raise UsageError(f"{source} says of no label whether it is on these images")
    log(
        f"{source}: {known.sum():,} of {known.size:,} image-label pairs are known; only these count"
    )
    judged = np.flatnonzero(known.any(1))
    if blank := len(known) - len(judged):
        log(f"{counted(blank, 'image is', 'images are')} left out: no label of them is known")
    return part.select(judged)


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

    def batches(self, part: Part) -> Iterable:
        """Batches (images, targets, indices) in order."""
        data = LabelledImages(
            part.paths,
            part.targets,
            self.preprocessing,
            cache=self.cache,
            bad=self.bad,
            unknown=part.unknown,
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

    part: Part
    decoded: Decoded
    sets: dict[str, np.ndarray]  # decision rule -> N×C bool
    thresholds: np.ndarray  # N×1, of each image's model
    models: list[HybridNet]  # N, each image's own


def judge_images(
    judges: Iterable[Judge],
    part: Part,
    reader: ImageReader,
    amp: torch.autocast,
    device: torch.device,
    asked: Questions,
) -> Judged:
    """Decode every image by its judge."""
    one, by_label = np.empty((len(part.paths), 1)), np.empty(part.targets.shape)
    parts, models = [], {}
    for judge in judges:
        rows = judge.rows
        batches = progress(reader.batches(part.select(rows)), "evaluating")
        model = judge.model.to(device)
        decoded = decode_and_analyse(model, batches, amp, asked.select(rows))
        parts.append(replace(decoded, indices=rows[decoded.indices]))
        one[rows] = judge.checkpoint["threshold"]
        by_label[rows] = judge.checkpoint["label_thresholds"]
        models |= dict.fromkeys(rows.tolist(), judge.model)
    decoded = Decoded.join(parts)
    read = decoded.indices
    if left_out := len(part.paths) - len(read):
        what = counted(left_out, "image cannot be read and is", "images cannot be read and are")
        log(f"{what} left out: {reader.bad.path}")
    sets = predicted_sets(decoded.predictions, one[read], by_label[read], asked.rules)
    models = [models[i] for i in read.tolist()]
    return Judged(part.select(read), decoded, sets, one[read], models)
