"""Label images: each label's probability, the predicted labels, and a picture of both.

    python sample.py photo.jpg
    python sample.py holiday/ --checkpoint runs/scenes-chain/best.pt --output tagged
    python sample.py photo.jpg --known person --known dog --absent cat
    python sample.py photo.jpg --rules rules.txt
    python sample.py photo.jpg --decide map --num_sets 5 --standard_errors
    python sample.py photo.jpg --json | jq .predicted
    python sample.py photo.jpg --annotations data/labels.csv
    python sample.py photo.jpg --checkpoint runs/nus81 runs/nus1k
    python sample.py holiday/ --write xmp
    python sample.py holiday/ --format labelstudio

Needs only images and a checkpoint, by default that of the latest run. One image gets a slide.
Several images, or a folder with all folders in it, also get a contact sheet, predictions.jsonl,
and predictions.csv, which train.py reads as labels. The same command goes on after an interruption,
and labels the images that were added since. Several checkpoints are shown side by side; then only
slides are written. --annotations adds the true labels. A file that sample.py did not write is not
replaced. --write xmp adds the labels as tags to side-cars beside the photos, photo.jpg.xmp, and
keeps all that is in them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from images.decode import load_image
from inference.batches import load_batches
from inference.checkpoint import find_checkpoint
from inference.predictor import check_samples, load
from inference.promises import DECIDE, decision
from labels.options import add_label_flags
from report.fonts import choose_fonts
from report.inputs import Inputs, check_outcome, left_out_if_gone, list_inputs
from report.marked import PROGRAM, check_free
from report.outlets import OUTLETS, Outlets
from report.prediction_files import (
    ABOUT,
    PredictionFiles,
    cannot_be_listed,
    check_about,
    report_written,
)
from report.sample_text import format_result
from report.side_by_side import draw_side_by_side, format_side_by_side, join_results
from report.slides import draw_slide, make_tile, save_contact_sheet, slide_path
from report.tool_files import FORMATS
from report.truth import Labeller, legend, read_truths
from training.signals import lock_output_dir
from util.cli import ArgumentParser, code_commit, non_negative_int, positive_int, run_script
from util.errors import RunError, UsageError
from util.files import make_folder
from util.log import log, printable, progress
from util.marked import SHEET
from util.reading import open_file

ON_SHEET = 200  # images on the contact sheet at most, the first ones
NOTES = 5  # images that cannot be read: the first ones are named on the console, a file has all
OUTPUT = Path("samples")
ONE, MANY = 256, 128  # label sets sampled per image; 128 as evaluate.py does
NUM_SAMPLES = f"label sets sampled per image; default: {ONE} for one image, {MANY} for several"
CHECKPOINT = (
    "best.pt of a run, or its folder; default: the latest. Several: side by side, only slides, no "
    "predictions.csv"
)
ANNOTATIONS = "true labels, to mark right, missed and added ones; or one for each checkpoint"
Batches = Iterator[tuple[dict[str, dict], dict[str, str]]]  # results; why images cannot be read
DESCRIBE_FLAGS = ("known", "absent", "decide", "num_sets", "num_samples", "standard_errors")


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("images", type=Path, nargs="*", metavar="IMAGE", help="images, or folders of images")
    add("--checkpoint", type=Path, nargs="+", help=CHECKPOINT)
    add("--annotations", type=Path, nargs="+", default=[], help=ANNOTATIONS)
    add("--output", type=Path, help="default: samples, or samples/FOLDER for a folder's images")
    add("--num_slides", type=non_negative_int, default=200, help="slides at most, the first ones")
    add("--top", type=positive_int, default=8, help="labels to show at most")
    add("--num_samples", type=positive_int, help=NUM_SAMPLES)
    add("--decide", type=decision, default="threshold", metavar="RULE", help=DECIDE)
    add("--num_sets", type=positive_int, default=1, help="most probable label sets to list")
    add("--standard_errors", action="store_true", help="add the errors of the probabilities")
    add("--known", action="append", default=[], metavar="LABEL", help="a label on the image")
    add("--absent", action="append", default=[], metavar="LABEL", help="a label not on the image")
    add("--rules", type=Path, metavar="TXT", help="rules for label sets, such as puppy -> dog")
    add("--batch_size", type=positive_int, default=64, help="lower it if memory runs out")
    add("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    add("--json", action="store_true", help="print one JSON object per image, write nothing")
    add("--write", choices=OUTLETS, help="add the labels as tags to XMP side-cars of the photos")
    add("--format", choices=FORMATS, help="also write the predictions as a file for this tool")
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Label each image, print the result, draw it."""
    if not args.images:
        raise UsageError("name an IMAGE, before flags of several values such as --checkpoint")
    paths = [find_checkpoint(path) for path in args.checkpoint or [None]]
    models = [load(path, args.device, args.amp, args.rules) for path in paths]
    for model in models:
        model.encode_known(args.known, args.absent)  # an unknown label is an error before all work
        model.thresholds_of(args.decide)  # and so is a promise that cannot be kept
        model.check_promise(args.decide, args.known, args.absent)
    inputs = list_inputs(args.images)
    args.num_samples = args.num_samples or (ONE if inputs.is_one else MANY)
    check_samples(args.num_samples, args.standard_errors)
    truths = read_truths(args.annotations, models, vars(args), inputs)
    labellers = list(map(Labeller, paths, models, truths))
    Outlets(args.write, args.format).check(labellers, args.json)
    if args.annotations and not args.json:
        log(legend())
    batches = [predict(args, labeller, inputs, inputs.names) for labeller in labellers]
    joined = join_results(paths, batches) if len(paths) > 1 else batches[0]
    if args.json:
        for results in readable(joined, inputs):
            write_out(
                json.dumps({"image": str(inputs.root / name), **result})
                for name, result in results.items()
            )
    elif len(paths) > 1:
        show_side_by_side(args, labellers, inputs, joined)
    elif inputs.is_one:
        show_one(args, labellers[0], args.images[0])
    else:
        try:
            label_all(args, labellers[0], inputs)
        except KeyboardInterrupt:
            raise RunError("stopped by the user; the same command goes on") from None


