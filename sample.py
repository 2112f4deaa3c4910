"""Label images: each label's probability, the predicted labels, and a picture of both.

    python sample.py photo.jpg
    python sample.py photo.jpg holiday/ --checkpoint runs/scenes-chain/best.pt --output tagged
    python sample.py photo.jpg --known person --known dog --absent cat
    python sample.py photo.jpg --decide map --num_sets 5 --standard_errors
    python sample.py photo.jpg --json | jq .predicted

Needs only images and a checkpoint, by default that of the latest run. Several images also get a
contact sheet, and their labels are written to labels.csv and labels.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from images.decode import load_image
from inference.checkpoint import find_checkpoint
from inference.predictions import DECISIONS
from inference.predictor import load
from report.sample_text import format_result, save_labels
from report.slides import draw_slide, make_tile, name_drawings, save_contact_sheet
from util.cli import ArgumentParser, positive_int, run_script
from util.errors import UsageError
from util.files import is_file, is_picture, left_out, make_folder, walk
from util.log import log

SHEET = 200  # images on the contact sheet at most, the first ones
DECIDE = (
    "predict labels above the threshold, labels above their own threshold, the most probable set, "
    "or the set with the highest expected F1"
)


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE", help="images, or folders of images")
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--output", type=Path, default=Path("samples"), help="folder for the pictures")
    add("--top", type=positive_int, default=8, help="labels to show at most")
    add("--num_samples", type=positive_int, default=256, help="label sets sampled per image")
    add("--decide", choices=DECISIONS, default="threshold", help=DECIDE)
    add("--num_sets", type=positive_int, default=1, help="most probable label sets to list")
    add("--standard_errors", action="store_true", help="add the errors of the probabilities")
    add("--known", action="append", default=[], metavar="LABEL", help="a label on the image")
    add("--absent", action="append", default=[], metavar="LABEL", help="a label not on the image")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    add("--json", action="store_true", help="print one JSON object per image, draw nothing")
    return parser


def main(args: argparse.Namespace) -> None:
    """Label each image, print the result, draw it."""
    model = load(find_checkpoint(args.checkpoint), args.device, args.amp)
    model.encode_known(args.known, args.absent)  # an unknown label is an error before all work
    files = list_images(args.images, args.output)
    if not args.json:
        if len(files) > 1 and args.output.resolve() in {file.resolve().parent for file in files}:
            raise UsageError(
                f"--output {args.output} is a folder of the images, where labels.csv would be "
                "replaced: choose another"
            )
        make_folder(args.output)
    results, tiles = [], []
    for file, drawing in zip(files, name_drawings(files, args.output), strict=True):
        try:
            encoding = model.encode(file)
        except UsageError as error:
            if file in args.images:
                raise
            log(f"note: {error}; left out")
            continue
        found = model.describe(
            encoding,
            known=args.known,
            absent=args.absent,
            decide=args.decide,
            num_sets=args.num_sets,
            num_samples=args.num_samples,
            standard_errors=args.standard_errors,
        )
        results.append({"image": str(file), **found})
        if args.json:
            print(json.dumps(results[-1]))
            continue
        photo = load_image(file)
        draw_slide(photo, found, model.class_activation_maps(encoding), args.top, drawing)
        print(format_result(results[-1], args.top, drawing))
        if len(tiles) < SHEET:
            tiles.append(make_tile(photo, found["predicted"]))
    if not results:
        raise UsageError("none of the images can be read")
    if len(tiles) > 1:
        save_contact_sheet(tiles, args.output / "contact_sheet.png")
        save_labels(results, args.output)
        what = f"contact_sheet.png ({len(tiles)} images), labels.csv and labels.jsonl"
        log(f"wrote {what} to {args.output}")


def list_images(given: list[Path], output: Path) -> list[Path]:
    """The files given, and the pictures at any depth in the folders given.

    Those in the folder `output` are drawings of an earlier run, and left out. Raises UsageError.
    """
    files = []
    for path in given:
        if path.is_dir():
            drawn = output.resolve() if path.resolve() in output.resolve().parents else None
            found = [
                Path(entry.path)
                for folder, entries in walk(path)
                if drawn not in (own := (path / folder).resolve(), *own.parents)
                for entry in entries
                if is_file(entry)
            ]
            inside = [file for file in found if is_picture(file.name)]
            others = left_out(file.name for file in found if not is_picture(file.name))
            if not inside:
                what = f": {others}" if others else ""
                raise UsageError(f"there are no images in the folder {path}{what}")
            if others:
                log(f"{path}: {others}")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"there is no image {path}")
    return files


if __name__ == "__main__":
    run_script(main, get_args_parser())
