"""Annotations of any format + image folder -> batches.

Look at a data set and its batches (counts, first batch's shapes):

    python data_loader.py --image_path data/images/train2014

Decode every image that the annotations list, and list those that cannot be read:

    python data_loader.py --image_path data/images/train2014 --check --num_workers 8

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

from annotations import encode_targets
from bad_images import FILE, BadImages, check_images, refuse
from data_checks import tell_checks
from data_sets import choose_images, load_data_set
from distributed import first_alone, rank, world_size
from image_cache import ImageCache
from interruption import leave_signals_to_the_run
from label_formats import find_labels, read_labels
from pictures import Preprocessing
from shards import ShardMember, shard_after_shard
from utils import ArgumentParser, UsageError, non_negative_int, positive_int, run_script
from vocabulary import Vocabulary, count_labels

SINGLE_IMAGE_REPEATS = 32  # an epoch of one image is this many augmented views of it


class LabelledImages(Dataset):
    """Images with targets; items are asked for as (epoch, index).

    seed: of the augmentation; without one every image is seen as it is at test.
    cache: where to take the pixels from instead of decoding the files.
    bad: the list of images that cannot be read, if these are to be skipped: in training another
    image takes the place of such a one, at test its row is left out. Without it they raise.

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
        bad: BadImages | None = None,
    ) -> None:
        self.paths, self.preprocessing, self.seed, self.cache = paths, preprocessing, seed, cache
        self.bad = bad
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

    def __getitems__(self, items: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor, int]]:
        """A batch's items. Raises one UsageError for all of its images that cannot be read."""
        loaded, errors = [], []
        for epoch, index in items:
            try:
                loaded.append(self[epoch, index])
            except UsageError as error:
                errors.append(error)
                if self.bad:
                    self.bad.add(self.paths[index], error)
                    loaded += self._instead_of(epoch, index)
        if not self.bad:
            refuse(errors)
        return loaded

    def _instead_of(self, epoch: int, index: int) -> list[tuple[Tensor, Tensor, int]]:
        """For a bad image: in training another one, drawn from (seed, epoch, index); else none.

        The batch keeps its size, and so the loss its mean, however many processes share it.
        """
        if self.seed is None:
            return []
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        for other in rng.permutation(len(self)).tolist():
            try:
                return [self[epoch, other]]
            except UsageError as error:
                self.bad.add(self.paths[other], error)
        raise UsageError(f"none of the {len(self):,} training images can be read")

    def collate(self, items: list[tuple[Tensor, Tensor, int]]) -> list[Tensor]:
        """A batch of them; of none, if there are more processes than images in a step."""
        if items:
            # channels_last, as pictures and ResNets have it: to reorder a batch costs milliseconds
            items = [(image.permute(1, 2, 0), *others) for image, *others in items]
            images, targets, indices = default_collate(items)
            return [images.permute(0, 3, 1, 2), targets, indices]
        side = self.preprocessing.image_size
        images = torch.empty(0, 3, side, side, dtype=torch.uint8)
        return [images, self.targets[:0], torch.empty(0, dtype=torch.long)]


class Batches(Sampler):
    """Batches of (epoch, index); set `epoch` before each pass. Shuffled by (seed, epoch) if seeded.

    A pass begins with batch number `first`: that is where an interrupted one continues.
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
        self.num_items, self.epoch, self.first = length * repeats, 0, 0
        self.shards = np.zeros(length, int) if shards is None else shards

    def sizes(self) -> list[int]:
        """Images in each batch that is left, over all processes."""
        full, left = divmod(self.num_items, self.batch_size)
        return ([self.batch_size] * full + [left] * (left > 0))[self.first :]

    def __len__(self) -> int:
        """Batches that this process gets."""
        num_batches = len(self.sizes())
        return num_batches if self.seed is not None else len(self._mine(range(num_batches)))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.concatenate([self._pass(repeat) for repeat in range(self.repeats)])
        items = [(int(e), int(i)) for e, i in order]
        starts = range(self.first * self.batch_size, self.num_items, self.batch_size)
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
        worker_init_fn=leave_signals_to_the_run,
        generator=torch.Generator(),  # of the workers' seeds, which nothing here depends on
    )


def training_data(
    args: argparse.Namespace, preprocessing: Preprocessing, pin: bool
) -> tuple[DataLoader, DataLoader, Vocabulary, str]:
    """Loaders for training and validation, the vocabulary, and what the validation images are."""
    (paths, targets), (val_paths, val_targets), vocabulary, selected_on = choose_images(args)
    skip = args.skip_bad_images
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
        cache = ImageCache(args.cache, [*paths, *val_paths], preprocessing.cache_side(), skip)
        first_alone(lambda: cache.prepare(workers))
    bad = BadImages(args.output_dir / FILE) if skip else None
    train_data = LabelledImages(paths, targets, preprocessing, args.seed, cache, bad)
    val_data = LabelledImages(val_paths, val_targets, preprocessing, cache=cache, bad=bad)
    train_loader = make_loader(train_data, batch_size, workers, True, repeats, pin)
    # decoding keeps a core busy with 64 images at once, but no GPU
    val_batch_size = args.batch_size if pin else min(args.batch_size, 64)
    val_loader = make_loader(val_data, val_batch_size, workers, pin_memory=pin)
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
    parser.add_argument("--check", action="store_true", help="find the images that cannot be read")
    parser.add_argument("--bad_images", type=Path, default=FILE, help="their list, of --check")
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the labels and a batch, and describe them; or check every image."""
    annotations = args.annotations or find_labels(args.image_path, "train")
    listed = read_labels(annotations, args.image_path)
    images, paths = load_data_set(args.image_path, listed, args.check, may_lack=args.check)
    if args.check:
        errors = check_images(paths, args.num_workers, args.bad_images)
        print(f"{len(paths):,} images checked, {len(errors):,} cannot be read")
        if errors:
            raise UsageError(f"{args.bad_images} lists the bad images: mend, or leave them out")
        return
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
