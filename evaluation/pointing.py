"""The pointing game: how often the peak of a label's class activation map lies on its object.

(Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016; they also accept peaks
up to 15 pixels off, here a peak must lie on the object itself.)

A pair is an image and one of its annotated labels. It is a hit if the peak lies on any object of
the label: inside its mask where the annotations have one, else inside its box. The centre of the
picture is the baseline: photographers aim at their subject, and objects can be large.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evaluation.metrics import mean, mean_over_labels
from images.decode import MAX_PIXELS, read_header
from images.shards import ShardMember
from labels.annotated import AnnotatedImages
from labels.coco import NAME, CocoObject, read_objects
from labels.merge import read_merges
from labels.options import DEFAULTS, ReadOptions
from labels.tags import spellings
from labels.vocabulary import Vocabulary
from model import Encoding
from util.errors import UsageError

CENTRE = (0.5, 0.5)
FAR = 1  # picture sizes that a polygon may reach outside of the picture


def read_label_objects(
    images: AnnotatedImages, vocabulary: Vocabulary, options: ReadOptions = DEFAULTS
) -> list[dict[str, list[CocoObject]]]:
    """For each image, its objects by the vocabulary's labels; options as given to `read_labels`.

    Raises UsageError unless the annotations are a COCO file with boxes or masks.
    """
    if images.kind != NAME:
        raise UsageError(
            f"--pointing needs boxes or masks as in COCO; {images.source} is {images.kind}"
        )
    found, spelling = read_objects(Path(images.source)), spellings(images, vocabulary)
    merges = read_merges(options.merge) if options.merge else {}
    rows = []
    for name in images.file_names:
        row: dict[str, list[CocoObject]] = {}
        for thing in found[name]:
            label = merges.get(thing.label, thing.label)
            row.setdefault(spelling.get(label, label), []).append(thing)
        rows.append(row)
    return rows


@torch.no_grad()
def map_peaks(encoding: Encoding) -> np.ndarray:
    """B×C×2 float32: x and y of each class activation map's peak, as shares of the picture.

    The network sees the whole picture squeezed to a square, so shares are the same in both. A
    peak is the centre of the highest cell, the first one if several are equal. (Enlarging the map
    bilinearly would not move it: no interpolated value is above the cells around it.)
    """
    maps = torch.stack([encoding.class_activation_map(i) for i in range(len(encoding.cnn_logits))])
    height, width = maps.shape[2:]
    cell = maps.flatten(2).argmax(2)
    x, y = (cell % width + 0.5) / width, (cell // width + 0.5) / height
    return torch.stack([x, y], -1).float().cpu().numpy()


def pointing_game(
    peaks: np.ndarray,
    targets: np.ndarray,
    objects: list[dict[str, list[CocoObject]]],
    paths: list[Path] | list[ShardMember],
    labels: tuple[str, ...],
) -> dict:
    """Accuracies in percent of the peaks N×C×2 and of the picture's centre.

    objects: per image, its objects by label. Pairs whose objects have neither box nor mask are
    left out. Raises UsageError for a mask that does not fit its picture.
    """
    hits = np.full((2, *targets.shape), np.nan)  # 1 or 0 for the pairs in the game
    for i, label_objects in enumerate(objects):
        located = {
            c: [o for o in label_objects.get(labels[c], ()) if o.bbox or o.segmentation]
            for c in np.flatnonzero(targets[i])
        }
        if not any(located.values()):
            continue
        orientation, stored_size = read_header(paths[i])
        for c, things in located.items():
            if things:
                size = _image_size(things[0], stored_size)
                turned = orientation if _is_stored(size, stored_size, orientation) else 1
                for k, point in enumerate((peaks[i, c], CENTRE)):
                    x, y = before_turn(*map(float, point), turned)
                    hits[k, i, c] = any(contains(o, x, y, size) for o in things)
    return _accuracies(hits, labels)


def _accuracies(hits: np.ndarray, labels: tuple[str, ...]) -> dict:
    """2×N×C hits of peaks and centres, nan for pairs outside the game -> the results."""
    known = ~np.isnan(hits[0])
    support = known.sum(0)
    by_label = 100 * np.array([[mean(h[k, c]) for c, k in enumerate(known.T)] for h in hits])
    return {
        "pairs": int(known.sum()),
        **{
            name: {"all_pairs": 100 * mean(h[known]), "label_mean": float(mean_over_labels(row))}
            for name, h, row in zip(("peak", "centre"), hits, by_label, strict=True)
        },
        "per_label": [
            {"label": label, "pairs": int(support[c])}
            | {"peak": float(by_label[0, c]), "centre": float(by_label[1, c])}
            for c, label in enumerate(labels)
        ],
    }


def _image_size(thing: CocoObject, stored_size: tuple[int, int]) -> tuple[int, int]:
    """Width and height that boxes and masks refer to; the file's if the annotations lack them."""
    width, height = thing.image_size or stored_size
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise UsageError(f"{thing.place} is on an image of {width} × {height} pixels: correct it")
    return width, height


