"""How long a COCO-sized annotation file takes to read, against Python's own json module."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from timing import Ratio, side_by_side

from labels.coco import read_annotations

NUM_IMAGES, NUM_ANNOTATIONS, NUM_CATEGORIES = 82_783, 604_907, 80  # of instances_train2014.json
POLYGON_NUMBERS = 47  # on average per annotation: the file has 330 MB


def measure() -> Iterator[Ratio]:
    """The file stays in the system's file cache, so the disk is not measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances_train2014.json"
        write_coco_sized(path)
        row = side_by_side(
            "labels of a COCO file: json.loads ÷ read_annotations",
            lambda: read_annotations(path),
            lambda: json.loads(path.read_bytes()),
            rounds=3,
            at_least=3.0,
        )
        megabytes = path.stat().st_size / 1e6
    yield replace(row, note=f"{megabytes:.0f} MB in {row.ours:.1f} s")


def write_coco_sized(path: Path) -> None:
    """Random boxes and polygons, with as many entries and bytes as COCO's training file."""
    rng = np.random.default_rng(0)
    images = rng.integers(NUM_IMAGES, size=NUM_ANNOTATIONS).tolist()
    categories = rng.integers(NUM_CATEGORIES, size=NUM_ANNOTATIONS).tolist()
    lengths = 2 * rng.geometric(2 / POLYGON_NUMBERS, NUM_ANNOTATIONS)
    starts = rng.integers(10_000, size=NUM_ANNOTATIONS)
    numbers = rng.uniform(0, 640, 10_000 + lengths.max()).round(2).tolist()
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"images": ')
        json.dump([image_entry(i) for i in range(NUM_IMAGES)], file)
        file.write(', "categories": ')
        json.dump([{"id": c, "name": f"label {c}"} for c in range(NUM_CATEGORIES)], file)
        file.write(', "annotations": [')
        for n, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            entry = {
                "segmentation": [numbers[start : start + length]],
                "area": numbers[start],
                "iscrowd": 0,
                "image_id": images[n],
                "bbox": numbers[start : start + 4],
                "category_id": categories[n],
                "id": n,
            }
            file.write((", " if n else "") + json.dumps(entry))
        file.write("]}")


def image_entry(number: int) -> dict[str, int | str]:
    """All fields that COCO has for an image."""
    name = f"COCO_train2014_{number:012d}.jpg"
    return {
        "license": 5,
        "file_name": name,
        "coco_url": f"http://images.example/{name}",
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-14 16:28:13",
        "flickr_url": f"http://photos.example/{name}",
        "id": number,
    }
