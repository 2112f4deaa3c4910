"""Pack images and their labels into WebDataset tar shards, for slow or distributed storage.

    python data/make_shards.py --image_path data/images/train2014 \\
        --annotations data/annotations/instances_train2014.json --output_dir data/shards/train
    python train.py --image_path data/shards/train

Writes train-000000.tar, train-000001.tar, ... and last their index, shards.json: if the index is
there, the shards are complete. Each image, labelled or not, has two members: KEY.jpg, its unchanged
file (with its own suffix), and KEY.json, its file name and labels. Images are shuffled, always in
the same way, so that neighbours, for example the frames of a video, are in different shards.
"""

import argparse
import json
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the project's modules
from images.find import find_images, without_missing
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.options import add_label_flags, options_from
from labels.read import read_labels
from util.cli import ArgumentParser, positive_int, run_script
from util.errors import UsageError
from util.files import make_folder, write_atomically, write_whole
from util.log import log, progress
from util.packages import check_packages
from util.reading import MOST_TEXT, read_bytes

SUFFIXES = frozenset(Image.registered_extensions())


def write_shard(
    path: Path, numbers: range, images: AnnotatedImages, files: list[Path]
) -> list[tuple[str, int]]:
    """Write the images with these numbers. Returns the member name and offset of each.

    Raises UsageError if an image cannot be read, RunError if the shard cannot be written.
    """
    import webdataset  # imported here: it is optional, and imports torch

    # an image named photo.pkl gets the suffix .img, so that no reader unpickles it
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
                if images.unknown:
                    about["unknown"] = images.unknown[i]
                key, suffix = name.split(".")
                members = {suffix: read_image(files[i]), "json": json.dumps(about).encode()}
                tar.write({"__key__": key, **members})

    write_atomically(path, write)
    with tarfile.open(path) as tar:
        offsets = {member.name: member.offset for member in tar}
    return [(name, offsets[name]) for name in names]


def read_image(file: Path) -> bytes:
    """The bytes of an image file. Raises UsageError."""
    try:
        return read_bytes(file, MOST_TEXT)
    except OSError as error:
        raise UsageError(f"cannot read the image {file} ({error.strerror})") from None


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="image folder")
    add("--annotations", type=Path, required=True, help="labels of the images, in any format")
    add("--output_dir", type=Path, required=True, help="new folder; gives the shards their name")
    add("--shard_size", type=positive_int, default=1000, help="images per shard")
    add_label_flags(parser)
    return parser


def write_shards(
    images: AnnotatedImages, files: list[Path], folder: Path, shard_size: int
) -> dict[str, list[dict]]:
    """Write all shards into `folder`. Returns their index, see images/shards.py."""
    stem, shards, entries = folder.resolve().name, [], []
    starts = range(0, len(images), shard_size)
    for shard, start in enumerate(progress(starts, "writing")):
        path = folder / f"{stem}-{shard:06d}.tar"
        numbers = range(start, min(start + shard_size, len(images)))
        members = write_shard(path, numbers, images, files)
        for i, (member, offset) in zip(numbers, members, strict=True):
            place = {"shard": shard, "offset": offset, "member": member}
            entries.append({"id": i, "file_name": images.file_names[i], **place})
        shards.append({"file_name": path.name, "bytes": path.stat().st_size})
    ids = {name: number for number, name in enumerate(images.categories, start=1)}
    if images.unknown:  # as LVIS says it
        for entry, labels, known in zip(entries, images.label_sets, images.known(), strict=True):
            entry["neg_category_ids"] = [ids[label] for label in known if label not in labels]
    pairs = [(i, ids[label]) for i, labels in enumerate(images.label_sets) for label in labels]
    return {
        "shards": shards,
        "images": entries,
        "annotations": [{"image_id": i, "category_id": c} for i, c in pairs],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def main(args: argparse.Namespace) -> None:
    """Shuffle the images, write the shards one by one, then the index."""
    check_packages("make_shards.py", "shards", ("webdataset",))
    listed = read_labels(args.annotations, args.image_path, options_from(vars(args)))
    images = without_missing(args.image_path, listed)
    images = images.select(np.random.default_rng(0).permutation(len(images)).tolist())
    files = find_images(args.image_path, images)
    folder = args.output_dir
    make_folder(folder)
    if any(folder.iterdir()):
        raise UsageError(f"--output_dir {folder} is not empty; choose another or empty it")
    count = math.ceil(len(images) / args.shard_size)
    log(f"writing {len(images):,} images to {count:,} shards in {folder}")
    index = write_shards(images, files, folder, args.shard_size)
    text = json.dumps(index)
    write_whole(folder / SHARD_INDEX, text)
    size = sum(shard["bytes"] for shard in index["shards"]) / 1e6
    print(
        f"{count:,} shards, {size:,.1f} MB: {len(images):,} images, "
        f"{len(images.labelled()):,} with labels, {len(index['categories'])} labels, "
        f"{len(index['annotations']):,} annotations, in {folder}"
    )


if __name__ == "__main__":
    run_script(main, get_args_parser())
