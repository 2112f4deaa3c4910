"""Draw the default data set: scenes of objects that occur together, in MS-COCO's formats.

    python data/make_scenes.py
    python data/make_scenes.py --labels instances_val2014.json --num_images 14000 --image_size 64

The first command draws scenes (a kitchen, a street, ...) by the rules in drawing/scene_rules.py.
It writes images/{train,val}/ and annotations/instances_{train,val}.json into --output_dir. The
objects that define a scene are large and clear. Those that depend on them are small, faint, partly
hidden and easily confused, so that the other labels of an image help to recognise them.

The second command draws the label sets of a given instances file, with any of the 80 categories,
into images/NAME/ and annotations/NAME.json, where NAME is the file's name without suffix. Each
image shows exactly its labels, frequent ones larger than rare ones.

Every annotation has a box [x, y, width, height] and an area in pixels, of the object's visible
part. Objects that are almost hidden are not annotated. The same seed gives the same files with any
number of workers. An annotation file is written last: if it is there, its images are complete.
"""

import argparse
import json
import os
import signal
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from drawing.catalogue import DRAWINGS
from drawing.scene_rules import (
    EMPTY_CHANCE,
    FREQUENT,
    RARE,
    SCENES,
    Sizes,
    Thing,
    default_sizes,
    log_uniform,
    sample_things,
)
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the project's modules
from drawing.painting import (
    BACKGROUNDS,
    CATEGORY_IDS,
    paint_scene,
    photograph,
    redraw_hidden,
)

from util.cli import ArgumentParser, non_negative_int, positive_int, run_script
from util.errors import RunError, UsageError
from util.files import make_folder, write_whole
from util.reading import MOST_TEXT, read_bytes


@dataclass(frozen=True)
class Split:
    """What the images of one annotation file have in common; `seeds` start each image's stream."""

    annotation_file: Path
    image_dir: Path
    prefix: str  # of the image names
    image_size: int
    sizes: Sizes
    seeds: tuple[int, int]

    def image_name(self, index: int) -> str:
        return f"{self.prefix}_{index:06d}.jpg"


def sizes_by_rank(label_sets: list[list[str]]) -> Sizes:
    """Limits of the size of each label, from large for frequent to small for rare ones."""
    counts = Counter(name for names in label_sets for name in names)
    ranked = [name for name, _ in counts.most_common()]
    sizes = {}
    for rank, name in enumerate(ranked):
        part = rank / max(len(ranked) - 1, 1)
        sizes[name] = tuple(
            high ** (1 - part) * low**part for high, low in zip(FREQUENT, RARE, strict=True)
        )
    return sizes


def make_image(task: tuple[int, list[str] | None], split: Split) -> list[dict]:
    """Draw and save one image, of the given labels or of a random scene. Returns its annotations.

    task: the image's number, and its labels or None for a random scene.
    """
    index, names = task
    rng = np.random.default_rng((*split.seeds, index))
    if names is None:
        setting, *rules = SCENES[rng.choice(list(SCENES))]
        things = sample_things(rules if rng.random() >= EMPTY_CHANCE else [], split.sizes, rng)
    else:
        setting = rng.choice(list(BACKGROUNDS))
        things = [Thing(name, log_uniform(split.sizes[name], rng)) for name in names]
    canvas = paint_scene(things, setting, split.image_size, rng)
    redraw_hidden(canvas, names or [])
    photo = photograph(canvas.image, rng)
    photo.save(split.image_dir / split.image_name(index), quality=90)
    return canvas.annotations()


