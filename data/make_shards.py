"""Pack images and their labels into WebDataset tar shards, for slow storage or beyond one disk.

    python data/make_shards.py --image_path data/images/train2014 \\
        --annotations data/annotations/instances_train2014.json --output_dir data/shards/train
    python train.py --image_path data/shards/train

Writes train-000000.tar, train-000001.tar, ... and last their index, shards.json: where there is
one, the shards are complete. Each image, labelled or not, is the members KEY.jpg (its file as it
is, with its own suffix) and KEY.json (its file name and labels). The order is random, always the
same: images that were neighbours, the frames of a video, say, are in different shards.
"""

import argparse
import json
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's helpers
from data_loader import without_missing
from images.find import find_images
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.read import read_labels
from util.cli import ArgumentParser, positive_int, run_script
from util.errors import UsageError
from util.files import make_folder, write_atomically
from util.log import log, progress


def write_shard(
    path: Path, numbers: range, images: AnnotatedImages, files: list[Path]
) -> list[tuple[str, int]]:
    """Write the images of these numbers; returns each one's member name and offset."""
    # a picture named photo.pkl stays one, and no reader shall take it for anything else
    names = [
        f"{i:08d}{s if (s := files[i].suffix.lower()) in SUFFIXES else '.img'}" for i in numbers
    ]

    def write(temporary: Path) -> None:
        with (
            open(temporary, "wb") as file,
            webdataset.TarWriter(file, encoder=False, mtime=0) as tar,
        ):
            for i, name in zip(numbers, names, strict=True):
                about = {"file_name": images.file_names[i], "labels": images.label_sets[i]}
                key, suffix = name.split(".")
                members = {suffix: read_image(files[i]), "json": json.dumps(about).encode()}
                tar.write({"__key__": key, **members})

    write_atomically(path, write)
    with tarfile.open(path) as tar:
        offsets = {member.name: member.offset for member in tar}
    return [(name, offsets[name]) for name in names]


SUFFIXES = frozenset(Image.registered_extensions())


def read_image(file: Path) -> bytes:
    """The bytes of a file that was there a moment ago. Raises UsageError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the image {file} ({error.strerror})") from None


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="image folder")
    add("--annotations", type=Path, required=True, help="labels of these images, in any format")
    add("--output_dir", type=Path, required=True, help="new folder; the shards bear its name")
    add("--shard_size", type=positive_int, default=1000, help="images; lower it if they are large")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the shards one by one, then the index."""
    images = without_missing(args.image_path, read_labels(args.annotations, args.image_path))
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    images = images.select(order)
    files = find_images(args.image_path, images)
    make_folder(args.output_dir)
    if any(args.output_dir.iterdir()):
        raise UsageError(f"--output_dir {args.output_dir} is not empty; choose another or empty it")
    stem, count = args.output_dir.resolve().name, math.ceil(len(images) / args.shard_size)
    log(f"writing {len(images):,} images to {count:,} shards in {args.output_dir}")
    shards, entries = [], []
    starts = range(0, len(images), args.shard_size)
    for shard, start in enumerate(progress(starts, "writing")):
        path = args.output_dir / f"{stem}-{shard:06d}.tar"
        numbers = range(start, min(start + args.shard_size, len(images)))
        for i, (member, offset) in zip(
            numbers, write_shard(path, numbers, images, files), strict=True
        ):
            place = {"shard": shard, "offset": offset, "member": member}
            entries.append({"id": i, "file_name": images.file_names[i], **place})
        shards.append({"file_name": path.name, "bytes": path.stat().st_size})
    ids = {name: number for number, name in enumerate(images.categories, start=1)}
    pairs = [(i, ids[label]) for i, labels in enumerate(images.label_sets) for label in labels]
    index = {
        "shards": shards,
        "images": entries,
        "annotations": [{"image_id": i, "category_id": c} for i, c in pairs],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    text = json.dumps(index)
    write_atomically(args.output_dir / SHARD_INDEX, lambda file: file.write_text(text))
    print(
        f"{count:,} shards, {sum(shard['bytes'] for shard in shards) / 1e6:,.1f} MB: "
        f"{len(images):,} images, {len(images.labelled()):,} with labels, {len(ids)} labels, "
        f"{len(pairs):,} labels in all, in {args.output_dir}"
    )


if __name__ == "__main__":
    run_script(main, get_args_parser())
