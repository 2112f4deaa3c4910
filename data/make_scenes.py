"""Draw the embedded data set: images of things that keep company, in MS-COCO's formats.

    python data/make_scenes.py
    python data/make_scenes.py --labels instances_val2014.json --num_images 14000 --image_size 64

The first command draws scenes (a kitchen, a street, ...) after the table SCENES and writes
images/{train,val}/ and annotations/instances_{train,val}.json under --output_dir.  The things that
define a scene are large and clear; those that depend on them are small, faint, half hidden and
easily mistaken for one another, so that the other labels of an image tell a good deal about them.

The second command draws the label sets of the images of a given instances file, any of the 80
categories, into images/<file's stem>/ and annotations/<file's stem>.json; each image shows exactly
its labels, frequent ones larger than rare ones.

The same seed gives the same files, however many workers draw them.  The annotation files come
last: where there is one, its images are complete.
"""

import argparse
import json
import math
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
from drawings import CLUTTER, DRAWINGS, draw, pick_colour
from PIL import Image, ImageFilter
from scene_rules import (
    EMPTY_CHANCE,
    SCENES,
    SMALL,
    Sizes,
    Thing,
    default_sizes,
    log_uniform,
    sample_things,
)
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project's helpers
from utils import (
    ArgumentParser,
    RunError,
    UsageError,
    make_folder,
    non_negative_int,
    positive_int,
    run_script,
    write_atomically,
)

# With --labels, between the most and the least frequent label of the file.
FREQUENT, RARE = (0.35, 0.85), (0.14, 0.30)

NUM_CLUTTER = 2  # mean number of unlabelled shapes in an image
CLUTTER_SIZE = (0.06, 0.35)
SMALL_OPACITY = 0.55  # the faintest small thing; large ones are nearly opaque
MIN_VISIBLE, MIN_PIXELS = 0.2, 6  # a thing is labelled if that much of it can be seen
MAX_NOISE, MAX_BLUR = 0.03, 0.6  # standard deviation (white is 1) and radius in pixels
OVERSAMPLING = 2  # scenes are drawn larger and averaged, which smooths the edges
MAX_REDRAWS = 200

BACKGROUNDS = {  # colours of the upper and the lower part
    "indoor": (("cloth", "white", "bread", "glass"), ("wood", "steel", "bread", "cloth")),
    "outdoor": (("glass", "steel", "white", "screen"), ("leaf", "steel", "bread", "white")),
}
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # MS-COCO's ids have gaps
CATEGORY_IDS = dict(
    zip(DRAWINGS, (number for number in range(1, 91) if number not in UNUSED_IDS), strict=True)
)


@dataclass(frozen=True)
class Split:
    """What the images of one annotation file have in common."""

    annotation_file: Path
    image_dir: Path
    prefix: str  # of the image names
    image_size: int
    sizes: Sizes
    seeds: tuple[int, int]

    def image_name(self, index: int) -> str:
        return f"{self.prefix}_{index:06d}.jpg"


def sizes_by_rank(label_sets: list[list[str]]) -> Sizes:
    """Limits of the size of every label, shrinking from the most frequent to the rarest."""
    counts = Counter(name for names in label_sets for name in names)
    ranked = [name for name, _ in counts.most_common()]
    sizes = {}
    for rank, name in enumerate(ranked):
        part = rank / max(len(ranked) - 1, 1)
        sizes[name] = tuple(
            high ** (1 - part) * low**part for high, low in zip(FREQUENT, RARE, strict=True)
        )
    return sizes


def paint_background(setting: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Two coloured parts that meet at a horizon, with stripes or tiles, a gradient and blotches."""
    upper, lower = (pick_colour(rng.choice(names), rng) for names in BACKGROUNDS[setting])
    y, x = np.mgrid[:side, :side] / side
    below = y > rng.uniform(0.25, 0.7)
    image = np.where(below[..., None], lower, upper)
    angle, frequency = rng.uniform(0, math.pi), rng.uniform(15, 70)
    along = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    across = np.sin(frequency * (np.cos(angle) * y - np.sin(angle) * x))
    pattern = (along, np.sign(along * across), np.zeros_like(x))[rng.integers(3)]
    pattern = pattern * (below == rng.integers(2)) * rng.uniform(0, 0.1)
    coarse = Image.fromarray(rng.normal(0, 1, (8, 8)).astype(np.float32))
    blotches = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    light = 1 + rng.uniform(-0.3, 0.3) * (y - 0.5) + rng.uniform(0.02, 0.1) * blotches + pattern
    return image * light[..., None]


def photograph(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Average down to the final size; change the lighting; add blur and sensor noise."""
    side = len(image) // OVERSAMPLING
    image = image.reshape(side, OVERSAMPLING, side, OVERSAMPLING, 3).mean(axis=(1, 3))
    image = image * rng.uniform(0.65, 1.15) * rng.uniform(0.88, 1.12, 3)
    ramp = np.linspace(-0.5, 0.5, side)
    image *= 1 + (rng.uniform(-0.4, 0.4) * ramp + rng.uniform(-0.4, 0.4) * ramp[:, None])[..., None]
    photo = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, MAX_BLUR)))
    noise = rng.normal(0, 255 * rng.uniform(0.01, MAX_NOISE), image.shape)
    return Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))


