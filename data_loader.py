"""From annotations and an image folder to batches.

Describe a data set in at most ten lines: what was read, and how; labels with counts; what is left
out; what looks wrong. All missing images are listed in missing_images.txt, labels that look
misspelt in labels_to_merge.csv: correct this file and give it with --labels_to_merge.

    python data_loader.py --image_path data/images/train2014

Also decode every annotated image, and list those that cannot be read in bad_images.jsonl.

    python data_loader.py --image_path data/images/train2014 --check --num_workers 8

A batch is (images B×3×S×S uint8, targets B×C float, indices B). Images stay uint8 because the model
normalises them itself: a batch is then a quarter of the size on its way to the GPU.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from images.bad_images import FILE, BadImages, Circle, check_images, join_errors
from images.cache import ImageCache
from images.find import find_images, names_file, without_missing
from images.on_device import EncodedImage, EncodedImages
from images.sampler import EpochBatchSampler
from images.shards import ShardMember
from images.summary import Summary, describe_known, label_counts, problems, summarise
from images.transforms import Preprocessing
from labels.annotated import AnnotatedImages
from labels.options import add_label_flags, options_from
from labels.read import read_labels
from labels.search import find_labels
from labels.vocabulary import Vocabulary
from util.cli import ArgumentParser, non_negative_int, positive_int, run_script
from util.errors import UsageError
from util.log import collected_log, counted, fit_lines, is_first, log

GRACE = 30  # seconds that a worker process lives on after SIGTERM
STOPPING = {getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)}


class LabelledImages(Dataset):
    """Images with their targets. An item is asked for by (epoch, index).

    paths: N image files or members of shards.
    targets: N×C bool. unknown: N×C bool, the labels that may be there or not. In batches targets
    are 1, 0 or NaN: unknown.
    seed: of the augmentation; without it every image gets the evaluation transform.
    cache: decoded images, to be read instead of the files.
    bad: where to list images that cannot be read. They are then skipped: in training another image
    replaces one, in evaluation its row is missing. Without `bad` they raise UsageError.
    encoded: images stay files, and a batch of them is decoded by its `to(device)`. Not with `cache`
    or `bad`.

    All random numbers of an item come from (seed, epoch, index). So an epoch is the same with any
    number of workers, and in a resumed run.
    """

    def __init__(
        self,
        paths: list[Path] | list[ShardMember],
        targets: np.ndarray,
        preprocessing: Preprocessing,
        seed: int | None = None,
        cache: ImageCache | None = None,
        bad: BadImages | None = None,
        unknown: np.ndarray | None = None,
        encoded: bool = False,
    ) -> None:
        self.paths, self.preprocessing, self.seed, self.cache = paths, preprocessing, seed, cache
        self.bad, self.encoded = bad, encoded
        self._circle: tuple[int, np.ndarray, Circle] | None = None  # epoch, order of images, places
        self.targets = torch.from_numpy(targets).float()  # N×C
        if unknown is not None:
            self.targets[torch.from_numpy(unknown)] = torch.nan
        numbers = {}  # shard -> its number; all files of a folder have the number 0
        self.shards = np.array(
            [numbers.setdefault(getattr(path, "shard", None), len(numbers)) for path in paths]
        )  # N

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor | EncodedImage, Tensor, int]:
        epoch, index = item
        if self.seed is None:
            transform = self.preprocessing.eval_transform()
        else:
            rng = np.random.default_rng([self.seed, epoch, index])
            transform = self.preprocessing.train_transform(rng)
        path = self.paths[index]
        if self.encoded:
            image = EncodedImage.read(path, transform)
        elif self.cache:
            image = transform(*self.cache[path])
        else:
            image = transform.from_file(path)
        return image, self.targets[index], index

    def __getitems__(self, items: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor, int]]:
        """The items of a batch. Raises one UsageError for all its images that cannot be read."""
        loaded, errors = [], []
        for epoch, index in items:
            try:
                loaded.append(self[epoch, index])
            except UsageError as error:
                errors.append(error)
                if self.bad:
                    self.bad.add(self.paths[index], error)
                    loaded += self._replacement(epoch, index)
        if errors and not self.bad:
            raise join_errors(errors)
        return loaded

    def _replacement(self, epoch: int, index: int) -> list[tuple[Tensor, Tensor, int]]:
        """In training another image for a bad one, chosen by (seed, epoch, index); else none.

        It is the first readable one from a random place on, in an order that is random for each
        epoch. So no bad image is tried again and again, and the choice does not depend on which
        ones this process has met. The batch keeps its size, so the mean of the loss stays right
        with several processes.
        """
        if self.seed is None:
            return []
        if self._circle is None or self._circle[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, 0, 2]).permutation(len(self))
            self._circle = epoch, order, Circle(len(self))
        _, order, circle = self._circle
        start = np.random.default_rng([self.seed, epoch, index, 1]).integers(len(self))
        while circle.num_left:
            place = circle.first(int(start))
            try:
                return [self[epoch, int(order[place])]]
            except UsageError as error:
                self.bad.add(self.paths[order[place]], error)
                circle.remove(place)
        raise UsageError(f"none of the {len(self):,} training images can be read")

    def collate(self, items: list[tuple[Tensor | EncodedImage, Tensor, int]]) -> list:
        """Items -> a batch. It is empty if a step has fewer images than there are processes."""
        images = [image for image, *_ in items]
        others = default_collate([others for _, *others in items]) if items else self._no_others()
        return [self._collate_images(images), *others]

    def _collate_images(self, images: list[Tensor] | list[EncodedImage]) -> Tensor | EncodedImages:
        side = self.preprocessing.image_size
        if self.encoded:
            return EncodedImages(images, side)
        if not images:
            return torch.empty(0, 3, side, side, dtype=torch.uint8)
        # channels_last, as decoded images and ResNets: reordering a batch costs milliseconds
        return default_collate([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)

    def _no_others(self) -> list[Tensor]:
        """Targets and indices of no images."""
        return [self.targets[:0], torch.empty(0, dtype=torch.long)]


def make_loader(
    data: LabelledImages,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    repeats: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Batches (images B×3×S×S uint8, targets B×C, indices B).

    shuffle: in an order given by the seed of `data` and the epoch; set
    `loader.batch_sampler.epoch` before each pass. repeats: passes through the images per epoch.
    """
    seed = data.seed if shuffle else None
    return Loader(
        data,
        batch_sampler=EpochBatchSampler(len(data), batch_size, seed, repeats, data.shards),
        collate_fn=data.collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # keeps the global generator unused; no result depends on it
    )