def draw_images(split: Split, label_sets: list[list[str] | None], num_workers: int) -> list[list]:
    """Draw all images of a split. Returns the annotations of each. Raises RunError."""
    make_folder(split.image_dir)
    make_folder(split.annotation_file.parent)
    split.annotation_file.unlink(missing_ok=True)  # it would not fit the new images
    print(f"drawing {len(label_sets)} images into {split.image_dir}", file=sys.stderr)
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)  # only the parent answers Ctrl-C
    executor = ProcessPoolExecutor(
        num_workers, initializer=signal.signal, initargs=ignore_interrupt
    )
    try:
        results = executor.map(
            partial(make_image, split=split), enumerate(label_sets, start=1), chunksize=16
        )
        return list(tqdm(results, total=len(label_sets), disable=None))
    except OSError as error:
        raise RunError(f"cannot write to {split.image_dir} ({error.strerror or error})") from None
    except BrokenProcessPool:
        raise RunError(
            "a drawing process was killed; run again with a lower --num_workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def make_split(split: Split, label_sets: list[list[str] | None], num_workers: int) -> None:
    """Draw the images of a split, write its annotation file and print its counts."""
    images, annotations = [], []
    for index, found in enumerate(draw_images(split, label_sets, num_workers), start=1):
        size = {"width": split.image_size, "height": split.image_size}
        images.append({"id": index, "file_name": split.image_name(index), **size})
        for item in found:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": index, **item, "iscrowd": 0})
    content = {
        "info": {"description": f"drawn by {Path(__file__).name}", "seed": split.seeds[0]},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": CATEGORY_IDS[n], "name": n} for n in DRAWINGS if n in split.sizes],
    }
    text = json.dumps(content)
    write_whole(split.annotation_file, text)
    pairs = {(item["image_id"], item["category_id"]) for item in annotations}
    print(
        f"{split.image_dir.name}: {len(images)} images, {len({label for _, label in pairs})}"
        f" labels, {len(pairs) / len(images):.2f} labels per image, in {split.image_dir}"
    )


def read_label_sets(file: Path) -> list[list[str]]:
    """The sorted label names of each labelled image of an instances file. Raises UsageError."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give --labels an MS-COCO instances file")
    try:
        content = json.loads(read_bytes(file, MOST_TEXT))
        names = {category["id"]: category["name"] for category in content["categories"]}
        labels: dict[int, set[str]] = {image["id"]: set() for image in content["images"]}
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(names[annotation["category_id"]])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{file}: not an MS-COCO instances file ({type(error).__name__}: {error}); it needs"
            " images, annotations and categories with matching ids"
        ) from None
    unknown = sorted({str(name) for name in names.values()} - set(DRAWINGS))
    if unknown:
        raise UsageError(
            f"{file}: there is no drawing of {unknown[0]!r}; use the 80 category names of MS-COCO"
        )
    label_sets = [sorted(found) for found in labels.values() if found]
    if not label_sets:
        raise UsageError(f"{file}: no image has a label; give a file with annotations")
    return label_sets


def choose_label_sets(
    labels: Path, num_images: int | None, output: Path, seeds: tuple[int, int]
) -> tuple[list[list[str]], Sizes]:
    """Label sets of an instances file in random order, and the sizes of its labels.

    Raises UsageError if there are fewer than num_images, or `output` would overwrite the file.
    """
    label_sets = read_label_sets(labels)
    if output.resolve() == labels.resolve():
        raise UsageError(f"{output}: --labels would be overwritten; choose another --output_dir")
    count = num_images or len(label_sets)
    if count > len(label_sets):
        raise UsageError(
            f"{labels}: it has {len(label_sets)} labelled images, not {count}; lower --num_images"
        )
    order = np.random.default_rng(seeds).permutation(len(label_sets))[:count]
    return [label_sets[i] for i in order], sizes_by_rank(label_sets)


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("data/scenes"), help="folder to write into")
    add("--num_train", type=positive_int, default=2000, help="images of the split train")
    add("--num_val", type=positive_int, default=500, help="images of the split val")
    add("--labels", type=Path, help="draw the label sets of this instances file")
    add("--num_images", type=positive_int, help="number of --labels' images to draw, at random")
    add("--image_size", type=image_side, default=96, help="width and height in pixels, 32 or more")
    add("--seed", type=non_negative_int, default=0, help="the same seed gives the same files")
    add("--num_workers", type=positive_int, default=os.cpu_count(), help="processes that draw")
    return parser


def image_side(text: str) -> int:
    """argparse type: an integer of at least 32; objects of smaller images look alike."""
    side = positive_int(text)
    if side < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is below 32")
    return side


def main(args: argparse.Namespace) -> None:
    """Draw the default splits or, with --labels, the given label sets."""
    images, annotations = args.output_dir / "images", args.output_dir / "annotations"
    if args.labels is not None:
        stem, seeds = args.labels.stem, (args.seed, 2)
        file = annotations / f"{stem}.json"
        label_sets, sizes = choose_label_sets(args.labels, args.num_images, file, seeds)
        split = Split(file, images / stem, stem, args.image_size, sizes, seeds)
        make_split(split, label_sets, args.num_workers)
        return
    if args.num_images is not None:
        raise UsageError("--num_images is for --labels; use --num_train and --num_val instead")
    for number, (name, count) in enumerate((("train", args.num_train), ("val", args.num_val))):
        file, seeds = annotations / f"instances_{name}.json", (args.seed, number)
        sizes = default_sizes()
        split = Split(file, images / name, f"scene_{name}", args.image_size, sizes, seeds)
        make_split(split, [None] * count, args.num_workers)


if __name__ == "__main__":
    run_script(main, get_args_parser())
