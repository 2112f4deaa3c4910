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
import signal
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from images.bad_images import FILE, BadImages, check_images, raise_if_any
from images.cache import ImageCache
from images.duplicates import duplicates
from images.find import _locate, find_images
from images.sampler import EpochBatchSampler
from images.shards import ShardMember
from images.transforms import Preprocessing
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.checks import likely_misspellings
from labels.read import find_labels, read_labels
from labels.targets import encode_targets
from labels.vocabulary import Vocabulary, count_labels
from util.cli import ArgumentParser, non_negative_int, positive_int, run_script
from util.errors import UsageError
from util.log import is_first, log, some

FEW = 10  # images; of a label on fewer there is hardly anything to learn
MAY_BE_GONE = ("NUS-WIDE",)  # sets whose images lie with others, and are taken down there
PATIENCE = 30  # seconds; SIGALRM ends a process


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
        path, view = self.paths[index], self.preprocessing.eval_transform()
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, epoch, index])
            view = self.preprocessing.train_transform(rng)
        image = view(*self.cache[path]) if self.cache else view.from_file(path)
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
            raise_if_any(errors)
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
        batch_sampler=EpochBatchSampler(len(data), batch_size, seed, repeats, data.shards),
        collate_fn=data.collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_the_run,
        generator=torch.Generator(),  # of the workers' seeds, which nothing here depends on
    )


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
    warn_about_data(targets, vocabulary, *parts)
    data = LabelledImages(paths, targets, Preprocessing(args.image_size), seed=0)
    batch, labels, _ = next(iter(make_loader(data, args.batch_size, args.num_workers)))
    print(f"{len(data):,} images, {len(vocabulary)} labels, {targets.sum(1).mean():.2f} an image")
    print(f"a batch: images {tuple(batch.shape)} {batch.dtype}, targets {tuple(labels.shape)}")


def warn_about_data(targets: np.ndarray, vocabulary: Vocabulary, *parts: list) -> None:
    """Log what may be wrong: targets (N×C) of the training images, each part's image paths."""
    if not is_first():
        return
    counts = targets.sum(0)
    if unlabelled := int((~targets.any(1)).sum()):
        log(f"check: {unlabelled:,} images have no label")
    few = [f"{label} ({n})" for label, n in zip(vocabulary.labels, counts, strict=True) if n < FEW]
    if few:
        log(f"check: {len(few):,} labels are on fewer than {FEW} images: {some(few)}")
    if alike := likely_misspellings(vocabulary):
        pairs = [f"{rare!r} for {usual!r}" for rare, usual in alike]
        log(f"check: {len(alike):,} labels look misspelt: {some(pairs)}")
    if twins := duplicates(*parts):
        pairs = [f"{a} = {b}" for a, b in twins]
        log(f"check: {len(twins):,} images are in two splits: {some(pairs)}")


def without_missing(image_path: Path, images: AnnotatedImages) -> AnnotatedImages:
    """Those that are there, of a set whose images disappear; of any other set all."""
    if images.kind not in MAY_BE_GONE or (image_path / SHARD_INDEX).is_file():
        return images
    keep = [i for i, path in enumerate(_locate(image_path, images)) if path is not None]
    if gone := len(images) - len(keep):
        log(
            f"{images.source}: {gone:,} of {len(images):,} images are not under {image_path} "
            "(gone from Flickr?) and are skipped"
        )
    return images.select(keep) if keep else images


def leave_signals_to_the_run(worker: int) -> None:
    """For a DataLoader's processes: Ctrl-C and job schedulers signal them, too.

    The run needs them until it has saved. What ends them otherwise takes effect after a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(PATIENCE))


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


if __name__ == "__main__":
    run_script(main, get_args_parser())