def readable(batches: Batches, inputs: Inputs) -> Iterator[dict[str, dict]]:
    """The results. Says which images cannot be read. Raises UsageError at the end."""
    failed = {}
    for results, errors in batches:
        yield results
        report_unreadable(errors)
        failed |= errors
    check_outcome(inputs, failed, len(inputs.names) - len(failed))


def show_side_by_side(
    args: argparse.Namespace, labellers: list[Labeller], inputs: Inputs, batches: Batches
) -> None:
    """Several models: print each image's labels, and draw the slides."""
    output = args.output or (OUTPUT if inputs.is_one else OUTPUT / inputs.full_root.name)
    check_no_predictions(output)
    slides = {name: slide_path(output, name) for name in inputs.names[: args.num_slides]}
    for path in slides.values():
        check_free(path)
    lettering = [choose_fonts(labeller.labels) for labeller in labellers]
    for results in readable(batches, inputs):
        write_out(
            format_side_by_side({"image": str(inputs.root / name), **result}, slides.get(name))
            for name, result in results.items()
        )
        for name in slides.keys() & results.keys():
            with left_out_if_gone():
                photo = load_image(inputs.root / name)
                draw_side_by_side(photo, results[name], slides[name], lettering)


def check_no_predictions(output: Path) -> None:
    """Raise UsageError for the output folder of `label_all`: its slides are all of one kind."""
    if os.path.lexists(output / ABOUT):
        raise UsageError(f"{output} has the predictions of a folder: choose another --output")


def show_one(args: argparse.Namespace, labeller: Labeller, image: Path) -> None:
    """Print one image's labels, and draw its slide."""
    output = args.output or OUTPUT
    check_no_predictions(output)
    make_folder(output)
    path = slide_path(output, image.name)
    check_free(path)
    encoding = labeller.model.encode(image)
    result = labeller.model.describe(encoding, **describe_options(args))
    result = {"image": str(image), **labeller.truth.beside(image.name, result)}
    print(format_result(result, args.top, path))
    maps = labeller.model.class_activation_maps(encoding)
    draw_slide(load_image(image), result, maps, args.top, path, choose_fonts(labeller.labels))
    found = [{**result, "image": image.name}]
    Outlets(args.write, args.format).hand_over(lambda: found, labeller, image.parent, output, False)


def label_all(args: argparse.Namespace, labeller: Labeller, inputs: Inputs) -> None:
    """Label many images and keep the results in the output folder; go on with what is there."""
    output = args.output or OUTPUT / inputs.full_root.name
    about = what_makes_them(args, labeller, inputs)
    if output.is_dir():
        check_about(output, about)  # before the lock leaves a file there
    with (
        lock_output_dir(output, "--output"),
        PredictionFiles(output, about, labeller.model.labels) as files,
    ):
        there = {*files.names}
        new = [name for name in inputs.names if name not in there]
        drawn = [slide_path(output, name) for name in [*files.names, *new][: args.num_slides]]
        for path in (*drawn, output / SHEET):
            check_free(path)
        outdated = [] if there else drawn  # of another model, or without the true labels
        if new and len(there) < ON_SHEET:
            outdated.append(output / SHEET)  # it gets other images
        for path in outdated:
            path.unlink(missing_ok=True)
        if len(new) < len(inputs.names):
            known = len(inputs.names) - len(new)
            log(f"{output}: {known:,} of {len(inputs.names):,} images are labelled already")
        failed = predict_new(args, labeller, inputs, new, files, output)
        num_read = len(files.names)
        if num_read:
            draw_all(args, labeller, inputs.root, files, output)
            report_written(files, min(num_read, args.num_slides), inputs.root)
            outlets = Outlets(args.write, args.format)
            outlets.hand_over(files.all, labeller, inputs.root, output, recorded=True)
        check_outcome(inputs, failed, num_read)


