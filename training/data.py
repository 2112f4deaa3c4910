"""Training and validation images, their targets and the vocabulary."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from data_loader import LabelledImages, load_data_set, make_loader, warn_about_data
from images.bad_images import FILE, BadImages
from images.cache import ImageCache
from images.shards import ShardMember
from images.transforms import Preprocessing
from labels.annotated import AnnotatedImages
from labels.read import read_labels
from labels.split import split_train_val
from labels.tags import merge_tags
from labels.targets import encode_targets
from labels.vocabulary import Vocabulary, count_labels, load_vocabulary
from util.distributed import rank_zero_first
from util.errors import UsageError
from util.log import log

SINGLE_IMAGE_REPEATS = 32  # an epoch of one image is this many augmented views of it
Part = tuple[list[Path] | list[ShardMember], np.ndarray]  # where N images lie, their targets N×C


def training_data(
    args: argparse.Namespace, preprocessing: Preprocessing, pin: bool
) -> tuple[DataLoader, DataLoader, Vocabulary, str]:
    """Loaders for training and validation, the vocabulary, and what the validation images are."""
    (paths, targets), (val_paths, val_targets), vocabulary, selected_on = choose_train_and_val(args)
    skip = args.skip_bad_images
    warn_about_data(targets, vocabulary, paths, val_paths)
    repeats = SINGLE_IMAGE_REPEATS if len(paths) == 1 else 1
    # BatchNorm needs several images: a batch larger than the set is the set
    batch_size = min(args.batch_size, len(paths) if repeats == 1 else repeats // 4)
    last_is_alone = repeats * len(paths) % batch_size == 1 or batch_size == 1
    if last_is_alone and preprocessing.image_size <= 32 and not args.freeze_encoder:
        raise UsageError(
            f"--batch_size {args.batch_size} leaves one image alone, and at 32 pixels BatchNorm "
            "needs two: change --batch_size or raise --image_size"
        )
    workers, cache = args.num_workers, None
    if args.cache:  # of all images of the run, so that it serves every --seed's hold-out
        cache = ImageCache(args.cache, [*paths, *val_paths], preprocessing.cache_side(), skip)
        rank_zero_first(lambda: cache.prepare(workers))
    bad = BadImages(args.output_dir / FILE) if skip else None
    train_data = LabelledImages(paths, targets, preprocessing, args.seed, cache, bad)
    val_data = LabelledImages(val_paths, val_targets, preprocessing, cache=cache, bad=bad)
    train_loader = make_loader(train_data, batch_size, workers, True, repeats, pin)
    # decoding keeps a core busy with 64 images at once, but no GPU
    val_batch_size = args.batch_size if pin else min(args.batch_size, 64)
    val_loader = make_loader(val_data, val_batch_size, workers, pin_memory=pin)
    return train_loader, val_loader, vocabulary, selected_on


def choose_train_and_val(args: argparse.Namespace) -> tuple[Part, Part, Vocabulary, str]:
    """What to train on, what to validate on, the vocabulary, what the validation images are.

    Validation images are those named by the user, those that the annotations set apart, or a part
    of the training images. A test split is left to evaluate.py.
    """
    everything = rank_zero_first(
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
    train, held = split_train_val(targets, args.val_fraction, args.seed)
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
