"""Annotations of any format + image folder -> batches.

Look at a data set and its batches (counts, first batch's shapes):

    python data_loader.py --image_path data/images/train2014

A batch is (images B×3×S×S uint8, targets B×C float, indices B). Images stay uint8: the model
normalises them itself, and a batch is a quarter of the size on its way to the GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from annotations import AnnotatedImages, encode_targets
from data_checks import tell_checks
from distributed import first_alone, rank, world_size
from image_cache import ImageCache
from image_files import find_images, without_missing
from label_formats import find_labels, read_labels
from pictures import Preprocessing
from shards import ShardMember, shard_after_shard
from stratify import hold_out
from tags import merge_tags
from utils import ArgumentParser, UsageError, log, non_negative_int, positive_int, run_script
from vocabulary import Vocabulary, count_labels, load_vocabulary

SINGLE_IMAGE_REPEATS = 32  # an epoch of one image is this many augmented views of it


class LabelledImages(Dataset):
    """Images with targets; items are asked for as (epoch, index).

    seed: of the augmentation; without one every image is seen as it is at test.
    cache: where to take the pixels from instead of decoding the files.

    Every random draw of an item comes from (seed, epoch, index) alone: an epoch is the same
    whatever the number of workers, and whether or not training was interrupted before it.
    """

    def __init__(
        self,
        paths: list[Path] | list[ShardMember],
        targets: np.ndarray,
        preprocessing: Preprocessing,
        seed: int | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        self.paths, self.preprocessing, self.seed, self.cache = paths, preprocessing, seed, cache
        self.targets = torch.from_numpy(targets).float()  # N×C
        numbers = {}  # all files of a folder count as one shard
        of_each = [numbers.setdefault(getattr(p, "shard", None), len(numbers)) for p in paths]
        self.shards = np.array(of_each)  # N

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, index = item
        path, view = self.paths[index], self.preprocessing.for_test()
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, epoch, index])
            view = self.preprocessing.for_training(rng)
        image = view.of_pixels(*self.cache[path]) if self.cache else view.of_file(path)
        return image, self.targets[index], index

    def collate(self, items: list[tuple[Tensor, Tensor, int]]) -> list[Tensor]:
        """A batch of them; of none, if there are more processes than images in a step."""
        if items:
            return default_collate(items)
        side = self.preprocessing.image_size
        images = torch.empty(0, 3, side, side, dtype=torch.uint8)
        return [images, self.targets[:0], torch.empty(0, dtype=torch.long)]


class Batches(Sampler):
    """Batches of (epoch, index); set `epoch` before each pass. Shuffled by (seed, epoch) if seeded.

    shards: for each index its shard's number; a few shards are shuffled together, then the next.
    repeats > 1 goes through the images that many times per epoch. Of several processes (see
    distributed.py) each gets its share: in training a part of every batch, else whole batches.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None = None,
        repeats: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.repeats = length, batch_size, seed, repeats
        self.num_items, self.epoch = length * repeats, 0
        self.shards = np.zeros(length, int) if shards is None else shards

    def sizes(self) -> list[int]:
        """Images in each batch, over all processes."""
        full, left = divmod(self.num_items, self.batch_size)
        return [self.batch_size] * full + [left] * (left > 0)

    def __len__(self) -> int:
        """Batches that this process gets."""
        num_batches = len(self.sizes())
        return num_batches if self.seed is not None else len(self._mine(range(num_batches)))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.concatenate([self._pass(repeat) for repeat in range(self.repeats)])
        items = [(int(e), int(i)) for e, i in order]
        starts = range(0, self.num_items, self.batch_size)
        if self.seed is None:
            yield from (items[s : s + self.batch_size] for s in self._mine(starts))
        else:
            yield from (self._mine(items[s : s + self.batch_size]) for s in starts)

    def _pass(self, repeat: int) -> np.ndarray:
        """N×2: (number of the pass, index) in the order of one pass through the images."""
        order = np.arange(self.length)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch, repeat])
            order = shard_after_shard(rng.permutation(order), self.shards, rng)
        number = self.epoch * self.repeats + repeat
        return np.stack([np.full_like(order, number), order], axis=1)

    @staticmethod
    def _mine(dealt: Sequence) -> Sequence:
        return dealt[rank() :: world_size()]


