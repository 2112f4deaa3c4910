"""Evaluate a checkpoint: mAP, CF1, OF1, exact match, set NLL, calibration, per label and in all.

The latest run, on the validation images of the default set or on COCO's val2014:

    python evaluate.py

Any checkpoint on any data, labels in any format (see README.md):

    python evaluate.py --checkpoint runs/instances_train2014-chain/best.pt \\
        --image_path data/images/val2014 --annotations data/annotations/instances_val2014.json

What one known label tells of the others, annotations that look wrong, and what goes with what:

    python evaluate.py --reveal 1 --label_issues 20 --influence

A page to look at, report.html; and finished evaluations of the same images side by side:

    python evaluate.py --report
    python evaluate.py --compare runs/scenes-none/metrics.json runs/scenes-chain/metrics.json

The table goes to the console and to evaluate.log, every figure to metrics.json beside the
checkpoint, every image's predictions to predictions.npz. A label's score is the decoder's own
marginal, P(label in set | image).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from data_loader import LabelledImages, load_data_set, make_loader
from evaluation.analysis import analysis_results, co_occurrence, decode_and_analyse, reveal_labels
from evaluation.bootstrap import WeightedMetrics, metric_intervals
from evaluation.calibration import calibration_bins
from evaluation.compare import PREDICTIONS, compare, save_predictions
from evaluation.metrics import (
    PROTOCOLS,
    all_metrics,
    label_set_sizes,
    per_label,
    protocol_metrics,
)
from images.cache import ImageCache
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.predictions import DECISIONS, predicted_sets
from labels.read import find_labels, read_labels
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
    add("--checkpoint", type=Path, help="best.pt of a run; the latest run's if not given")
    add("--image_path", type=Path, help="image folder; default: the checkpoint's own val images")
    add("--annotations", type=Path, help="file or folder of labels; looked for beside the images")
    add("--keep_unlabelled", action="store_true", help="count images without labels (COCO: 40,504)")
    add("--limit", type=positive_int, help="the first N images only, for a quick look")
    add("--cache", type=Path, help="file for decoded images, to evaluate many runs on them")
    add("--num_samples", type=positive_int, default=128, help="label sets drawn for the marginals")
    add("--decide", choices=DECISIONS, default="threshold", help="sets of the per-label P, R, F1")
    add("--protocol", choices=PROTOCOLS, help="also print the figures that papers on this set give")
    add("--reveal", type=positive_int, metavar="K", help="tell K true labels, measure the others")
    add(
        "--label_issues", type=positive_int, metavar="N", help="list the N least likely annotations"
    )
    add("--influence", action="store_true", help="what goes with what: label_influence.csv, .png")
    add("--report", action="store_true", help="also write a page to look at: report.html")
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
    add("--output_dir", type=Path, help="where metrics.json and the log go (beside the checkpoint)")
    add("--json", action="store_true", help="print metrics.json instead of the tables")
    return parser


def main(args: argparse.Namespace) -> None:
    """Compare finished evaluations; or join torchrun's other processes, if any, and evaluate."""
    if args.compare:
        return print_comparison(args) if is_first() else None
    device = pick_device(args.device)
    with process_group(device):
        run(args, device)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Predict, measure, print, save."""
    path = args.checkpoint or find_checkpoint()
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    output_dir = args.output_dir or path.parent
    make_folder(output_dir)
    image_path, annotations = choose_data(args, checkpoint)
    listed = rank_zero_first(lambda: read_labels(annotations, image_path))  # leaves others an index
    listed = listed.of_split("test", "val", "train")
    images, paths = load_data_set(image_path, listed, args.keep_unlabelled, args.limit)
    targets = encode_targets(images, vocabulary)
    warn_of_leaks(checkpoint, annotations, listed.splits[0] if listed.splits else None)
    cache = None
    if args.cache:  # at the model's own size: not a pixel differs from the files'
        cache = ImageCache(args.cache, paths, preprocessing.image_size)
        rank_zero_first(lambda: cache.prepare(args.num_workers))
    data = LabelledImages(paths, targets, preprocessing, cache=cache)
    pin = device.type == "cuda"
    loader = make_loader(data, args.batch_size, args.num_workers, pin_memory=pin)

    known = reveal_labels(targets, args.reveal) if args.reveal else None
    started = time.perf_counter()
    amp = autocast(device, all_gather(resolve_amp(args.amp, device, checkpoint["flags"]))[0])
    model.to(device)
    decoded = decode_and_analyse(model, progress(loader, "evaluating"), amp, known, args)
    seconds = time.perf_counter() - started
    if rank() > 0:
        return  # the first process reports for all
    p, threshold = decoded.predictions, checkpoint["threshold"]
    difficult = encode_difficult(images, vocabulary)
    if difficult is not None:
        log(f"{difficult.sum():,} labels of difficult objects count in no figure but set NLL")
        p = p.without(difficult)
    sets = predicted_sets(p, threshold, checkpoint["label_thresholds"])
    results = {
        "command": command_line(),
        "checkpoint": str(path),
        "epoch": checkpoint["epoch"],
        "decoder": checkpoint["model"]["decoder"],
        "annotations": str(annotations),
        "num_images": len(images),
        "protocol": ("all images" if args.keep_unlabelled else "images with labels")
        + (" (the first ones)" if args.limit else ""),
        "num_samples": args.num_samples,
        "threshold": threshold,
        "label_thresholds": checkpoint["label_thresholds"],
        "threshold_fitted_on": checkpoint["selected_on"],
        "set_nll": float(p.set_nll.mean()),
        **all_metrics(p.targets, p.marginals, sets),
        "decide": args.decide,
        "per_label": per_label(vocabulary.labels, p.targets, p.marginals, sets[args.decide]),
        "map_certain": 100 * float(p.certain.mean()),
        "images_per_second": round(len(images) / seconds, 1),
        **analysis_results(decoded, known, threshold, paths, vocabulary.labels, args),
    }
    if args.protocol:
        results["paper"] = protocol_metrics(args.protocol, p.targets, p.marginals)
    if args.report:
        log("drawing the images anew, for the intervals")
        weighted = WeightedMetrics(p.targets, p.marginals, sets, p.set_nll)
        results["intervals"] = metric_intervals(weighted)
        results["calibration"] = calibration_bins(p.targets, p.marginals)
        results["label_set_sizes"] = label_set_sizes(p.targets, sets)
    if args.influence:
        stem = output_dir / "label_influence"
        save_influence(decoded.influence, co_occurrence(p.targets), vocabulary.labels, stem)
        log(f"wrote {stem}.csv and label_influence.png")
    as_json = json.dumps(without_nan(results), indent=1)
    tables = format_tables(results)
    save_predictions(p, vocabulary.labels, images.file_names, output_dir)
    for name, text in (("metrics.json", as_json), ("evaluate.log", tables)):
        write_atomically(output_dir / name, lambda t, text=text: t.write_text(text + "\n", "utf-8"))
    if args.report:
        view, chosen = preprocessing.eval_transform(), sets[args.decide]
        log_path = path.parent / "log.jsonl"
        gallery = draw_gallery(p, chosen, vocabulary.labels, paths, model, view, amp)
        write_report(results, p.targets, p.marginals, chosen, gallery, log_path, tables, output_dir)
        log(f"wrote {output_dir / 'report.html'} and pr_curves.csv")
    print(as_json if args.json else tables)
    log(f"wrote {output_dir / 'metrics.json'}, evaluate.log and {PREDICTIONS}")


def print_comparison(args: argparse.Namespace) -> None:
    """--compare: the table or its JSON, and with --report the page comparison.html."""
    defaults = vars(get_args_parser().parse_args([]))
    used = {"compare", "report", "output_dir", "json"}
    if given := [k for k, v in vars(args).items() if v != defaults[k] and k not in used]:
        raise UsageError(f"--compare evaluates nothing: leave out --{given[0]}")
    found = {"command": command_line(), **compare(args.compare)}
    text = format_comparison(found)
    if args.report:
        output_dir = args.output_dir or args.compare[0].parent
        make_folder(output_dir)
        page = render("comparison.html", c=found, text=text)
        write_atomically(output_dir / "comparison.html", lambda t: t.write_bytes(page))
        log(f"wrote {output_dir / 'comparison.html'}")
    print(json.dumps(without_nan(found), indent=1) if args.json else text)


def choose_data(args: argparse.Namespace, checkpoint: dict) -> tuple[Path, Path]:
    """The images and annotations to evaluate on: as given, the default set's, or COCO's val2014."""
    if args.image_path and args.annotations:
        return args.image_path, args.annotations
    if args.annotations:
        raise UsageError(f"name the folder of the images of {args.annotations} with --image_path")
    if args.image_path:
        return args.image_path, find_labels(args.image_path, "val")
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
    # a name of any length may stand there, for which Path.exists() raises
    if os.path.exists(own) and {"test", "val"} & {*(read_labels(own).splits or ())}:
        return Path(flags["image_path"]), own
    raise UsageError(
        "the checkpoint names no validation images: name the data with --image_path and "
        "--annotations"
    )


def warn_of_leaks(checkpoint: dict, annotations: Path, split: str | None) -> None:
    """Say so when the reported images also trained the model or chose its epoch."""
    flags = checkpoint["flags"]
    uses = (("annotations", "trained on", "train"), ("val_annotations", "selected on", "val"))
    for flag, what, of in (*uses, ("annotations", "selected on", "val")):
        same = flags.get(flag) and Path(flags[flag]).resolve() == annotations.resolve()
        if same and split in (None, of):
            log(f"note: this checkpoint was {what} these very annotations")
            return


if __name__ == "__main__":
    run_script(main, get_args_parser())