def what_makes_them(args: argparse.Namespace, labeller: Labeller, inputs: Inputs) -> dict:
    """What makes the predictions: the content of sample.json."""
    checkpoint, model = labeller.checkpoint, labeller.model
    with open_file(checkpoint) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    about = {
        "program": PROGRAM,
        "commit": code_commit(),
        "root": str(inputs.full_root),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": digest.hexdigest(),
        "labels_sha256": labeller.truth.digest,
        "flags": {name: getattr(args, name) for name in (*DESCRIBE_FLAGS, "amp")},
    }
    if args.annotations:
        about["flags"]["annotations"] = str(args.annotations[0])
    if model.rules:
        about["flags"]["rules"] = [rule.text for rule in model.rules.rules]
    if (fixed := model.thresholds_of(args.decide)) is not None:
        values = np.broadcast_to(fixed, len(model.labels)).tolist()
        about["thresholds"] = dict(zip(model.labels, values, strict=True))
    return about


def predict_new(
    args: argparse.Namespace,
    labeller: Labeller,
    inputs: Inputs,
    names: list[str],
    files: PredictionFiles,
    output: Path,
) -> dict[str, str]:
    """Predict, write and print batch by batch. Returns the images that failed, and why."""
    failed = {name: why for name in names if (why := cannot_be_listed(name))}
    report_unreadable(failed, files)
    names = [name for name in names if name not in failed]
    for results, errors in predict(args, labeller, inputs, names):
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
        report_unreadable(errors, files)
        failed |= errors
    return failed


def report_unreadable(failed: dict[str, str], files: PredictionFiles | None = None) -> None:
    """Say why images are left out, and list them."""
    for name, why in failed.items():
        if files:
            files.add_unreadable(name, why)
        if not files or files.num_unreadable <= NOTES:
            tqdm.write(printable(f"note: {why}; left out"), file=sys.stderr)


def predict(
    args: argparse.Namespace, labeller: Labeller, inputs: Inputs, names: list[str]
) -> Batches:
    """For each batch: image -> result, and image -> why it cannot be read."""
    model = labeller.model
    loader = load_batches(inputs.root, names, model.transform, args.batch_size, args.num_workers)
    batches = progress(loader, "predicting") if len(loader) > 1 else loader
    for pixels, indices, errors in batches:
        results = []
        if indices:
            results = model.describe_batch(model.encode_batch(pixels), **describe_options(args))
        found = dict(zip([names[i] for i in indices], results, strict=True))
        found = {name: labeller.truth.beside(name, result) for name, result in found.items()}
        yield found, {names[i]: str(error) for i, error in errors}


def describe_options(args: argparse.Namespace) -> dict:
    """The options of `Predictor.describe`."""
    return {name: getattr(args, name) for name in DESCRIBE_FLAGS}


def write_out(texts: Iterable[str]) -> None:
    """Print to stdout at once, above the progress bar if there is one."""
    if text := "\n".join(texts):
        tqdm.write(text)
        sys.stdout.flush()  # a killed process loses nothing


def draw_all(
    args: argparse.Namespace, labeller: Labeller, root: Path, files: PredictionFiles, output: Path
) -> None:
    """Draw the slides and the contact sheet, unless they are there."""
    slides = files.first(args.num_slides)
    slides = [r for r in slides if not slide_path(output, r["image"]).exists()]
    sheet, model = output / SHEET, labeller.model
    lettering = choose_fonts(labeller.labels)
    for result in progress(slides, "drawing", "slides"):
        with left_out_if_gone():
            image, path = root / result["image"], slide_path(output, result["image"])
            maps = model.class_activation_maps(model.encode(image))
            draw_slide(load_image(image), result, maps, args.top, path, lettering)
    if not sheet.exists():
        tiles = []
        for result in files.first(ON_SHEET):
            with left_out_if_gone():
                photo = load_image(root / result["image"])
                tiles.append(make_tile(photo, result["predicted"], lettering))
        if tiles:
            save_contact_sheet(tiles, sheet)


if __name__ == "__main__":
    run_script(main, get_args_parser())
