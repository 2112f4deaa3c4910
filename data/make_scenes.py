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
import multiprocessing
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from drawings import CLUTTER, DRAWINGS, draw, pick_colour
from PIL import Image, ImageFilter
from tqdm import tqdm

# A scene is a setting and rules, applied in turn: a chance, then labels.  "a + b" come together,
# of "a | b" there is one, "a*3" means one to three.  "at c" needs c in the image and places the
# labels on it, "with c" needs c only; of "c | d", the first in the image counts.
SCENES = {
    "kitchen": (
        "indoor",
        "0.90 sink",
        "0.75 dining table",
        "0.60 person",
        "0.50 chair*2 with dining table",
        "0.70 bowl + spoon at dining table",
        "0.60 orange*3 at bowl",
        "0.50 bottle*2 + cup at sink",
        "0.15 knife at sink",
        "0.12 cat | dog",
    ),
    "dining room": (
        "indoor",
        "0.96 dining table",
        "0.90 chair*3",
        "0.75 person*3",
        "0.65 fork*2 + knife*2 + spoon*2 at dining table",
        "0.60 cup*2 + bottle at fork",
        "0.25 bowl + orange*2 at dining table",
        "0.10 cat | dog",
    ),
    "living room": (
        "indoor",
        "0.90 couch",
        "0.70 tv",
        "0.80 remote at tv",
        "0.70 person*2",
        "0.50 cat | dog",
        "0.40 cell phone at person",
        "0.35 chair",
        "0.40 cup + bottle at couch",
    ),
    "office": (
        "indoor",
        "0.95 tv | laptop",
        "0.90 mouse + keyboard at tv",
        "0.50 mouse at laptop",
        "0.80 chair",
        "0.80 person",
        "0.65 tie at person",
        "0.55 cell phone + cup at laptop",
    ),
    "bathroom": (
        "indoor",
        "0.95 sink",
        "0.65 toothbrush*2 + cup at sink",
        "0.40 bottle at sink",
        "0.55 person",
        "0.15 cat",
    ),
    "street": (
        "outdoor",
        "0.95 car*3",
        "0.70 bus*2 | truck*2",
        "0.75 traffic light*2 with car",
        "0.75 person*3",
        "0.55 handbag at person",
        "0.35 tie + cell phone at person",
        "0.20 umbrella at person",
        "0.10 dog",
    ),
    "farm": (
        "outdoor",
        "0.96 horse*3 | cow*3",
        "0.50 dog with horse",
        "0.60 bird*3 with cow",
        "0.60 person at horse",
        "0.35 truck",
    ),
    "park": (
        "outdoor",
        "0.95 person*3",
        "0.65 sports ball at person",
        "0.55 dog | bird*3",
        "0.40 umbrella + handbag at person",
        "0.40 bottle + cup at person",
    ),
    "slope": (
        "outdoor",
        "0.95 person*3",
        "0.85 skis at person",
        "0.20 dog",
        "0.20 bird*2",
    ),
}
EMPTY_CHANCE = 0.02  # images without any label

# Limits of the longest side, as a part of the image's.  The defining labels are large.
SMALL = (0.08, 0.20)
SIZES = {
    (0.40, 0.90): "person, dining table, couch, bus, truck, horse, cow, sink, tv",
    (0.22, 0.50): "car, chair, laptop, cat, dog, umbrella, skis, bowl",
    SMALL: "traffic light, bird, handbag, tie, sports ball, bottle, cup, fork, knife, spoon,"
    " orange, mouse, remote, keyboard, cell phone, toothbrush",
}
# With --labels, between the most and the least frequent label of the file.
FREQUENT, RARE = (0.35, 0.85), (0.14, 0.30)

NUM_CLUTTER = 5  # mean number of unlabelled shapes in an image
CLUTTER_SIZE = (0.06, 0.35)
SMALL_OPACITY = 0.45  # the faintest small thing; large ones are nearly opaque
MIN_VISIBLE, MIN_PIXELS = 0.2, 6  # a thing is labelled if that much of it can be seen
MAX_NOISE, MAX_BLUR = 0.06, 0.8  # standard deviation (white is 1) and radius in pixels
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


Sizes = dict[str, tuple[float, float]]  # limits of the size, by label


class InputError(Exception):
    """Bad input; the message is one sentence for the user."""


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


@dataclass(frozen=True)
class Thing:
    """One instance to be drawn: `size` is a part of the image's side, `anchor` what it lies on."""

    name: str
    size: float
    anchor: str | None = None


def log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A random number whose logarithm is uniform between the limits'."""
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


def default_sizes() -> Sizes:
    """The table SIZES by label."""
    return {name: limits for limits, names in SIZES.items() for name in names.split(", ")}


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