class Canvas:
    """An image under work, with a map that tells which instance each pixel belongs to."""

    def __init__(self, background: np.ndarray, rng: np.random.Generator):
        self.image, self.rng = background, rng
        self.owner = np.zeros(background.shape[:2], dtype=int)  # 0 is nothing, else 1 + instance
        self.names: list[str] = []
        self.areas: list[int] = []  # pixels when drawn, before others hid some
        self.places: dict[str, tuple[float, float, float]] = {}  # the last x, y and size of a name

    def add(self, thing: Thing, opacity: float) -> None:
        """Draw a thing somewhere on its anchor, or anywhere."""
        rng, side = self.rng, len(self.image)
        x, y = rng.uniform(0.1, 0.9, 2) * side
        if thing.anchor in self.places:
            x, y, reach = self.places[thing.anchor]
            x, y = np.clip((x, y) + rng.uniform(-0.4, 0.4, 2) * reach, 0.04 * side, 0.96 * side)
        size = thing.size * side
        turn = 0.5 if thing.size < SMALL[1] else 0.12  # small things lie about
        mask = draw(self.image, thing.name, (x, y), size, rng, turn, opacity)
        self.names.append(thing.name)
        self.areas.append(np.count_nonzero(mask))
        self.owner[mask] = len(self.names)
        self.places[thing.name] = x, y, size

    def visible(self) -> list[int]:
        """Numbers of the labelled instances of which enough can be seen."""
        seen = np.bincount(self.owner.ravel(), minlength=len(self.names) + 1)[1:]
        least = np.maximum(MIN_VISIBLE * np.array(self.areas), MIN_PIXELS * OVERSAMPLING**2)
        return [i for i in np.flatnonzero(seen >= least) if self.names[i] in DRAWINGS]

    def annotations(self) -> list[dict]:
        """Category, bounding box and area of the visible instances, in pixels of the photo."""
        found = []
        for i in self.visible():
            rows, columns = np.nonzero(self.owner == i + 1)
            x, y = columns.min(), rows.min()
            box = np.array((x, y, columns.max() + 1 - x, rows.max() + 1 - y)) / OVERSAMPLING
            area = len(rows) / OVERSAMPLING**2
            category = CATEGORY_IDS[self.names[i]]
            found.append({"category_id": category, "bbox": box.tolist(), "area": area})
        return found


def paint_scene(
    things: list[Thing], setting: str, image_size: int, rng: np.random.Generator
) -> Canvas:
    """Paint things and clutter, by and large the larger ones first."""
    canvas = Canvas(paint_background(setting, image_size * OVERSAMPLING, rng), rng)
    order = [(thing.size * rng.uniform(0.8, 1.25), thing) for thing in things]
    for _ in range(rng.poisson(NUM_CLUTTER)):
        # Half of the clutter lies on things, and some of it in front of smaller ones.
        anchored = things and rng.random() < 0.5
        anchor = things[rng.integers(len(things))].name if anchored else None
        shape = Thing(rng.choice(list(CLUTTER)), log_uniform(CLUTTER_SIZE, rng), anchor)
        order.append((shape.size * rng.uniform(0.2, 1.2), shape))
    for _, thing in sorted(order, key=lambda item: -item[0]):
        faintest = SMALL_OPACITY if thing.size < SMALL[1] else 0.85
        canvas.add(thing, rng.uniform(faintest, 1))
    return canvas


def complete(canvas: Canvas, names: list[str]) -> None:
    """Draw labels that are not visible enough once more on top, until all are."""
    for _ in range(MAX_REDRAWS):
        missing = set(names) - {canvas.names[i] for i in canvas.visible()}
        if not missing:
            return
        name = min(missing)  # not any: the order of a set changes from run to run
        canvas.add(Thing(name, log_uniform(RARE, canvas.rng)), opacity=1)
    raise RunError(f"no room to show {', '.join(names)} in one image: too many labels")


def make_image(task: tuple[int, list[str] | None], split: Split) -> list[dict]:
    """Draw and save one image, of given labels or of a random scene; return its annotations."""
    index, names = task
    rng = np.random.default_rng((*split.seeds, index))
    if names is None:
        setting, *rules = SCENES[rng.choice(list(SCENES))]
        things = sample_things(rules if rng.random() >= EMPTY_CHANCE else [], split.sizes, rng)
    else:
        setting = rng.choice(list(BACKGROUNDS))
        things = [Thing(name, log_uniform(split.sizes[name], rng)) for name in names]
    canvas = paint_scene(things, setting, split.image_size, rng)
    complete(canvas, names or [])
    photo = photograph(canvas.image, rng)
    photo.save(split.image_dir / split.image_name(index), quality=90)
    return canvas.annotations()