class Loader(DataLoader):
    """A DataLoader whose workers ignore Ctrl-C and SIGTERM, so that the run can save first.

    A worker that nobody stops ends GRACE seconds after SIGTERM.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, worker_init_fn=_leave_signals_to_parent, **kwargs)

    def __iter__(self) -> Iterator:
        """Start the workers, with signals blocked until they ignore them."""
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return super().__iter__()
        # before its worker_init_fn runs, a signal kills a worker
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def load_data_set(
    image_path: Path,
    images: AnnotatedImages,
    keep_unlabelled: bool = False,
    limit: int | None = None,
    allow_missing: bool = False,
    everything: bool = False,
) -> tuple[AnnotatedImages, list[Path] | list[ShardMember]]:
    """The images to use and where each one is. Logs how many images have labels.

    keep_unlabelled: also images that have no label. everything: also those on which all labels are
    unknown.

    If image_path is an image file, that image alone is the data set. Raises UsageError if it is
    not annotated, if no image has labels, or if an image is missing unless `allow_missing`.
    """
    if image_path.is_file():
        at = [i for i, n in enumerate(images.file_names) if names_file(n, image_path)]
        if len(at) != 1 or not images.label_sets[at[0]]:
            what = "is listed more than once" if len(at) > 1 else "has no annotation"
            raise UsageError(f"{image_path} {what} in {images.source}")
        return images.select(at), [image_path]
    images = without_missing(image_path, images)
    labelled, annotated = images.labelled(), images.annotated()
    certain = sum(map(bool, labelled.label_sets))
    counts = f"{counted(certain, 'image')} with labels"
    if perhaps := len(labelled) - certain:
        counts += f", {perhaps:,} that may have some"
    if unlabelled := len(annotated) - len(labelled):
        counts += f", {unlabelled:,} without" + ("" if keep_unlabelled else " (not used)")
    if nothing := len(images) - len(annotated):
        counts += f", {nothing:,} where no label is known (not used)"
    log(f"{images.source}: {counts}" + (f"; the first {limit:,} are used" if limit else ""))
    if not everything:
        images = annotated if keep_unlabelled else labelled
    if not len(images):
        raise UsageError(f"{labelled.source} has no labelled images")
    images = images.select(list(range(len(images)))[:limit])
    return images, find_images(image_path, images, allow_missing)


def warn_about_data(
    targets: np.ndarray,
    vocabulary: Vocabulary,
    *splits: list,
    unknown: np.ndarray | None = None,
) -> None:
    """Log what may be wrong.

    targets, unknown: N×C bool, of the training images; splits: paths of all images.
    """
    if is_first():
        for sentence in problems(targets, vocabulary, *splits, unknown=unknown):
            log(f"check: {sentence}")


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="image folder, shards or one image")
    add("--annotations", type=Path, help="labels; by default those beside the images")
    add("--image_size", type=positive_int, default=224, help="width and height in pixels")
    add("--batch_size", type=positive_int, default=32, help="images per batch")
    add(
        "--num_workers",
        type=non_negative_int,
        default=2,
        help="processes that load images for --check",
    )
    add("--check", action="store_true", help="find the images that cannot be read")
    add("--bad_images", type=Path, default=FILE, help="where --check lists them")
    add_label_flags(parser)
    return parser


def try_batch(found: Summary, image_size: int, batch_size: int) -> str:
    """The shapes of a training batch. Raises UsageError if one of its images cannot be read."""
    paths, targets = [found.paths[i] for i in found.rows], found.targets[found.rows]
    data = LabelledImages(paths, targets, Preprocessing(image_size), seed=0)
    # no worker processes: one that fails would delay the end of the script
    images, targets, _ = next(iter(make_loader(data, batch_size)))
    return f"images {tuple(images.shape)} {images.dtype}, targets {tuple(targets.shape)}"


def main(args: argparse.Namespace) -> None:
    """Say in at most ten lines what was read, and how; what is left out; and what looks wrong.

    At the end raises UsageError if images are missing or cannot be read.
    """
    with collected_log() as notes:
        options = options_from(vars(args))
        annotations = args.annotations or find_labels(args.image_path, "train", options.files())
        listed = read_labels(annotations, args.image_path, options)
        images, paths = load_data_set(
            args.image_path, listed, True, allow_missing=True, everything=True
        )
        found = summarise(args.image_path, images, paths)
    for line in fit_lines(notes, 3):
        log(line)
    num_images, vocabulary = len(found.targets), found.vocabulary
    mean = found.targets.sum() / num_images
    sizes = f"{counted(num_images, 'image')}, {counted(len(vocabulary), 'label')}"
    print(f"{sizes}, {mean:.2f} labels per image{describe_known(found.unknown)}")
    print(f"labels: {label_counts(vocabulary)}", flush=True)
    errors = found.errors
    if args.check:
        bad = check_images(paths, args.num_workers, args.bad_images)
        if bad:
            errors.insert(0, f"{args.bad_images} lists the bad images: fix them or leave them out")
        checked = counted(len(paths), "image")
        print(f"{checked} checked, {len(bad):,} cannot be read", flush=True)
    elif found.rows:
        try:
            print(f"a batch: {try_batch(found, args.image_size, args.batch_size)}", flush=True)
        except UsageError as error:
            errors.append(str(error))
    remarks = found.remarks
    if not remarks and not errors:
        remarks = [
            "check: nothing looks wrong" + ("" if args.check else "; --check reads all images")
        ]
    for line in fit_lines(remarks, 3):
        log(line)
    if errors:
        raise UsageError("; ".join(errors))


if __name__ == "__main__":
    run_script(main, get_args_parser())
