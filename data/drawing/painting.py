"""Paint a scene, record which part of each object is visible, and make a photo of it."""

import math

import numpy as np
from PIL import Image, ImageFilter

from drawing.catalogue import CLUTTER, DRAWINGS
from drawing.scene_rules import RARE, SMALL, Thing, log_uniform
from drawing.shapes import draw, pick_colour
from util.errors import RunError

NUM_CLUTTER = 2  # mean number of unlabelled objects in an image
CLUTTER_SIZE = (0.06, 0.35)
SMALL_OPACITY = 0.55  # of the faintest small objects; large ones are nearly opaque
MIN_VISIBLE, MIN_PIXELS = 0.2, 6  # share and pixels of an object that must be visible
MAX_NOISE, MAX_BLUR = 0.03, 0.6  # standard deviation (white is 1) and radius in pixels
OVERSAMPLING = 2  # scenes are drawn larger and averaged down, which smooths edges
MAX_REDRAWS = 200

BACKGROUNDS = {  # colours of the upper and the lower part
    "indoor": (("cloth", "white", "bread", "glass"), ("wood", "steel", "bread", "cloth")),
    "outdoor": (("glass", "steel", "white", "screen"), ("leaf", "steel", "bread", "white")),
}
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # MS-COCO's ids have gaps
CATEGORY_IDS = dict(
    zip(DRAWINGS, (number for number in range(1, 91) if number not in UNUSED_IDS), strict=True)
)


def paint_background(setting: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours that meet at a horizon, with stripes or tiles, a gradient and blotches."""
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
    """Average down to the final size, change the lighting, add blur and sensor noise."""
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
    """An image while it is painted, and which object each pixel belongs to.

    image: H×W×3 float, OVERSAMPLING times as wide and high as the photo.
    owner: H×W, 0 for the background, else 1 + number of the object.
    """

    def __init__(self, background: np.ndarray, rng: np.random.Generator):
        self.image, self.rng = background, rng
        self.owner = np.zeros(background.shape[:2], dtype=int)
        self.names: list[str] = []
        self.areas: list[int] = []  # pixels of each object, hidden ones included
        self.places: dict[str, tuple[float, float, float]] = {}  # name -> last x, y and size

    def add(self, thing: Thing, opacity: float) -> None:
        """Draw an object at a random place on its anchor, or anywhere."""
        rng, side = self.rng, len(self.image)
        x, y = rng.uniform(0.1, 0.9, 2) * side
        if thing.anchor in self.places:
            x, y, reach = self.places[thing.anchor]
            x, y = np.clip((x, y) + rng.uniform(-0.4, 0.4, 2) * reach, 0.04 * side, 0.96 * side)
        size = thing.size * side
        turn = 0.5 if thing.size < SMALL[1] else 0.12  # small objects have any orientation
        mask = draw(self.image, thing.name, (x, y), size, rng, turn, opacity)
        self.names.append(thing.name)
        self.areas.append(np.count_nonzero(mask))
        self.owner[mask] = len(self.names)
        self.places[thing.name] = x, y, size

    def visible(self) -> list[int]:
        """Numbers of the objects that have a category and are visible enough."""
        seen = np.bincount(self.owner.ravel(), minlength=len(self.names) + 1)[1:]
        least = np.maximum(MIN_VISIBLE * np.array(self.areas), MIN_PIXELS * OVERSAMPLING**2)
        return [i for i in np.flatnonzero(seen >= least) if self.names[i] in DRAWINGS]

    def annotations(self) -> list[dict]:
        """Category, box [x, y, width, height] and area of each visible object's visible pixels.

        In pixels of the photo; edges are multiples of 1 / OVERSAMPLING.
        """
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
    """Paint objects and clutter, roughly in order of size, so that small ones are in front."""
    canvas = Canvas(paint_background(setting, image_size * OVERSAMPLING, rng), rng)
    order = [(thing.size * rng.uniform(0.8, 1.25), thing) for thing in things]
    for _ in range(rng.poisson(NUM_CLUTTER)):
        # half of the clutter is placed on objects, some of it in front of smaller ones
        anchored = things and rng.random() < 0.5
        anchor = things[rng.integers(len(things))].name if anchored else None
        shape = Thing(rng.choice(list(CLUTTER)), log_uniform(CLUTTER_SIZE, rng), anchor)
        order.append((shape.size * rng.uniform(0.2, 1.2), shape))
    for _, thing in sorted(order, key=lambda item: -item[0]):
        faintest = SMALL_OPACITY if thing.size < SMALL[1] else 0.85
        canvas.add(thing, rng.uniform(faintest, 1))
    return canvas


def redraw_hidden(canvas: Canvas, names: list[str]) -> None:
    """Draw labels that are not visible enough again on top, until all are. Raises RunError."""
    for _ in range(MAX_REDRAWS):
        missing = set(names) - {canvas.names[i] for i in canvas.visible()}
        if not missing:
            return
        name = min(missing)  # the order of a set changes from run to run
        canvas.add(Thing(name, log_uniform(RARE, canvas.rng)), opacity=1)
    raise RunError(f"no room to show {', '.join(names)} in one image: too many labels")
