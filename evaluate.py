"""Evaluate a checkpoint: mAP, CF1, OF1, exact match, set NLL and calibration, in all and per label.

The latest run, on the validation images of the default set or on COCO's val2014:

    python evaluate.py

Any checkpoint on any data, labels in any format (see README.md):

    python evaluate.py --checkpoint runs/instances_train2014-chain/best.pt \\
        --image_path data/images/val2014 --annotations data/annotations/instances_val2014.json

What one known label says about the others, annotations that look wrong, labels that go together,
and how often a class activation map peaks on an object of its label:

    python evaluate.py --reveal 1 --label_issues 20 --influence --pointing

A report as one HTML page; finished evaluations of the same images side by side:

    python evaluate.py --report
    python evaluate.py --compare runs/scenes-none/metrics.json runs/scenes-chain/metrics.json

The tables go to the console and to evaluate.log, every metric to metrics.json beside the
checkpoint, every image's predictions to predictions.npz. A label's score is the decoder's
marginal, P(label in set | image).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from data_loader import LabelledImages, load_data_set, make_loader
from evaluation.analysis import (
    Decoded,
    co_occurrence,
    decode_and_analyse,
    influence_agreement,
    issue_results,
    reveal_labels,
    reveal_results,
)
from evaluation.compare import PREDICTIONS, compare, save_predictions
from evaluation.metrics import PROTOCOLS, protocol_metrics
from evaluation.pointing import pointing_game, read_label_objects
from evaluation.results import describe_run, metric_results, report_results
from images.cache import ImageCache
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.predictions import DECISIONS, Predictions, predicted_sets
from labels.options import FLAGS, ReadOptions, add_label_flags, options_from
from labels.read import read_labels
from labels.search import find_labels
from labels.targets import encode_difficult, encode_targets
from report.gallery import draw_gallery
from report.influence import save_influence
from report.page import render, write_report
from report.text import format_comparison, format_tables
from util.cli import ArgumentParser, command_line, non_negative_int, positive_int, run_script
from util.device import autocast, pick_device, resolve_amp
from util.distributed import all_gather, process_group, rank, rank_zero_first
from util.errors import UsageError
from util.files import make_folder, without_nan, write_atomically
from util.log import is_first, log, progress

SCENES_TRAIN = "data/scenes/annotations/instances_train.json"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add("--image_path", type=Path, help="image folder; default: the checkpoint's own val images")
    add("--annotations", type=Path, help="file or folder of labels; default: found by the images")
    add("--keep_unlabelled", action="store_true", help="count images without labels (COCO: 40,504)")
    add("--limit", type=positive_int, help="only the first N images, for a quick look")
    add("--cache", type=Path, help="file for decoded images, to evaluate several runs faster")
    add("--num_samples", type=positive_int, default=128, help="label sets sampled for marginals")
    add("--decide", choices=DECISIONS, default="threshold", help="rule of the per-label P, R, F1")
    add("--protocol", choices=PROTOCOLS, help="also print the metrics of papers on this data set")
    add("--reveal", type=positive_int, metavar="K", help="reveal K true labels, test the others")
    add(
        "--label_issues", type=positive_int, metavar="N", help="list the N least likely annotations"
    )
    add("--influence", action="store_true", help="which labels go together: label_influence.csv")
    add("--pointing", action="store_true", help="do class activation maps peak on the objects?")
    add("--report", action="store_true", help="also write the page report.html")
    add(
        "--compare",
        type=Path,
        nargs="+",
        metavar="METRICS_JSON",
        help="evaluate nothing; compare these finished evaluations of the same images",
    )
    add("--batch_size", type=positive_int, default=64, help="lower it if memory runs out")
    add("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bf16; auto: where it is fast")
    add("--output_dir", type=Path, help="for metrics.json and the log; default: the checkpoint's")
    add("--json", action="store_true", help="print metrics.json instead of the tables")
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Compare finished evaluations, or evaluate, together with torchrun's other processes."""
    if args.compare:
        return print_comparison(args) if is_first() else None
    device = pick_device(args.device)
    with process_group(device):
        run(args, device)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Load, decode, measure, save, print."""
    path = find_checkpoint(args.checkpoint)
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    labels, output_dir = vocabulary.labels, args.output_dir or path.parent
    make_folder(output_dir)

    given = {name: value for name in FLAGS if (value := getattr(args, name))}
    options = options_from(checkpoint["flags"] | given)
    image_path, annotations = choose_data(args.image_path, args.annotations, checkpoint, options)
    listed = read_labels(annotations, image_path, options).of_split("test", "val", "train")
    images, paths = load_data_set(image_path, listed, args.keep_unlabelled, args.limit)
    targets = encode_targets(images, vocabulary, training=False)
    warn_of_leaks(checkpoint, annotations, listed.splits[0] if listed.splits else None)
    objects = read_label_objects(images, vocabulary, options) if args.pointing else None
    cache = None
    if args.cache:  # at the model's own size, so that pixels are the same as without it
        cache = ImageCache(args.cache, paths, preprocessing.image_size)
        rank_zero_first(lambda: cache.prepare(args.num_workers))
    data = LabelledImages(paths, targets, preprocessing, cache=cache)
    pin = device.type == "cuda"
    loader = make_loader(data, args.batch_size, args.num_workers, pin_memory=pin)

    known = reveal_labels(targets, args.reveal) if args.reveal else None
    flips = bool(args.label_issues or args.influence)
    started = time.perf_counter()
    amp = autocast(device, all_gather(resolve_amp(args.amp, device, checkpoint["flags"]))[0])
    model.to(device)
    decoded = decode_and_analyse(
        model, progress(loader, "evaluating"), amp, args.num_samples, known, flips, args.pointing
    )
    seconds = time.perf_counter() - started
    if rank() > 0:
        return  # the first process reports for all

    p = decoded.predictions
    difficult = encode_difficult(images, vocabulary)
    if difficult is not None:
        log(f"{difficult.sum():,} labels of difficult objects are left out, except of the set NLL")
        p = p.without(difficult)
    sets = predicted_sets(p, checkpoint["threshold"], checkpoint["label_thresholds"])
    results = {
        "command": command_line(),
        **describe_run(checkpoint, path, annotations),
        "protocol": ("all images" if args.keep_unlabelled else "images with labels")
        + (" (the first ones)" if args.limit else ""),
        "num_samples": args.num_samples,
        **metric_results(p, sets, labels, args.decide),
        "images_per_second": round(len(images) / seconds, 1),
        **asked_results(args, decoded, p, checkpoint["threshold"], known, objects, paths, labels),
    }
    if args.report:
        log("resampling the images for the intervals")
        results |= report_results(p, sets)
    if args.influence:
        stem = output_dir / "label_influence"
        save_influence(decoded.influence, co_occurrence(p.targets), labels, stem)
        log(f"wrote {stem}.csv and label_influence.png")
    tables = format_tables(results)
    save_predictions(p, labels, images.file_names, output_dir)
    as_json = write_results(results, tables, output_dir)
    if args.report:
        transform, chosen = preprocessing.eval_transform(), sets[args.decide]
        gallery = draw_gallery(p, chosen, labels, paths, model, transform, amp)
        log_path = path.parent / "log.jsonl"
        write_report(results, p.targets, p.marginals, chosen, gallery, log_path, tables, output_dir)
        log(f"wrote {output_dir / 'report.html'} and pr_curves.csv")
    print(as_json if args.json else tables)
    log(f"wrote {output_dir / 'metrics.json'}, evaluate.log and {PREDICTIONS}")


def write_results(results: dict, tables: str, output_dir: Path) -> str:
    """Write metrics.json and evaluate.log; return the text of metrics.json."""
    as_json = json.dumps(without_nan(results), indent=1)
    for name, text in (("metrics.json", as_json), ("evaluate.log", tables)):
        write_atomically(output_dir / name, lambda t, text=text: t.write_text(text + "\n", "utf-8"))
    return as_json


def asked_results(
    args: argparse.Namespace,
    decoded: Decoded,
    p: Predictions,
    threshold: float,
    known: np.ndarray | None,
    objects: list[dict] | None,
    paths: list,
    labels: tuple[str, ...],
) -> dict:
    """The results that only a flag asks for; `p` are the predictions without difficult labels."""
    found, targets = {}, decoded.predictions.targets
    if args.protocol:
        found["paper"] = protocol_metrics(args.protocol, p.targets, p.marginals)
    if args.reveal:
        found["revealed"] = reveal_results(decoded, known, args.reveal, threshold)
    if args.label_issues:
        found["label_issues"] = issue_results(decoded, args.label_issues, paths, labels)
    if args.influence:
        found["influence_agreement"] = influence_agreement(decoded.influence, targets)
    if args.pointing:
        found["pointing"] = pointing_game(decoded.peaks, targets, objects, paths, labels)
    return found


def print_comparison(args: argparse.Namespace) -> None:
    """--compare: print the table or its JSON; with --report also write comparison.html."""
    defaults = vars(get_args_parser().parse_args([]))
    used = {"compare", "report", "output_dir", "json"}
    if given := [k for k, v in vars(args).items() if v != defaults[k] and k not in used]:
        raise UsageError(f"--compare evaluates nothing: leave out --{given[0]}")
    found = {"command": command_line(), **compare(args.compare)}
    text = format_comparison(found)
    if args.report:
        write_comparison(found, text, args.output_dir or args.compare[0].parent)
    print(json.dumps(without_nan(found), indent=1) if args.json else text)


def write_comparison(found: dict, text: str, output_dir: Path) -> None:
    """Write comparison.html from what `compare` found."""
    make_folder(output_dir)
    page = render("comparison.html", c=found, text=text)
    write_atomically(output_dir / "comparison.html", lambda t: t.write_bytes(page))
    log(f"wrote {output_dir / 'comparison.html'}")


def choose_data(
    image_path: Path | None, annotations: Path | None, checkpoint: dict, options: ReadOptions
) -> tuple[Path, Path]:
    """The images and annotations to evaluate on: as given, the default set's, or COCO's val2014."""
    if image_path and annotations:
        return image_path, annotations
    if annotations:
        raise UsageError(f"name the folder of the images of {annotations} with --image_path")
    if image_path:
        return image_path, find_labels(image_path, "val")
    flags = checkpoint["flags"]
    if flags.get("val_annotations"):
        return Path(flags["val_image_path"]), Path(flags["val_annotations"])
    if flags.get("annotations") == SCENES_TRAIN:
        folder = Path(SCENES_TRAIN).parents[1]
        return folder / "images/val", folder / "annotations/instances_val.json"
    annotations = Path("data/annotations/instances_val2014.json")
    if Path(str(flags.get("annotations"))).stem == "instances_train2014" and annotations.exists():
        return Path("data/images"), annotations
    own = Path(str(flags.get("annotations")))
    # os.path.exists, as Path.exists() raises for a name that is too long
    if os.path.exists(own) and {"test", "val"} & {*(read_labels(own, None, options).splits or ())}:
        return Path(flags["image_path"]), own
    raise UsageError(
        "the checkpoint names no validation images: name the data with --image_path and "
        "--annotations"
    )


def warn_of_leaks(checkpoint: dict, annotations: Path, split: str | None) -> None:
    """Log a note if the evaluated images also trained the model or selected its epoch."""
    flags = checkpoint["flags"]
    uses = (("annotations", "trained on", "train"), ("val_annotations", "selected on", "val"))
    for flag, what, of in (*uses, ("annotations", "selected on", "val")):
        same = flags.get(flag) and Path(flags[flag]).resolve() == annotations.resolve()
        if same and split in (None, of):
            log(f"note: this checkpoint was {what} these very annotations")
            return


if __name__ == "__main__":
    run_script(main, get_args_parser())
