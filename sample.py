"""Tag pictures: labels with probabilities, the predicted set, and a slide that shows it all.

    python sample.py photo.jpg
    python sample.py photo.jpg holiday/ --checkpoint runs/scenes-chain/best.pt --output tagged
    python sample.py photo.jpg --known person --known dog --absent cat
    python sample.py photo.jpg --decide map --num_sets 5 --standard_errors
    python sample.py photo.jpg --json | jq .predicted

Needs nothing but a checkpoint (the latest run's if none is named) and images. Of several pictures
it also writes a contact sheet, and their labels to labels.csv and labels.jsonl.
"""

from __future__ import annotations

import argparse
import json
from difflib import get_close_matches
from pathlib import Path

import torch

from images.decode import load_image
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.decoding import (
    BestSets,
    Samples,
    expected_f1_sets,
    most_probable_sets,
    sample_label_sets,
)
from inference.predictions import DECISIONS
from labels.vocabulary import Vocabulary
from report.sample_text import format_result, save_labels
from report.slides import draw_slide, make_tile, name_drawings, save_contact_sheet
from util.cli import ArgumentParser, positive_int, run_script
from util.device import autocast, pick_device, resolve_amp
from util.errors import UsageError
from util.files import make_folder
from util.log import log

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
SHEET = 200  # pictures on the contact sheet at most: the first ones
DECIDE = (
    "predict labels of enough probability, of enough for each label's best expected F1, the most "
    "probable set, or that of best expected F1"
)


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE", help="pictures, or folders of pictures")
    add("--checkpoint", type=Path, help="best.pt of a run; the latest run's if not given")
    add("--output", type=Path, default=Path("samples"), help="folder for the pictures")
    add("--top", type=positive_int, default=8, help="labels shown at most")
    add("--num_samples", type=positive_int, default=256, help="label sets drawn for probabilities")
    add("--decide", choices=DECISIONS, default="threshold", help=DECIDE)
    add("--num_sets", type=positive_int, default=1, help="most probable label sets to list")
    add("--standard_errors", action="store_true", help="say how exact the probabilities are")
    add("--known", action="append", default=[], metavar="LABEL", help="a label that is there")
    add("--absent", action="append", default=[], metavar="LABEL", help="a label that is not there")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bf16; auto: where it is fast")
    add("--json", action="store_true", help="print one JSON object a picture, draw nothing")
    return parser


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    """Decode each picture, print it, draw it."""
    device = pick_device(args.device)
    path = args.checkpoint or find_checkpoint()
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    model.to(device)
    view = preprocessing.eval_transform()
    amp = autocast(device, resolve_amp(args.amp, device, checkpoint["flags"]))
    known = encode_known(args.known, args.absent, vocabulary).to(device)
    files = list_images(args.images)
    drawings = name_drawings(files, args.output)
    if not args.json:
        make_folder(args.output)
    results, tiles = [], []
    for file, drawing in zip(files, drawings, strict=True):
        try:
            image = view.from_file(file).unsqueeze(0).to(device)  # 1×3×S×S
        except UsageError as error:
            if file in args.images:
                raise
            log(f"note: {error}; left out")
            continue
        with amp:
            encoding = model.encode(image)
        samples = sample_label_sets(model, encoding, args.num_samples, known=known)
        best = most_probable_sets(model, encoding, args.num_sets, known=known)
        found = predict(samples, best, vocabulary, checkpoint, args)
        results.append({"image": str(file), **found})
        if args.json:
            print(json.dumps(results[-1]))
            continue
        photo = load_image(file)
        maps = dict(
            zip(vocabulary.labels, encoding.class_activation_map(0).cpu().numpy(), strict=True)
        )
        draw_slide(photo, found, maps, args.top, drawing)
        print(format_result(results[-1], args.top, drawing))
        if len(tiles) < SHEET:
            tiles.append(make_tile(photo, found["predicted"]))
    if not results:
        raise UsageError("none of the pictures can be read")
    if len(tiles) > 1:
        save_contact_sheet(tiles, args.output / "contact_sheet.png")
        save_labels(results, args.output)
        what = f"contact_sheet.png ({len(tiles)} pictures), labels.csv and labels.jsonl"
        log(f"wrote {what} to {args.output}")


def predict(
    samples: Samples,
    best: BestSets,
    vocabulary: Vocabulary,
    checkpoint: dict,
    args: argparse.Namespace,
) -> dict:
    """What is said of one picture, in plain types: `--json` prints just this."""
    marginals, errors = samples.marginals[0], samples.standard_errors[0]
    name = "label_thresholds" if args.decide == "label_f1" else "threshold"
    thresholds = marginals.new_tensor(checkpoint[name]).expand_as(marginals)
    chosen = {
        "threshold": marginals >= thresholds,
        "label_f1": marginals >= thresholds,
        "map": best.label_sets[0, 0],
        "f1": expected_f1_sets(samples.label_sets, samples.weights)[0],
    }[args.decide]
    names, order = vocabulary.labels, marginals.argsort(descending=True).tolist()
    # labels known make a set more probable, by as much as they were improbable
    log_probs = best.log_probs[0]
    probabilities = (log_probs - samples.log_evidence).double().exp().clamp_max(1)
    sets = [
        {"labels": [names[i] for i in labels.nonzero().squeeze(1)], "probability": float(p)}
        for labels, p, exists in zip(
            best.label_sets[0], probabilities, log_probs > -torch.inf, strict=True
        )
        if exists
    ]
    result = {
        "predicted": [names[i] for i in order if chosen[i]],
        "decided_by": args.decide,
        "most_probable_sets": sets,
        "sets_are_certain": bool(best.certain[0]),
        "covered": min(1.0, float(best.covered[0] / samples.log_evidence[0].exp())),
        "labels": {names[i]: float(marginals[i]) for i in order},
    }
    if args.decide in ("threshold", "label_f1"):
        result["thresholds"] = {names[i]: float(thresholds[i]) for i in order}
    if args.standard_errors:
        result["standard_errors"] = {names[i]: float(errors[i]) for i in order}
        if best.lower is not None:
            bounds = torch.stack([best.lower[0], best.upper[0]], 1).tolist()
            result["bounds"] = {names[i]: bounds[i] for i in order}
    if args.known or args.absent:
        result["known"], result["absent"] = args.known, args.absent
        result["effective_sample_size"] = float(samples.effective_size[0])
    return result


def encode_known(present: list[str], absent: list[str], vocabulary: Vocabulary) -> torch.Tensor:
    """1×C: 1 for labels that are there, -1 for labels that are not, 0 for the rest.

    Raises UsageError for a label the model does not know and for one that is said to be both.
    """
    known = torch.zeros(1, len(vocabulary))
    for label in [*present, *absent]:
        if label not in vocabulary.rank:
            close = get_close_matches(label, vocabulary.labels, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"the model does not know the label {label!r}{hint}")
    if both := set(present) & set(absent):
        raise UsageError(f"{sorted(both)[0]!r} is given as --known and as --absent: drop one")
    known[0, [vocabulary.rank[label] for label in present]] = 1
    known[0, [vocabulary.rank[label] for label in absent]] = -1
    return known


def list_images(given: list[Path]) -> list[Path]:
    """The files named, and the pictures directly in the folders named. Raises UsageError."""
    files = []
    for path in given:
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
            )
            if not inside:
                raise UsageError(f"the folder {path} holds no pictures")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"there is no image {path}")
    return files


if __name__ == "__main__":
    run_script(main, get_args_parser())
