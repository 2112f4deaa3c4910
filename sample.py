"""Label images: each label's probability, the predicted labels, and a picture of both.

    python sample.py photo.jpg
    python sample.py holiday/ --checkpoint runs/scenes-chain/best.pt --output tagged
    python sample.py photo.jpg --known person --known dog --absent cat
    python sample.py photo.jpg --decide map --num_sets 5 --standard_errors
    python sample.py photo.jpg --json | jq .predicted

Needs only images and a checkpoint, by default that of the latest run. One image gets a slide.
Several, or a folder with folders in it, also get a contact sheet, predictions.jsonl, and
predictions.csv, which train.py reads as labels. The same command goes on after an interruption,
and labels the images that were added since. A file that sample.py did not write is not replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from images.decode import load_image
from inference.batches import load_batches
from inference.checkpoint import find_checkpoint
from inference.predictions import DECISIONS
from inference.predictor import Predictor, load
from report.fonts import choose_fonts
from report.inputs import Inputs, list_inputs
from report.marked import PROGRAM, SHEET, check_free
from report.prediction_files import (
    ABOUT,
    LINES,
    TABLE,
    UNREADABLE,
    PredictionFiles,
    cannot_be_listed,
    check_about,
)
from report.sample_text import format_result
from report.slides import draw_slide, make_tile, save_contact_sheet, slide_path
from training.signals import lock_output_dir
from util.cli import ArgumentParser, code_commit, non_negative_int, positive_int, run_script
from util.errors import RunError, UsageError
from util.log import log, printable, progress, some

ON_SHEET = 200  # images on the contact sheet at most, the first ones
NOTES = 5  # images that cannot be read: the first ones are named on the console, a file has all
OUTPUT = Path("samples")
DECIDE = (
    "predict labels above the threshold, labels above their own threshold, the most probable set, "
    "or the set with the highest expected F1"
)
ONE, MANY = 256, 128  # label sets sampled per image; 128 as evaluate.py does
NUM_SAMPLES = f"label sets sampled per image; default: {ONE} for one image, {MANY} for several"
HOW = ("known", "absent", "decide", "num_sets", "num_samples", "standard_errors")


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE", help="images, or folders of images")
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--output", type=Path, help="default: samples, or samples/FOLDER for a folder's images")
    add("--num_slides", type=non_negative_int, default=200, help="slides at most, the first ones")
    add("--top", type=positive_int, default=8, help="labels to show at most")
    add("--num_samples", type=positive_int, help=NUM_SAMPLES)
    add("--decide", choices=DECISIONS, default="threshold", help=DECIDE)
    add("--num_sets", type=positive_int, default=1, help="most probable label sets to list")
    add("--standard_errors", action="store_true", help="add the errors of the probabilities")
    add("--known", action="append", default=[], metavar="LABEL", help="a label on the image")
    add("--absent", action="append", default=[], metavar="LABEL", help="a label not on the image")
    add("--batch_size", type=positive_int, default=64, help="lower it if memory runs out")
    add("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    add("--json", action="store_true", help="print one JSON object per image, write nothing")
    return parser


def main(args: argparse.Namespace) -> None:
    """Label each image, print the result, draw it."""
    path = find_checkpoint(args.checkpoint)
    model = load(path, args.device, args.amp)
    model.encode_known(args.known, args.absent)  # an unknown label is an error before all work
    inputs = list_inputs(args.images)
    is_one = len(args.images) == 1 and inputs.named
    args.num_samples = args.num_samples or (ONE if is_one else MANY)
    if args.json:
        print_json(args, model, inputs)
    elif is_one:
        show_one(args, model, args.images[0])
    else:
        try:
            label_all(args, model, inputs, path)
        except KeyboardInterrupt:
            raise RunError("stopped by the user; the same command goes on") from None


def print_json(args: argparse.Namespace, model: Predictor, inputs: Inputs) -> None:
    """--json: a line for each image."""
    failed = {}
    for results, errors in predict(args, model, inputs, inputs.names):
        write_out(
            json.dumps({"image": str(inputs.root / name), **result})
            for name, result in results.items()
        )
        leave_out(errors)
        failed |= errors
    check_outcome(inputs, failed, len(inputs.names) - len(failed))


def show_one(args: argparse.Namespace, model: Predictor, image: Path) -> None:
    """Print one image's labels, and draw its slide."""
    output = args.output or OUTPUT
    if os.path.lexists(output / ABOUT):
        raise UsageError(f"{output} has the predictions of a folder: choose another --output")
    path = slide_path(output, image.name)
    check_free(path)
    encoding = model.encode(image)
    result = {"image": str(image), **model.describe(encoding, **how(args))}
    print(format_result(result, args.top, path))
    maps = model.class_activation_maps(encoding)
    draw_slide(load_image(image), result, maps, args.top, path, choose_fonts(model.labels))


def label_all(args: argparse.Namespace, model: Predictor, inputs: Inputs, checkpoint: Path) -> None:
    """Label many images and keep the results in the output folder; go on with what is there."""
    output = args.output or OUTPUT / inputs.full_root.name
    about = describe_run(args, model, inputs, checkpoint)
    if output.is_dir():
        check_about(output, about)  # before the lock leaves a file there
    with lock_output_dir(output, "--output"), PredictionFiles(output, about, model.labels) as files:
        there = {*files.names}
        new = [name for name in inputs.names if name not in there]
        for name in [*files.names, *new][: args.num_slides]:
            check_free(slide_path(output, name))
        check_free(output / SHEET)
        if new and len(there) < ON_SHEET:
            (output / SHEET).unlink(missing_ok=True)  # it gets other images
        if len(new) < len(inputs.names):
            known = len(inputs.names) - len(new)
            log(f"{output}: {known:,} of {len(inputs.names):,} images are labelled already")
        failed = predict_new(args, model, inputs, new, files, output)
        num_read = len(files.names)
        if num_read:
            draw_all(args, model, inputs.root, files, output)
            report(args, inputs, files, output)
        check_outcome(inputs, failed, num_read)