def _is_stored(size: tuple[int, int], stored_size: tuple[int, int], orientation: int) -> bool:
    """Whether boxes refer to the picture as stored, before EXIF turns it upright, as COCO's do.

    Some tools annotate the upright picture. A quarter turn shows by its swapped sides; a half
    turn and a mirrored picture cannot be told apart and count as stored.
    """
    (width, height), (stored_width, stored_height) = size, stored_size
    return orientation < 5 or (width > height) == (stored_width > stored_height)


def before_turn(x: float, y: float, orientation: int) -> tuple[float, float]:
    """A point of the upright picture -> the same point of the picture as stored; both in shares.

    `orientation` is EXIF's, 1 to 8 (1 is upright).
    """
    return {
        1: (x, y),
        2: (1 - x, y),
        3: (1 - x, 1 - y),
        4: (x, 1 - y),
        5: (y, x),
        6: (y, 1 - x),
        7: (1 - y, 1 - x),
        8: (1 - y, x),
    }[orientation]


def contains(thing: CocoObject, x: float, y: float, size: tuple[int, int]) -> bool:
    """Whether the point x, y (shares of the picture) lies on an object of an image of this size.

    Raises UsageError for a mask that does not fit the image.
    """
    width, height = size
    x, y = x * width, y * height
    if thing.bbox:
        left, top, wide, high = thing.bbox
        # a quick no for most points; a drawn mask may reach a pixel over its box
        if not (-1 <= x - left <= wide + 1 and -1 <= y - top <= high + 1):
            return False
    if thing.segmentation is None:
        return bool(thing.bbox) and 0 <= x - left < wide and 0 <= y - top < high
    return bool(_draw_mask(thing, size)[int(y), int(x)])


def _draw_mask(thing: CocoObject, size: tuple[int, int]) -> np.ndarray:
    """H×W, 1 on the object. Raises UsageError for a mask that does not fit the image."""
    from pycocotools import mask as coco_mask  # imported here: only --pointing needs it

    (width, height), shape = size, thing.segmentation
    if isinstance(shape, list):
        # drawing a far point would take memory for each pixel on the way
        points, limit = np.concatenate(shape).reshape(-1, 2), np.array(size)
        if not ((points >= -FAR * limit) & (points <= (1 + FAR) * limit)).all():
            raise UsageError(f"{thing.place} has a polygon far outside of its image")
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, height, width)))
    plain = not isinstance(shape["counts"], str)
    if shape["size"] != [height, width] or (plain and sum(shape["counts"]) != height * width):
        raise UsageError(f"{thing.place} has a mask of another size than its image")
    try:
        return coco_mask.decode(coco_mask.frPyObjects(shape, height, width) if plain else shape)
    except (ValueError, OverflowError):
        raise UsageError(f"{thing.place} has a mask that cannot be decoded") from None