def make_loader(
    data: LabelledImages,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    repeats: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Batches (images B×3×S×S uint8, targets B×C, indices B); set `loader.batch_sampler.epoch`."""
    seed = data.seed if shuffle else None
    return DataLoader(
        data,
        batch_sampler=Batches(len(data), batch_size, seed, repeats, data.shards),
        collate_fn=data.collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def load_data_set(
    image_path: Path,
    images: AnnotatedImages,
    keep_unlabelled: bool = False,
    limit: int | None = None,
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
    return images, find_images(image_path, images)


Part = tuple[list[Path] | list[ShardMember], np.ndarray]  # where N images lie, their targets N×C


def choose_images(args: argparse.Namespace) -> tuple[Part, Part, Vocabulary, str]:
    """What to train on, what to validate on, the vocabulary, what the validation images are.

    Validation images are those named by the user, those that the annotations set apart, or a part
    of the training images. A test split is left to evaluate.py.
    """
    everything = first_alone(
        lambda: read_labels(args.annotations, args.image_path)
    )  # and indexes it
    listed = everything.of_split("train")
    images, paths = load_data_set(args.image_path, listed, args.keep_unlabelled, args.limit)
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
        val = load_data_set(val_path, val_listed, args.keep_unlabelled, args.limit)
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
        return count_labels(label_sets, images.categories, normalised=args.normalise_tags)
    vocabulary = load_vocabulary(args.vocab_path)
    if args.normalise_tags and not vocabulary.normalised:
        raise UsageError(
            f"{args.vocab_path} was built without --normalise_tags: build it with, or leave it out"
        )
    return vocabulary


def training_data(
    args: argparse.Namespace, preprocessing: Preprocessing, pin: bool
) -> tuple[DataLoader, DataLoader, Vocabulary, str]:
    """Loaders for training and validation, the vocabulary, and what the validation images are."""
    (paths, targets), (val_paths, val_targets), vocabulary, selected_on = choose_images(args)
    tell_checks(targets, vocabulary, paths, val_paths)
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
        cache = ImageCache(args.cache, [*paths, *val_paths], preprocessing.cache_side())
        first_alone(lambda: cache.prepare(workers))
    train_data = LabelledImages(paths, targets, preprocessing, args.seed, cache)
    val_data = LabelledImages(val_paths, val_targets, preprocessing, cache=cache)
    train_loader = make_loader(train_data, batch_size, workers, True, repeats, pin)
    val_loader = make_loader(val_data, min(args.batch_size, 64), workers)
    return train_loader, val_loader, vocabulary, selected_on


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--image_path", type=Path, required=True, help="image folder, shards or image"
    )
    parser.add_argument(
        "--annotations", type=Path, help="labels; looked for beside the images else"
    )
    parser.add_argument("--image_size", type=positive_int, default=224, help="pixels a side")
    parser.add_argument("--batch_size", type=positive_int, default=32, help="images a batch")
    parser.add_argument("--num_workers", type=non_negative_int, default=2, help="loader processes")
    return parser


def main(args: argparse.Namespace) -> None:
    """Read everything once and describe it."""
    annotations = args.annotations or find_labels(args.image_path, "train")
    listed = read_labels(annotations, args.image_path)
    images, paths = load_data_set(args.image_path, listed)
    vocabulary = count_labels(images.label_sets, images.categories)
    targets = encode_targets(images, vocabulary)
    splits = np.array(images.splits or ["train"] * len(paths))
    parts = [[paths[i] for i in np.flatnonzero(splits == s)] for s in ("train", "val", "test")]
    tell_checks(targets, vocabulary, *parts)
    data = LabelledImages(paths, targets, Preprocessing(args.image_size), seed=0)
    batch, labels, _ = next(iter(make_loader(data, args.batch_size, args.num_workers)))
    print(f"{len(data):,} images, {len(vocabulary)} labels, {targets.sum(1).mean():.2f} an image")
    print(f"a batch: images {tuple(batch.shape)} {batch.dtype}, targets {tuple(labels.shape)}")


if __name__ == "__main__":
    run_script(main, get_args_parser())
