"""Evaluate a checkpoint: mAP, CF1, OF1, exact match, set NLL and calibration, in all and per label.

The latest run, on its test images, else its validation images, else its hold-out; it says which:

    python evaluate.py

Other images, labels in any format (see docs/DATASETS.md):

    python evaluate.py --split all
    python evaluate.py --checkpoint runs/instances_train2014-chain/best.pt \\
        --image_path data/images/val2014 --annotations data/annotations/instances_val2014.json

What one known label says about the others, annotations that look wrong, labels that go together,
and how often a class activation map peaks on an object of its label:

    python evaluate.py --reveal 1 --label_issues 20 --influence --pointing

Wrong labels of the whole data set. Each image is judged by a model that was trained without it. On
the page label_issues.html you keep or correct each one:

    python evaluate.py --label_issues 100 --split all --folds 5

Rules that no predicted set breaks (docs/RULES.md), and those that the annotations never break:

    python evaluate.py --find_rules > rules.txt
    python evaluate.py --rules rules.txt

A report as one HTML page; finished evaluations of the same images side by side:

    python evaluate.py --report
    python evaluate.py --compare runs/scenes-none/metrics.json runs/scenes-chain/metrics.json

The tables go to the console and to evaluate.log, every metric to metrics.json beside the
checkpoint, every image's predictions to predictions.npz. Results of other images than these get a
folder of their own there. A label's score is the decoder's marginal, P(label in set | image). Where
annotations do not say whether a label is there, it does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from evaluation.analysis import (
    Questions,
    co_occurrence,
    influence_agreement,
    issue_results,
    reveal_labels,
    reveal_results,
)
from evaluation.choice import (
    TRAINED_ON,
    Chosen,
    add_choice_flags,
    choose_images,
    choose_output_dir,
    identify,
    warn_of_leaks,
)
from evaluation.compare import PREDICTIONS, compare, save_predictions
from evaluation.judging import ImageReader, Judge, Judged, judge_images, load_part, restore_folds
from evaluation.kept_rules import rule_results
from evaluation.metrics import PROTOCOLS, protocol_metrics
from evaluation.pointing import pointing_game, read_label_objects
from evaluation.promise_results import keep_promise, promised_thresholds
from evaluation.results import describe_run, metric_results, report_results, write_results
from images.bad_images import BadImages
from images.cache import ImageCache
from images.on_device import check_decoder
from images.part import Part
from images.transforms import Preprocessing
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.promises import DECIDE, decision
from inference.rules import LabelRules, load_rules
from labels.find_rules import rules_file
from labels.options import FLAGS, add_label_flags, label_flags, options_from
from labels.targets import left_out
from labels.vocabulary import Vocabulary
from report.gallery import draw_gallery
from report.influence import save_influence
from report.label_issues import write_issues
from report.page import write_comparison, write_report
from report.text import format_comparison, format_tables
from training.folds import make_folds, train_folds
from util.cli import (
    ArgumentParser,
    changed_flags,
    command_line,
    fold_count,
    non_negative_int,
    positive_int,
    run_script,
)
from util.device import autocast, pick_device, resolve_amp
from util.distributed import all_gather, process_group, rank, rank_zero_first
from util.errors import UsageError
from util.files import make_folder, without_nan
from util.log import is_first, is_launched, log

SKIPPED = "skipped_images.jsonl"  # training has a list of bad images of its own in this folder


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run, or its folder; default: the latest")
    add_choice_flags(parser)
    add("--cache", type=Path, help="file for decoded images, to evaluate several runs faster")
    add("--decode_on_gpu", action="store_true", help="decode JPEGs on the GPU: if it waits")
    add("--num_samples", type=positive_int, default=128, help="label sets sampled for marginals")
    add("--decide", type=decision, default="threshold", metavar="RULE", help=DECIDE)
    add("--protocol", choices=PROTOCOLS, help="also print the metrics of papers on this data set")
    add("--reveal", type=positive_int, metavar="K", help="reveal K true labels, test the others")
    add(
        "--label_issues",
        type=positive_int,
        metavar="N",
        help="list the N most suspicious annotations, and write a page to correct them",
    )
    add("--folds", type=fold_count, metavar="K", help="train K models; each judges other images")
    add("--influence", action="store_true", help="which labels go together: label_influence.csv")
    add("--pointing", action="store_true", help="do class activation maps peak on the objects?")
    add("--rules", type=Path, metavar="TXT", help="rules for label sets, such as puppy -> dog")
    add("--find_rules", action="store_true", help="print rules that the annotations never break")
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
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    add("--output_dir", type=Path, help="for metrics.json and the log; default: the checkpoint's")
    add("--json", action="store_true", help="print metrics.json instead of the tables")
    add_label_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Compare finished evaluations, or evaluate, together with torchrun's other processes."""
    if args.compare:
        return print_comparison(args) if is_first() else None
    if args.find_rules:
        return print_rules(args) if is_first() else None
    device = pick_device(args.device)
    with process_group(device):
        run(args, device)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Choose images, decode, measure, save, print."""
    path = find_checkpoint(args.checkpoint)
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    flags = checkpoint["flags"]
    read_as = label_flags(flags, vars(args))
    options = options_from(read_as)
    rules = load_rules(args.rules, vocabulary.labels) if args.rules else None
    thresholds = promised_thresholds(checkpoint, args.decide, path, args.folds, args.rules)
    split = args.split or ("all" if args.folds else None)
    chosen = choose_images(args.image_path, args.annotations, split, checkpoint, options)
    skip_bad = args.skip_bad_images or chosen.skipped_bad(flags)
    part = load_part(chosen, vocabulary, args.keep_unlabelled, args.limit, skip_bad)
    output_dir = choose_output_dir(
        args.output_dir, path.parent, chosen, args.limit, args.folds, rules
    )
    make_folder(output_dir)
    objects = read_label_objects(part.images, vocabulary, options) if args.pointing else None
    revealed = reveal_labels(part.targets, args.reveal) if args.reveal else None
    if args.reveal and rules:
        rules.check_facts(revealed, vocabulary.labels, part.images.file_names)
    judges, leak = [Judge(model, checkpoint, np.arange(len(part.paths)))], ""
    if args.folds:
        here = {"image_path": chosen.image_path, "annotations": chosen.annotations}
        here |= read_as | {"skip_bad_images": skip_bad, "device": str(device)}
        judges = train_judges(part, args.folds, flags | here, vocabulary, output_dir)
    else:
        leak = warn_of_leaks(chosen, checkpoint)
        if args.label_issues and chosen.is_own and chosen.part in TRAINED_ON:
            log("note: a model finds few errors in its own training images; --folds 5 finds more")
    reader = make_reader(args, part, preprocessing, skip_bad, output_dir, device)
    amp = autocast(device, all_gather(resolve_amp(args.amp, device, flags))[0])
    flips = bool(args.label_issues or args.influence)
    asked = Questions(args.num_samples, revealed, flips, args.pointing, rules)
    started = time.perf_counter()
    judged = judge_images(judges, part, reader, amp, device, asked)
    seconds = time.perf_counter() - started
    if rank() > 0:
        return  # the first process reports for all
    p, labels = judged.decoded.predictions, vocabulary.labels
    said, promise = keep_promise(args.decide, checkpoint, thresholds, p, labels)
    judged.sets.update(said)
    results = {
        "command": command_line(),
        **describe_run(checkpoint, path, chosen.annotations),
        **identify(chosen, args.limit, args.folds, rules),
        "protocol": ("all images" if args.keep_unlabelled else "images with labels")
        + (" (the first ones)" if args.limit else ""),
        "leak": leak,
        "num_samples": args.num_samples,
        **metric_results(p, judged.sets, labels, args.decide),
        "images_per_second": round(len(judged.part.paths) / seconds, 1),
        **asked_results(args, judged, revealed, objects, vocabulary, rules),
        **promise,
    }
    write_outputs(args, results, judged, chosen, vocabulary, output_dir, preprocessing, amp)


def write_outputs(
    args: argparse.Namespace,
    results: dict,
    judged: Judged,
    chosen: Chosen,
    vocabulary: Vocabulary,
    output_dir: Path,
    preprocessing: Preprocessing,
    amp: torch.autocast,
) -> None:
    """Write all files of an evaluation, and print its tables."""
    p, labels, images = judged.decoded.predictions, vocabulary.labels, judged.part.images
    tables = format_tables(results)
    as_json = write_results(results, tables, output_dir)  # first: it tells whose the others are
    save_predictions(p, labels, images.file_names, output_dir)
    if args.influence:
        stem, in_data = output_dir / "label_influence", co_occurrence(p.targets, p.known)
        save_influence(judged.decoded.influence, in_data, labels, stem)
        log(f"wrote {stem}.csv and label_influence.png")
    if args.label_issues:
        write_issues(results, judged.part, chosen, vocabulary, output_dir)
    if args.report:
        decided, paths = judged.sets[args.decide], judged.part.paths
        view, run_folder = preprocessing.eval_transform(), Path(results["checkpoint"]).parent
        gallery = draw_gallery(p, decided, labels, paths, judged.models, view, amp)
        write_report(results, p, decided, gallery, run_folder / "log.jsonl", tables, output_dir)
        log(f"wrote {output_dir / 'report.html'} and pr_curves.csv")
    print(as_json if args.json else tables)
    log(f"wrote {output_dir / 'metrics.json'}, evaluate.log and {PREDICTIONS}")


def train_judges(
    part: Part, num_folds: int, flags: dict, vocabulary: Vocabulary, folder: Path
) -> Iterator[Judge]:
    """--folds: a model for each part of the images, trained without it."""
    if is_launched():
        raise UsageError("--folds starts its trainings by itself: leave out torchrun")
    folds = make_folds(part.targets, num_folds)
    names = [[part.images.file_names[i] for i in fold] for fold in folds]
    return restore_folds(train_folds(flags, vocabulary, names, folder), folds, vocabulary)


def make_reader(
    args: argparse.Namespace,
    part: Part,
    preprocessing: Preprocessing,
    skip_bad: bool,
    output_dir: Path,
    device: torch.device,
) -> ImageReader:
    """How to read the images; fills the cache, and starts an empty list of bad images."""
    if args.decode_on_gpu:
        check_decoder(device, args.cache, skip_bad)
    bad = BadImages(output_dir / SKIPPED) if skip_bad else None
    if bad and rank() == 0:
        bad.forget()
    cache = None
    if args.cache:  # at the model's own size, so that pixels are the same as without it
        cache = ImageCache(args.cache, part.paths, preprocessing.image_size, skip_bad=skip_bad)
        rank_zero_first(lambda: cache.prepare(args.num_workers))
    pin = device.type == "cuda"
    return ImageReader(
        preprocessing, cache, bad, args.batch_size, args.num_workers, pin, args.decode_on_gpu
    )


def asked_results(
    args: argparse.Namespace,
    judged: Judged,
    revealed: np.ndarray | None,
    objects: list[dict] | None,
    vocabulary: Vocabulary,
    rules: LabelRules | None,
) -> dict:
    """The results that only a flag asks for."""
    found, decoded, part = {}, judged.decoded, judged.part
    p, labels = decoded.predictions, vocabulary.labels
    if rules:
        found["rules"] = rule_results(p, rules, part.images.file_names)
    if args.protocol:
        found["paper"] = protocol_metrics(args.protocol, p.targets, p.marginals, p.known)
    if args.reveal:
        facts = revealed[decoded.indices]
        found["revealed"] = reveal_results(decoded, facts, args.reveal, judged.thresholds)
    if args.label_issues:
        names, most = part.images.file_names, args.label_issues
        found["label_issues"] = issue_results(decoded, most, names, part.paths, labels, rules)
    if args.influence:
        found["influence_agreement"] = influence_agreement(decoded.influence, p.targets, p.known)
    if args.pointing:
        objects = [objects[i] for i in decoded.indices]
        found["pointing"] = pointing_game(decoded.peaks, part.targets, objects, part.paths, labels)
    if args.report:
        log("resampling the images for the intervals")
        found |= report_results(p, judged.sets)
        found["left_out"] = left_out(part.images, vocabulary)
    return found


def refuse_others(args: argparse.Namespace, used: set[str]) -> None:
    """Raise UsageError for flags that --compare and --find_rules do not use."""
    if given := changed_flags(vars(args), get_args_parser(), used):
        raise UsageError(f"nothing is evaluated: leave out --{given[0]}")


def print_rules(args: argparse.Namespace) -> None:
    """--find_rules: print them as a rules file; no model runs."""
    own = {"find_rules", "checkpoint", "image_path", "annotations", "split", "keep_unlabelled"}
    refuse_others(args, own | {*FLAGS})
    checkpoint = load_checkpoint(find_checkpoint(args.checkpoint))
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], "the checkpoint's vocabulary")
    options = options_from(label_flags(checkpoint["flags"], vars(args)))
    # not of the test images: rules must not come from the images that they are tested on
    split = args.split or ("all" if args.image_path else "train")
    chosen = choose_images(args.image_path, args.annotations, split, checkpoint, options)
    images = chosen.images if args.keep_unlabelled else chosen.images.labelled()
    print(rules_file(images, vocabulary))


def print_comparison(args: argparse.Namespace) -> None:
    """--compare: print the table or its JSON; with --report also write comparison.html."""
    refuse_others(args, {"compare", "report", "output_dir", "json"})
    found = {"command": command_line(), **compare(args.compare)}
    text = format_comparison(found)
    if args.report:
        write_comparison(found, text, args.output_dir or args.compare[0].parent)
    print(json.dumps(without_nan(found), indent=1) if args.json else text)


if __name__ == "__main__":
    run_script(main, get_args_parser())
