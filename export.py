"""Export a trained model to one folder: ONNX, safetensors and a model card.

    python export.py
    python export.py --checkpoint runs/scenes-chain/best.pt --verify photo.jpg holiday.png
    python export.py --rules rules.txt
    python runs/scenes-chain/export/predict_onnx.py runs/scenes-chain/export photo.jpg

Without --checkpoint it exports the latest run's best.pt. The folder then has

    encoder.onnx        images -> CNN logits and image embedding (shapes: deploy/onnx_export.py)
    decoder_step.onnx   the last label -> logits of the labels that may follow; not for decoder none
    predict_onnx.py     predicts labels with these two files, without PyTorch
    model.safetensors   the weights
    config.json         all other parts of the checkpoint (see deploy/safetensors_io.py)
    MODEL_CARD.md       data, metrics, limits and use, from the checkpoint and its metrics.json

Before anything is written, the outputs of onnxruntime and PyTorch are compared, on random images
and on those given with --verify. stdout has a line for each file.

Smaller and, in int8, faster on a CPU:

    python export.py --int8 photos/
    python export.py --fp16

A table then compares mAP, set NLL, size and speed with float32, on the images that evaluate.py
would take. If mAP falls by more than half a point, nothing is written unless --accept_loss.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deploy.model_card import write_card
from deploy.onnx_export import largest_differences, metadata, to_onnx
from deploy.precision import read_photos, to_float16, to_int8
from deploy.precision_results import Comparison, measure
from deploy.safetensors_io import CONFIG, TENSORS, may_replace, save_export
from evaluation.choice import add_choice_flags, choose_images, warn_of_leaks
from evaluation.judging import ImageReader, load_part
from images.bad_images import BadImages
from images.part import Part
from images.transforms import Preprocessing
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.rules import load_rules
from labels.options import add_label_flags, label_flags, options_from
from labels.vocabulary import Vocabulary
from model import HybridNet
from report.inputs import list_inputs
from util.cli import ArgumentParser, changed_flags, positive_int, run_script
from util.errors import UsageError
from util.files import make_folder, write_new, write_whole
from util.log import log, progress
from util.packages import check_packages

PREDICT = Path(__file__).with_name("deploy") / "predict_onnx.py"
NUM_RANDOM = 2  # random images to compare on: noise reaches values that photos do not
ALWAYS = ("checkpoint", "output_dir", "rules", "verify")  # flags that every export takes


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--output_dir", type=Path, help="default: export/ beside the checkpoint; or export-int8/ …")
    add("--rules", type=Path, metavar="TXT", help="rules that predict_onnx.py keeps: puppy -> dog")
    add(
        "--verify",
        type=Path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="images to compare onnxruntime and PyTorch on, besides random ones",
    )
    smaller = parser.add_mutually_exclusive_group().add_argument
    smaller("--int8", type=Path, metavar="PHOTOS", help="8-bit integers; PHOTOS: a folder")
    smaller("--fp16", action="store_true", help="float16: half the size, for GPUs")
    add("--accept_loss", action="store_true", help="also if mAP falls by more than half a point")
    add("--batch_size", type=positive_int, default=64, help="of the comparison with float32")
    add_choice_flags(parser)
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Make the ONNX files, verify them, write everything."""
    check_packages("export.py", "export", ("onnx", "onnxscript", "onnxruntime"))
    precision = "int8" if args.int8 else "fp16" if args.fp16 else None
    if not precision:
        check_unused(args)
    path = find_checkpoint(args.checkpoint)
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    model.requires_grad_(False)
    view = preprocessing.eval_transform()
    photos = [view.from_file(photo) for photo in args.verify]
    typical = list_inputs([args.int8]) if args.int8 else None
    test = choose_test(args, checkpoint, vocabulary) if precision else None
    folder = args.output_dir or path.parent / ("export" + (f"-{precision}" if precision else ""))
    if (folder / "best.pt").exists() or not may_replace(folder):
        raise UsageError(f"{folder} has a config.json or best.pt of its own: choose another")
    rules = load_rules(args.rules, vocabulary.labels).rules if args.rules else ()
    make_folder(folder)

    constants = metadata(
        checkpoint["model"], vocabulary, preprocessing, checkpoint["threshold"], rules
    )
    log(f"exporting {path}")
    files = to_onnx(model, constants)
    noise = torch.randint(
        256,
        (NUM_RANDOM, 3, view.side, view.side),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    images = torch.cat([noise, *(photo[None] for photo in photos)])
    compared_on = f"{NUM_RANDOM} random images" + (f" and {len(photos)} given" if photos else "")
    said = {
        name: f"largest difference from PyTorch {difference:.1e}, on {compared_on}"
        for name, difference in largest_differences(model, files, images).items()
    }
    comparison = None
    if test:
        photos = read_photos(typical, view) if typical else None
        smaller = make_smaller(files, photos)
        exports = {"float32": files, "int8" if typical else "float16": smaller}
        comparison = compare(model, exports, test, preprocessing, args.batch_size)
        print(comparison.as_text())
        if not args.accept_loss:
            comparison.check_loss()
        files, said["encoder"] = smaller, f"{comparison.after.name}, see the table"

    parameters = sum(p.numel() for p in model.parameters())
    card = write_card(checkpoint, path, vocabulary, parameters, folder, comparison)
    write_files(folder, files, said, checkpoint, card)


def write_files(
    folder: Path, files: dict[str, bytes], said: dict[str, str], checkpoint: dict, card: bytes
) -> None:
    """Write everything; print a line for each file. said: what to say of the ONNX files."""
    for name, data in files.items():
        file = folder / f"{name}.onnx"
        write_whole(file, data)
        print(f"{file}: {said[name]}")
    script = PREDICT.read_bytes()
    write_whole(folder / PREDICT.name, script)
    print(f"{folder / PREDICT.name}: predicts labels without PyTorch")
    save_export(checkpoint, folder)
    print(f"{folder / TENSORS}: {len(checkpoint['weights'])} tensors")
    number = len(checkpoint["vocabulary"]["labels"])
    print(f"{folder / CONFIG}: model arguments, {number} labels, calibration, thresholds")
    written = write_new(folder / "MODEL_CARD.md", card)  # one that the user filled in stays
    print(f"{written}: read it and fill in the licence")


def check_unused(args: argparse.Namespace) -> None:
    """Raise UsageError for flags of the comparison if there is none."""
    if given := changed_flags(vars(args), get_args_parser(), ALWAYS):
        raise UsageError(f"--{given[0]} is for a smaller model: add --int8 PHOTOS or --fp16")


@dataclass(frozen=True)
class TestSet:
    """The labelled images that two precisions are compared on."""

    part: Part
    source: str  # where they are from, in words
    skip_bad: bool


def choose_test(args: argparse.Namespace, checkpoint: dict, vocabulary: Vocabulary) -> TestSet:
    """The images that evaluate.py would take for these flags. Raises UsageError."""
    flags = checkpoint["flags"]
    options = options_from(label_flags(flags, vars(args)))
    chosen = choose_images(args.image_path, args.annotations, args.split, checkpoint, options)
    skip_bad = args.skip_bad_images or chosen.skipped_bad(flags)
    part = load_part(chosen, vocabulary, args.keep_unlabelled, args.limit, skip_bad)
    warn_of_leaks(chosen, checkpoint)
    which = "" if chosen.part == "all" else f", {chosen.part}"
    return TestSet(part, f"{chosen.annotations}{which}", skip_bad)


def make_smaller(files: dict[str, bytes], photos: Iterable[np.ndarray] | None) -> dict[str, bytes]:
    """The files with an encoder in int8, if there are photos to measure ranges on, or float16."""
    encoder = files["encoder"]
    return {**files, "encoder": to_int8(encoder, photos) if photos else to_float16(encoder)}


def compare(
    model: HybridNet,
    exports: dict[str, dict[str, bytes]],
    test: TestSet,
    preprocessing: Preprocessing,
    batch_size: int,
) -> Comparison:
    """What both exports give on the test images."""
    with tempfile.TemporaryDirectory() as temporary:
        bad = BadImages(Path(temporary) / "skipped") if test.skip_bad else None
        # no processes that load images: they would disturb the times
        reader = ImageReader(preprocessing, None, bad, batch_size, 0, pin_memory=False)
        batches = progress(reader.batches(test.part), "comparing")
        return measure(model, exports, batches, test.source, batch_size)


if __name__ == "__main__":
    run_script(main, get_args_parser())