def sample_things(rules: tuple[str, ...], sizes: Sizes, rng: np.random.Generator) -> list[Thing]:
    """Apply the rules of a scene in turn."""
    things: list[Thing] = []
    for rule in rules:
        chance, labels = rule.split(" ", 1)
        labels, _, hosts = labels.replace(" with ", " at ").partition(" at ")
        present = {thing.name for thing in things}
        found = [host for host in hosts.split(" | ") if host in present]
        if rng.random() >= float(chance) or (hosts and not found):
            continue
        terms = labels.split(" + ") if "+" in labels else [rng.choice(labels.split(" | "))]
        for term in terms:
            name, _, most = term.partition("*")
            for _ in range(rng.integers(1, int(most or 1) + 1)):
                anchor = found[0] if " at " in rule else None
                things.append(Thing(name, log_uniform(sizes[name], rng), anchor))
    return things


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
    raise RuntimeError(f"no room to show {', '.join(names)} in one image; enlarge --image_size")


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
    try:
        for folder in (split.image_dir, split.annotation_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot make this folder ({error.strerror}); choose another"
            " --output_dir"
        ) from None
    split.annotation_file.unlink(missing_ok=True)  # its images are about to change
    print(f"drawing {len(label_sets)} images into {split.image_dir}", file=sys.stderr)
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)  # only the parent answers Ctrl-C
    with multiprocessing.Pool(num_workers, signal.signal, ignore_interrupt) as pool:
        tasks = enumerate(label_sets, start=1)
        results = pool.imap(partial(make_image, split=split), tasks, chunksize=16)
        return list(tqdm(results, total=len(label_sets), disable=None))


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
    temporary = split.annotation_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, split.annotation_file)
    pairs = {(item["image_id"], item["category_id"]) for item in annotations}
    print(
        f"{split.image_dir.name}: {len(images)} images, {len({label for _, label in pairs})}"
        f" labels, {len(pairs) / len(images):.2f} labels per image, in {split.image_dir}"
    )


def read_label_sets(file: Path) -> list[list[str]]:
    """The sorted label names of every labelled image of an instances file."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; give --labels an MS-COCO instances file")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in content["categories"]}
        labels: dict[int, set[str]] = {image["id"]: set() for image in content["images"]}
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(names[annotation["category_id"]])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: not an MS-COCO instances file ({type(error).__name__}: {error}); give one"
            " with images, annotations and categories whose ids agree"
        ) from None
    unknown = sorted({str(name) for name in names.values()} - set(DRAWINGS))
    if unknown:
        raise InputError(
            f"{file}: there is no drawing of {unknown[0]!r}; rename its categories to the 80"
            " names of MS-COCO"
        )
    label_sets = [sorted(found) for found in labels.values() if found]
    if not label_sets:
        raise InputError(f"{file}: no image has a label; give a file with annotations")
    return label_sets


def at_least(minimum: int, text: str) -> int:
    """Parse a whole number that is not below a minimum."""
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or number < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
    return number


def get_args_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Draw the embedded data set, or images of given label sets.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count, whole = partial(at_least, 1), partial(at_least, 0)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("data/scenes"), help="Folder to write into.")
    add("--num_train", type=count, default=2000, help="Images of the split train.")
    add("--num_val", type=count, default=500, help="Images of the split val.")
    add("--labels", type=Path, help="Draw the label sets of this instances file instead.")
    add("--num_images", type=count, help="Draw only so many images of --labels, chosen at random.")
    size_help = "Width and height of the images in pixels."
    add("--image_size", type=partial(at_least, 32), default=96, help=size_help)
    add("--seed", type=whole, default=0, help="Seed of all random choices.")
    workers_help = "Processes that draw."
    add("--num_workers", type=count, default=os.cpu_count(), help=workers_help)
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw the default splits or, with --labels, the given label sets."""
    images, annotations = args.output_dir / "images", args.output_dir / "annotations"
    if args.labels is None:
        if args.num_images is not None:
            raise InputError("--num_images is for --labels; use --num_train and --num_val instead")
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
        raise InputError(f"{file}: --labels would be overwritten; choose another --output_dir")
    count = args.num_images or len(label_sets)
    if count > len(label_sets):
        raise InputError(
            f"{args.labels}: it has {len(label_sets)} labelled images, not {count}; lower"
            " --num_images"
        )
    order = np.random.default_rng(seeds).permutation(len(label_sets))[:count]
    split = Split(file, images / stem, stem, args.image_size, sizes_by_rank(label_sets), seeds)
    make_split(split, [label_sets[i] for i in order], args)


if __name__ == "__main__":
    try:
        main(get_args_parser().parse_args())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("error: interrupted; run it again to complete the data set", file=sys.stderr)
        sys.exit(1)
