"""Join the real COCO photos of ../shared into one folder, as links, with one label file per split.

    python benchmarks/quality/coco_photos.py

Writes data/coco-photos: 235 train and 320 val photos, each with its categories. quality.py calls
this set coco-photos; docs/RESULTS.md says what so few photos can show.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from util.cli import ArgumentParser, run_script  # noqa: E402
from util.errors import UsageError  # noqa: E402

SHARED = ROOT.parent / "shared"
SOURCES = [SHARED / name for name in ("coco-sample", "coco-more")]
FOLDER = ROOT / "data/coco-photos"


def get_args_parser() -> argparse.ArgumentParser:
    return ArgumentParser(__doc__)


def main(args: argparse.Namespace) -> None:
    """Link the photos, write the label files."""
    (FOLDER / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train2014", "val2014"):
        images, annotations = [], []
        links = FOLDER / "images" / split
        links.mkdir(parents=True, exist_ok=True)
        for source in SOURCES:
            path = source / f"annotations/instances_{split}.json"
            if not path.exists():
                raise UsageError(f"{path} does not exist: put real COCO photos there")
            part = json.loads(path.read_text("utf-8"))
            images += part["images"]
            annotations += part["annotations"]  # image ids are COCO's own, so they never clash
            for photo in (source / "images" / split).iterdir():
                link = links / photo.name
                link.unlink(missing_ok=True)
                link.symlink_to(photo)
        numbered = [a | {"id": n} for n, a in enumerate(annotations, start=1)]
        joined = {"images": images, "annotations": numbered, "categories": part["categories"]}
        (FOLDER / f"annotations/instances_{split}.json").write_text(json.dumps(joined), "utf-8")
        print(f"{links}: {len(images)} photos")


if __name__ == "__main__":
    run_script(main, get_args_parser())