def describe_run(
    args: argparse.Namespace, model: Predictor, inputs: Inputs, checkpoint: Path
) -> dict:
    """What makes the predictions: the content of sample.json."""
    with checkpoint.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    about = {
        "program": PROGRAM,
        "commit": code_commit(),
        "root": str(inputs.full_root),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": digest.hexdigest(),
        "flags": {name: getattr(args, name) for name in (*HOW, "amp")},
    }
    if args.decide in model.thresholds:
        values = np.broadcast_to(model.thresholds[args.decide], len(model.labels)).tolist()
        about["thresholds"] = dict(zip(model.labels, values, strict=True))
    return about


def predict_new(
    args: argparse.Namespace,
    model: Predictor,
    inputs: Inputs,
    names: list[str],
    files: PredictionFiles,
    output: Path,
) -> dict[str, str]:
    """Predict, write and print batch by batch. Returns the images that failed, and why."""
    failed = {name: why for name in names if (why := cannot_be_listed(name))}
    leave_out(failed, files)
    for results, errors in predict(args, model, inputs, [n for n in names if n not in failed]):
        start = len(files.names)
        files.add([{"image": name, **result} for name, result in results.items()])
        drawings = [
            slide_path(output, name) if number < args.num_slides else None
            for number, name in enumerate(results, start)
        ]
        write_out(
            format_result({"image": str(inputs.root / name), **result}, args.top, drawing)
            for (name, result), drawing in zip(results.items(), drawings, strict=True)
        )
        leave_out(errors, files)
        failed |= errors
    return failed


def leave_out(failed: dict[str, str], files: PredictionFiles | None = None) -> None:
    """Say why images are left out, and list them."""
    for name, why in failed.items():
        if files:
            files.add_unreadable(name, why)
        if not files or files.num_unreadable <= NOTES:
            tqdm.write(printable(f"note: {why}; left out"), file=sys.stderr)


def predict(
    args: argparse.Namespace, model: Predictor, inputs: Inputs, names: list[str]
) -> Iterator[tuple[dict[str, dict], dict[str, str]]]:
    """For each batch: image -> result, and image -> why it cannot be read."""
    loader = load_batches(inputs.root, names, model.transform, args.batch_size, args.num_workers)
    batches = progress(loader, "predicting") if len(loader) > 1 else loader
    for pixels, indices, errors in batches:
        results = model.describe_batch(model.encode_batch(pixels), **how(args)) if indices else []
        found = dict(zip([names[i] for i in indices], results, strict=True))
        yield found, {names[i]: str(error) for i, error in errors}


def how(args: argparse.Namespace) -> dict:
    """The options of `Predictor.describe`."""
    return {name: getattr(args, name) for name in HOW}


def write_out(texts: Iterable[str]) -> None:
    """Print to stdout at once, above the progress bar if there is one."""
    if text := "\n".join(texts):
        tqdm.write(text)
        sys.stdout.flush()  # a killed process loses nothing


def draw_all(
    args: argparse.Namespace,
    model: Predictor,
    root: Path,
    files: PredictionFiles,
    output: Path,
) -> None:
    """Draw the slides and the contact sheet, unless they are there."""
    slides = files.first(args.num_slides)
    slides = [r for r in slides if not slide_path(output, r["image"]).exists()]
    sheet = output / SHEET
    lettering = choose_fonts(model.labels)
    for result in progress(slides, "drawing", "slides"):
        with left_out_if_gone():
            photo, encoding = (
                load_image(root / result["image"]),
                model.encode(root / result["image"]),
            )
            maps = model.class_activation_maps(encoding)
            draw_slide(
                photo, result, maps, args.top, slide_path(output, result["image"]), lettering
            )
    if not sheet.exists():
        tiles = []
        for result in files.first(ON_SHEET):
            with left_out_if_gone():
                photo = load_image(root / result["image"])
                tiles.append(make_tile(photo, result["predicted"], lettering))
        if tiles:
            save_contact_sheet(tiles, sheet)


@contextlib.contextmanager
def left_out_if_gone() -> Iterator[None]:
    """Log that an image cannot be drawn: it was there when it was labelled."""
    try:
        yield
    except UsageError as error:
        log(f"note: {error}; not drawn")


def report(args: argparse.Namespace, inputs: Inputs, files: PredictionFiles, output: Path) -> None:
    """Say what was written, and how to train on it."""
    slides = min(len(files.names), args.num_slides)
    log(f"{output}: {TABLE} and {LINES} ({len(files.names):,} images), {slides:,} slides, {SHEET}")
    if files.num_unreadable:
        log(f"{output / UNREADABLE} lists what cannot be read: {files.num_unreadable:,}")
    paths = shlex.quote(str(inputs.root)), shlex.quote(str(output / TABLE))
    log("to train on these labels, correct them first and run")
    log("  python train.py --image_path {} --annotations {}".format(*paths))


def check_outcome(inputs: Inputs, failed: dict[str, str], num_read: int) -> None:
    """Raise UsageError if an image given by name cannot be read, or if none can."""
    named = [why for name, why in failed.items() if name in inputs.named]
    if named:
        raise UsageError(some(named, 3))
    if not num_read:
        raise UsageError("none of the images can be read")


if __name__ == "__main__":
    run_script(main, get_args_parser())