def draw_images(split: Split, label_sets: list[list[str] | None], num_workers: int) -> list[list]:
    """Draw all images of a split; return the annotations of each."""
    make_folder(split.image_dir)
    make_folder(split.annotation_file.parent)
    split.annotation_file.unlink(missing_ok=True)  # its images are about to change
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
        raise RunError("a drawing process was killed; run it again, --num_workers lower") from None
    finally:
        executor.shutdown(cancel_futures=True)


def make_split(split: Split, label_sets: list[list[str] | None], args: argparse.Namespace) -> None:
    """Draw the images of a split, write its annotation file and print what came out."""
    images, annotations = [], []
    for index, found in enumerate(draw_images(split, label_sets, args.num_workers), start=1):
        shape = {"width": split.image_size, "height": split.image_size}
        images.append({"id": index, "file_name": split.image_name(index), **shape})
        for item in found:
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": index, **item, "iscrowd": 0})
    content = {
        "info": {"description": f"drawn by {Path(__file__).name}", "seed": args.seed},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": CATEGORY_IDS[n], "name": n} for n in DRAWINGS if n in split.sizes],
    }
    text = json.dumps(content)
    write_atomically(split.annotation_file, lambda file: file.write_text(text, encoding="utf-8"))
    pairs = {(item["image_id"], item["category_id"]) for item in annotations}
    print(
        f"{split.image_dir.name}: {len(images)} images, {len({label for _, label in pairs})}"
        f" labels, {len(pairs) / len(images):.2f} labels per image, in {split.image_dir}"
    )


def read_label_sets(file: Path) -> list[list[str]]:
    """The sorted label names of every labelled image of an instances file."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give --labels an MS-COCO instances file")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        labels: dict[int, set[str]] = {image["id"]: set() for image in content["images"]}
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(names[annotation["category_id"]])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file}: not an MS-COCO instances file ({type(error).__name__}: {error}); give one"
            " with images, annotations and categories whose ids agree"
        ) from None
    unknown = sorted({str(name) for name in names.values()} - set(DRAWINGS))
    if unknown:
        raise UsageError(
            f"{file}: there is no drawing of {unknown[0]!r}; rename its categories to the 80"
            " names of MS-COCO"
        )
    label_sets = [sorted(found) for found in labels.values() if found]
    if not label_sets:
        raise UsageError(f"{file}: no image has a label; give a file with annotations")
    return label_sets


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("data/scenes"), help="folder to write into")
    add("--num_train", type=positive_int, default=2000, help="images of the split train")
    add("--num_val", type=positive_int, default=500, help="images of the split val")
    add("--labels", type=Path, help="draw the label sets of this instances file instead")
    add("--num_images", type=positive_int, help="draw only so many of --labels, chosen at random")
    add("--image_size", type=image_side, default=96, help="width and height in pixels, 32 or more")
    add("--seed", type=non_negative_int, default=0, help="same seed, same files")
    add("--num_workers", type=positive_int, default=os.cpu_count(), help="processes that draw")
    return parser


def image_side(text: str) -> int:
    """argparse type: below 32 pixels nothing can be told apart."""
    side = positive_int(text)
    if side < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is below 32")
    return side


def main(args: argparse.Namespace) -> None:
    """Draw the default splits or, with --labels, the given label sets."""
    images, annotations = args.output_dir / "images", args.output_dir / "annotations"
    if args.labels is None:
        if args.num_images is not None:
            raise UsageError("--num_images is for --labels; use --num_train and --num_val instead")
        for number, (name, count) in enumerate((("train", args.num_train), ("val", args.num_val))):
            split = Split(
                annotations / f"instances_{name}.json",
                images / name,
                f"scene_{name}",
                args.image_size,
                default_sizes(),
                (args.seed, number),
            )
            make_split(split, [None] * count, args)
        return
    label_sets = read_label_sets(args.labels)
    stem, seeds = args.labels.stem, (args.seed, 2)
    file = annotations / f"{stem}.json"
    if file.resolve() == args.labels.resolve():
        raise UsageError(f"{file}: --labels would be overwritten; choose another --output_dir")
    count = args.num_images or len(label_sets)
    if count > len(label_sets):
        raise UsageError(
            f"{args.labels}: it has {len(label_sets)} labelled images, not {count}; lower"
            " --num_images"
        )
    order = np.random.default_rng(seeds).permutation(len(label_sets))[:count]
    split = Split(file, images / stem, stem, args.image_size, sizes_by_rank(label_sets), seeds)
    make_split(split, [label_sets[i] for i in order], args)


if __name__ == "__main__":
    run_script(main, get_args_parser())
