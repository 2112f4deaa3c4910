"""Training and validation images, their targets, the vocabulary, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from data_loader import LabelledImages, load_data_set, make_loader, warn_about_data
from images.bad_images import BadImages
from images.cache import ImageCache
from images.part import Part
from images.transforms import Preprocessing
from inference.promises import NONE_HELD_OUT
from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from labels.read import read_labels
from labels.split import split_train_val
from labels.tags import merge_tags
from labels.vocabulary import Vocabulary, count_labels, load_vocabulary
from util.distributed import rank_zero_first
from util.errors import UsageError
from util.log import counted, log
from util.reading import read_bytes

SINGLE_IMAGE_REPEATS = 32  # an epoch of one image is this many augmented views of it


@dataclass(frozen=True)
class TrainAndVal:
    """Which images to train on and to validate on; `val` is `train` if none are held out."""

    train: Part
    val: Part
    vocabulary: Vocabulary
    selected_on: str  # what the validation images are, in words
    held_out: list[str] | None = None  # names, if they are held out from the training images


@dataclass(frozen=True)
class TrainingData:
    """Batches (images, targets, indices) for training and validation, and what they hold."""

    train_loader: DataLoader
    val_loader: DataLoader
    images: TrainAndVal
    bad_images: BadImages | None  # the list of skipped images, if they are to be skipped


def choose_train_and_val(
    image_path: Path,
    annotations: Path,
    vocab_path: Path | None = None,
    *,
    val_image_path: Path | None = None,
    val_annotations: Path | None = None,
    val_fraction: float = 0.1,
    leave_out: Path | None = None,
    seed: int = 0,
    normalise_tags: bool = False,
    keep_unlabelled: bool = False,
    limit: int | None = None,
    allow_missing: bool = False,
    options: ReadOptions = DEFAULTS,
    vocabulary: Vocabulary | None = None,
    start: dict | None = None,
) -> TrainAndVal:
    """Choose the images; parameters are named as train.py's flags.

    Validation images are the ones the user names, else the split `val` of the annotations, else a
    hold-out from the training images. A split `test` is left to evaluate.py. With `leave_out`, a
    file of names, all other images are training images, whatever their split.
    allow_missing: images may be missing from the folder. options: how to read both label files.
    vocabulary: to be used if `vocab_path` is not given; without it one is built. start: the
    checkpoint that training starts or continues from; what it held out is held out again. Raises
    UsageError.
    """
    everything = rank_zero_first(lambda: read_labels(annotations, image_path, options))
    if leave_out:
        everything = without_images(everything, leave_out)
    listed = everything.of_split("train")
    find = partial(
        load_data_set,
        keep_unlabelled=keep_unlabelled,
        limit=limit,
        allow_missing=allow_missing,
    )
    images, paths = find(image_path, listed)
    if vocab_path or not vocabulary:
        vocabulary = choose_vocabulary(listed, vocab_path, normalise_tags)
    # with leave_out, images of val and test are among them: their labels may be new
    part = Part.encode(images, paths, vocabulary, training=not leave_out)
    check_absent(part)
    if val_annotations:
        named = read_labels(val_annotations, val_image_path, options)
        val_listed = named.of_split("val", "test", "train")
        selected_on = f"{val_annotations} (named by the user)"
    elif "val" in (everything.splits or ()):
        val_image_path, val_listed = image_path, everything.of_split("val")
        selected_on = f"the split val of {annotations}"
    else:
        return hold_out(part, vocabulary, val_fraction, seed, start)
    val = Part.encode(*find(val_image_path, val_listed), vocabulary, training=False)
    return TrainAndVal(part, val, vocabulary, selected_on)


def check_absent(part: Part) -> None:
    """Raise UsageError if no label is known to be absent: "all labels, always" would fit best."""
    if part.unknown is not None and (part.targets | part.unknown).all():
        raise UsageError(
            f"{part.images.source} says of no label that it is absent from a training image, so "
            "all labels, always, would fit best: --blank absent reads the unknown ones as absent; "
            "or annotate absent labels of some images"
        )


def hold_out(
    part: Part, vocabulary: Vocabulary, val_fraction: float, seed: int, start: dict | None
) -> TrainAndVal:
    """Divide images into training and validation images, see `choose_train_and_val`."""
    held = hold_out_again(part.images, start) if start and val_fraction else None
    if held is None:
        train, held = split_train_val(part.targets, val_fraction, seed)
    else:
        train = np.setdiff1d(np.arange(len(part.images)), held)
    if not len(train):
        raise UsageError(f"--val_fraction {val_fraction} leaves no training image; lower it")
    if not len(held):
        return TrainAndVal(part, part, vocabulary, NONE_HELD_OUT)
    train, val = part.select(train), part.select(held)
    selected_on = f"a hold-out of {counted(len(held), 'training image')}"
    return TrainAndVal(train, val, vocabulary, selected_on, held_out=val.images.file_names)


def without_images(images: AnnotatedImages, leave_out: Path) -> AnnotatedImages:
    """The images that the file does not name, without their splits; it has a name in each line.

    Labels that only the others have are not among its categories. Raises UsageError.
    """
    try:
        # surrogateescape: so Python reads file names that are not UTF-8 from a folder
        lines = read_bytes(leave_out).decode("utf-8-sig", "surrogateescape").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read --leave_out {leave_out} ({error.strerror})") from None
    names = {name for line in lines if (name := line.removesuffix("\r"))}
    if not names:
        raise UsageError(f"--leave_out {leave_out} names no image")
    if unknown := sorted(names - set(images.file_names)):
        raise UsageError(
            f"--leave_out {leave_out} names {unknown[0]!r}, which is not an image of "
            f"{images.source}: write the names as they are there, in UTF-8"
        )
    kept = images.part([i for i, name in enumerate(images.file_names) if name not in names])
    if not any(kept.label_sets):
        raise UsageError(f"--leave_out {leave_out} leaves no labelled image to train on")
    splits = "; the splits are ignored" if images.splits else ""
    log(f"{images.source}: {counted(len(names), 'image')} left out{splits}")
    return replace(kept, splits=None)


def hold_out_again(images: AnnotatedImages, start: dict) -> np.ndarray | None:
    """Positions of the images that were held out from training the checkpoint `start`.

    Any other hold-out would have images that trained its weights, and look too good. None, with a
    line on stderr, if none of them is here.
    """
    before = set(start.get("held_out") or ())
    held = [i for i, name in enumerate(images.file_names) if name in before]
    if held:
        log(
            "the hold-out is the earlier one again, because all others may have trained the "
            f"weights: {len(held):,} of its {counted(len(before), 'image')}"
        )
        return np.array(held)
    log(
        "WARNING: the hold-out may have images that trained the first weights; if so, the "
        "validation metrics are too good: name others with --val_annotations"
    )
    return None


def choose_vocabulary(
    listed: AnnotatedImages, vocab_path: Path | None, normalise_tags: bool
) -> Vocabulary:
    """Load `vocab_path` if it is given and exists, else build one from all of `listed`."""
    if not vocab_path or not vocab_path.exists():
        log(f"building the vocabulary{f' {vocab_path}' if vocab_path else ''} from {listed.source}")
        images = merge_tags(listed) if normalise_tags else listed
        part = images.labelled()
        built = count_labels(
            part.label_sets, part.categories, normalised=normalise_tags, unknown=part.unknown
        )
        if not len(built):
            raise UsageError(f"no image of {listed.source} has a label: nothing can be learned")
        return built
    vocabulary = load_vocabulary(vocab_path)
    if normalise_tags and not vocabulary.normalised:
        raise UsageError(
            f"{vocab_path} was built without --normalise_tags: rebuild it with the flag, or leave "
            "the flag out"
        )
    return vocabulary


def make_loaders(
    images: TrainAndVal,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    cache_path: Path | None = None,
    bad: BadImages | None = None,
    pin: bool = False,
    batch_norm: bool = True,
    encoded: bool = False,
) -> TrainingData:
    """Loaders for both parts.

    cache_path: a file for decoded images. bad: where to list images that cannot be read; without it
    they raise. pin: batches in page-locked memory, for a GPU. batch_norm: whether the encoder's
    BatchNorm trains, which needs more than one value per channel. encoded: see `LabelledImages`.
    Raises UsageError.
    """
    train, val = images.train, images.val
    paths, val_paths = train.paths, val.paths
    splits = [paths] if images.val is images.train else [paths, val_paths]
    warn_about_data(train.targets, images.vocabulary, *splits, unknown=train.unknown)
    repeats = SINGLE_IMAGE_REPEATS if len(paths) == 1 else 1
    # BatchNorm needs several images: a batch larger than the data set is the data set
    train_batch_size = min(batch_size, len(paths) if repeats == 1 else repeats // 4)
    last_is_alone = repeats * len(paths) % train_batch_size == 1 or train_batch_size == 1
    if last_is_alone and preprocessing.image_size <= 32 and batch_norm:
        raise UsageError(
            f"--batch_size {batch_size} leaves one image alone, and at 32 pixels BatchNorm "
            "needs two: change --batch_size or raise --image_size"
        )
    cache = None
    if cache_path:  # holds all images of the run, so that it serves the hold-out of any --seed
        side = preprocessing.cache_side()
        cache = ImageCache(cache_path, [*paths, *val_paths], side, skip_bad=bad is not None)
        rank_zero_first(lambda: cache.prepare(num_workers))
    train_data = LabelledImages(
        paths, train.targets, preprocessing, seed, cache, bad, train.unknown, encoded
    )
    val_data = LabelledImages(
        val_paths, val.targets, preprocessing, None, cache, bad, val.unknown, encoded
    )
    # on a CPU, decoding keeps a core busy with 64 images at a time; a GPU takes more
    val_batch_size = batch_size if pin else min(batch_size, 64)
    return TrainingData(
        make_loader(train_data, train_batch_size, num_workers, True, repeats, pin),
        make_loader(val_data, val_batch_size, num_workers, pin_memory=pin),
        images,
        bad,
    )
