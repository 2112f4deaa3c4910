"""Which images there are to train on and to validate on, with which labels, and where they lie."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from annotations import AnnotatedImages, encode_targets
from distributed import first_alone
from image_files import find_images, without_missing
from label_formats import read_labels
from shards import ShardMember
from stratify import hold_out
from tags import merge_tags
from utils import UsageError, log
from vocabulary import Vocabulary, count_labels, load_vocabulary


def load_data_set(
    image_path: Path,
    images: AnnotatedImages,
    keep_unlabelled: bool = False,
    limit: int | None = None,
    may_lack: bool = False,
) -> tuple[AnnotatedImages, list[Path] | list[ShardMember]]:
    """The images to use and where they lie; prints what is dropped. Raises UsageError.

    A single image file must be in the annotations; then it is the whole data set.
    """
    if image_path.is_file():
        at = [i for i, n in enumerate(images.file_names) if Path(n).name == image_path.name]
        if len(at) != 1 or not images.label_sets[at[0]]:
            what = "is listed more than once" if len(at) > 1 else "has no annotation"
            raise UsageError(f"{image_path} {what} in {images.source}")
        return images.select(at), [image_path]
    images = without_missing(image_path, images)
    labelled = images.labelled()
    log(
        f"{images.source}: {len(images):,} images, {len(labelled):,} with labels; "
        f"{'all' if keep_unlabelled else 'those with labels'} are used"
        + (f", the first {limit:,}" if limit else "")
    )
    images = images if keep_unlabelled else labelled
    if not len(images):
        raise UsageError(f"{labelled.source} has no labelled images")
    images = images.select(list(range(len(images)))[:limit])
    return images, find_images(image_path, images, may_lack)


Part = tuple[list[Path] | list[ShardMember], np.ndarray]  # where N images lie, their targets N×C


def choose_images(args: argparse.Namespace) -> tuple[Part, Part, Vocabulary, str]:
    """What to train on, what to validate on, the vocabulary, what the validation images are.

    Validation images are those named by the user, those that the annotations set apart, or a part
    of the training images. A test split is left to evaluate.py.
    """
    everything = first_alone(
        lambda: read_labels(args.annotations, args.image_path)
    )  # and indexes it
    listed, skip = everything.of_split("train"), args.skip_bad_images
    images, paths = load_data_set(args.image_path, listed, args.keep_unlabelled, args.limit, skip)
    vocabulary = choose_vocabulary(args, listed)
    targets = encode_targets(images, vocabulary)
    val_path, val_listed = args.val_image_path, None
    if args.val_annotations:
        val_listed = read_labels(args.val_annotations, val_path).of_split("val", "test", "train")
        selected_on = f"{args.val_annotations} (named by the user)"
    elif "val" in (everything.splits or ()):
        val_path, val_listed = args.image_path, everything.of_split("val")
        selected_on = f"the split val of {args.annotations}"
    if val_listed:
        val = load_data_set(val_path, val_listed, args.keep_unlabelled, args.limit, skip)
        val_part = (val[1], encode_targets(val[0], vocabulary))
        return (paths, targets), val_part, vocabulary, selected_on
    train, held = hold_out(targets, args.val_fraction, args.seed)
    if not len(train):
        raise UsageError(f"--val_fraction {args.val_fraction} leaves no training image; lower it")
    if not len(held):
        selected_on = "the training images themselves (none is held out)"
        return (paths, targets), (paths, targets), vocabulary, selected_on
    parts = [([paths[i] for i in part], targets[part]) for part in (train, held)]
    return *parts, vocabulary, f"a hold-out of {len(held):,} training images"


def choose_vocabulary(args: argparse.Namespace, listed: AnnotatedImages) -> Vocabulary:
    """The file's, if there is one; else one of all these images, however few of them are used."""
    if not args.vocab_path.exists():
        log(f"building the vocabulary {args.vocab_path} from {args.annotations}")
        images = merge_tags(listed) if args.normalise_tags else listed
        label_sets = images.labelled().label_sets
        built = count_labels(label_sets, images.categories, normalised=args.normalise_tags)
        if not len(built):
            raise UsageError(
                f"no label is on any image of {args.annotations}: nothing can be learned"
            )
        return built
    vocabulary = load_vocabulary(args.vocab_path)
    if args.normalise_tags and not vocabulary.normalised:
        raise UsageError(
            f"{args.vocab_path} was built without --normalise_tags: build it with, or leave it out"
        )
    return vocabulary
