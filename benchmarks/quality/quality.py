"""HybridNet against its rivals: same data, encoder, epochs, augmentation and optimizer.

    python benchmarks/quality/quality.py drawn            train what is missing, print the table
    python benchmarks/quality/quality.py drawn --table    print the table of what has been trained

Data sets: scenes (the default set), drawn (10,000 and 4,000 of COCO's label sets, drawn at 64 px),
drawn-full (all of them: 82,081 and 40,137), ccp (real photos, encoder from ../shared/weights).

Every contender's learning rate is tried with the first seed and chosen by the set NLL on the
hold-out, a tenth of the training images (of drawn-full a fortieth); so are a run's epoch,
calibration and thresholds. The val images are looked at once, at the end of a run; --holdout prints
what choices are made by. Each run leaves a file in benchmarks/quality/results/: interrupted, the command
goes on where it stopped, and several may work at once (one thread each is the quickest way).
Needs what requirements-dev.txt installs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from ablations import EVERYONE  # noqa: E402
from bench import gpu, processor  # noqa: E402
from quality_sets import SETS  # noqa: E402
from rivals import CONTENDERS, Asymmetric  # noqa: E402
from timing import spread  # noqa: E402

from data_loader import (  # noqa: E402
    LabelledImages,
    load_data_set,
    make_loader,
)
from evaluation.metrics import all_metrics  # noqa: E402
from images.transforms import Preprocessing  # noqa: E402
from inference.predictions import (  # noqa: E402
    Predictions,
    encode_batches,
    predicted_sets,
)
from labels.read import read_labels  # noqa: E402
from labels.targets import encode_targets  # noqa: E402
from labels.vocabulary import count_labels, save_vocabulary  # noqa: E402
from model import HybridNet  # noqa: E402
from train import train_epoch  # noqa: E402
from training.data import training_data  # noqa: E402
from training.setup import load_weights_file, set_deterministic  # noqa: E402
from training.state import (  # noqa: E402
    LossError,
    TrainState,
)
from training.validation import decode_all, fit_calibration_on, validation_metrics  # noqa: E402
from util.cli import code_commit, non_negative_int, positive_int, run_script  # noqa: E402
from util.device import autocast, pick_device, resolve_amp  # noqa: E402
from util.errors import UsageError  # noqa: E402
from util.files import write_atomically  # noqa: E402
from util.log import log  # noqa: E402

NUM_SAMPLES = 128  # evaluate.py's
RESULTS = ROOT / "benchmarks/quality/results"
FIGURES = {  # column -> where it stands in a result
    "set NLL": ("set_nll",),
    "mAP": ("mAP",),
    "CF1": ("predicted_sets", "threshold", "CF1"),
    "CF1 (label_f1)": ("predicted_sets", "label_f1", "CF1"),  # not in results of before that rule
    "OF1": ("predicted_sets", "threshold", "OF1"),
    "EM": ("predicted_sets", "map", "EM"),
    "EBF1": ("predicted_sets", "f1", "EBF1"),
    "ECE": ("ECE",),
}
LOWER_IS_BETTER = {"set NLL", "ECE"}


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("data", choices=SETS, help="what to learn and to be measured on")
    add(
        "--models",
        nargs="+",
        choices=EVERYONE,
        metavar="NAME",
        default=list(CONTENDERS),
        help=f"of {', '.join(EVERYONE)}; default: the rivals",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run each")
    add(
        "--learning_rates",
        nargs="+",
        type=float,
        default=[0.0005, 0.001, 0.002],
        help="tried with the first seed",
    )
    add("--limit", type=positive_int, help="train on the first N images only")
    add(
        "--num_epochs",
        type=positive_int,
        help="few images need more; default: the set's own",
    )
    add("--threads", type=positive_int, default=1, help="of this process")
    add("--num_workers", type=non_negative_int, default=0, help="processes that load images")
    add("--table", action="store_true", help="train nothing")
    add(
        "--holdout",
        action="store_true",
        help="instead of val's the hold-out's figures, which choices are made by (epoch, "
        "calibration and thresholds were too: they flatter)",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print the table."""
    torch.set_num_threads(args.threads)
    if not args.table:
        jobs = [(m, r, args.seeds[0]) for r in args.learning_rates for m in args.models]
        run_missing(args, jobs)
        jobs = [(m, best_rate(args, m), s) for s in args.seeds[1:] for m in args.models]
        run_missing(args, jobs)
    print(table(args))


def result_file(args: argparse.Namespace, model: str, rate: float, seed: int) -> Path:
    """Where a run's result is kept."""
    folder = args.data
    if args.limit:
        folder += f"-{args.limit}"
    if args.num_epochs:
        folder += f"-{args.num_epochs}-epochs"
    return RESULTS / folder / f"{model}-{rate:g}-{seed}.json"


def run_missing(args: argparse.Namespace, jobs: list[tuple[str, float, int]]) -> None:
    """Those that nobody has begun, then those that somebody else has not ended."""
    for wait in (False, True):
        for job in jobs:
            path = result_file(args, *job)
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                continue
            try:
                if not path.exists():
                    text = json.dumps(run(args, *job), indent=1) + "\n"
                    write_atomically(path, lambda t, text=text: t.write_text(text, "utf-8"))
            finally:
                lock.release()


def run(args: argparse.Namespace, name: str, rate: float, seed: int) -> dict:
    """Train a contender, measure it on hold-out and val images."""
    data, contender = SETS[args.data], EVERYONE[name]
    for path in (*data.train, *data.val):
        if not path.exists():
            raise UsageError(f"{path} is not there; it is made by: {data.made_by}")
    log(f"{args.data}: {name} (seed {seed}, learning rate {rate:g})")
    flags = data.args(contender, rate, seed)
    flags.num_epochs = args.num_epochs or flags.num_epochs
    flags.decoder = contender.settings.get("decoder", "none")
    flags.num_workers = args.num_workers
    flags.limit, flags.output_dir = args.limit, ROOT / "runs/quality" / args.data / name
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    listed = read_labels(flags.annotations, flags.image_path)
    listed, _ = load_data_set(flags.image_path, listed, limit=args.limit)
    vocabulary = contender.vocabulary(count_labels(listed.label_sets, listed.categories), seed)
    flags.vocab_path = flags.output_dir / f"vocab-{rate:g}-{seed}.json"
    save_vocabulary(vocabulary, flags.vocab_path)

    torch.manual_seed(seed)
    device, preprocessing = pick_device("auto"), Preprocessing(flags.image_size)
    set_deterministic(device)
    loaders = training_data(flags, preprocessing, device.type == "cuda")[:2]
    model = contender.build(vocabulary)
    if flags.weights:
        load_weights_file(model, flags.weights)
    training = TrainState(model, flags, len(loaders[0]), device)
    amp = autocast(device, resolve_amp("auto", device, {}))
    about = {"data": args.data, "recipe": data.recipe, "model": name}
    about |= {"learning_rate": rate, "seed": seed}
    try:
        found = learn(training, *loaders, amp, flags)
    except LossError as error:
        return {**about, "commit": code_commit(), "diverged": str(error)}

    images, paths = load_data_set(data.val[0], read_labels(data.val[1], data.val[0]))
    val = LabelledImages(paths, encode_targets(images, vocabulary), preprocessing)
    loader = make_loader(val, 256, args.num_workers, pin_memory=device.type == "cuda")
    encoded = encode_batches(found.model, loader, amp)
    on_val, _ = decode_all(found.model, encoded, NUM_SAMPLES)
    return {
        **about,
        "images": len(loaders[0].dataset),
        "about": contender.about,
        "epochs": flags.num_epochs,
        "best_epoch": found.epoch,
        "temperature": found.model.decoder.temperature,
        "prior_weight": found.model.decoder.prior_weight,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_seconds": round(found.seconds, 1),
        "machine": f"{torch.get_num_threads()} of {os.cpu_count()} cores, {processor()}"
        f"{gpu(device)}, torch {torch.__version__}",
        "commit": code_commit(),
        "holdout": all_figures(found.predictions, *found.thresholds),
        "val": all_figures(on_val, *found.thresholds),
    }


@dataclass(frozen=True)
class Learnt:
    """The best epoch of a run, by the set NLL on the hold-out."""

    model: HybridNet
    epoch: int
    thresholds: list[float | list[float]]  # the one of all labels, and each label's own
    predictions: Predictions  # on the hold-out
    seconds: float  # of training, all epochs


def learn(
    training: TrainState,
    loader: DataLoader,
    holdout: DataLoader,
    amp: torch.autocast,
    flags: argparse.Namespace,
) -> Learnt:
    """Train as train.py does, but for saving."""
    seconds, best = 0.0, None
    for epoch in range(1, flags.num_epochs + 1):
        loader.batch_sampler.epoch, started = epoch, time.perf_counter()
        train_epoch(training, loader, amp, flags, f"epoch {epoch}")
        seconds += time.perf_counter() - started
        if isinstance(training.ema, Asymmetric):
            make_log_odds(training.ema, holdout, amp)
        p, _ = decode_all(training.ema, fit_calibration_on(training.ema, holdout, amp))
        found, *thresholds = validation_metrics(p)
        log(f"epoch {epoch}: {found}")
        if training.end_epoch(found, *thresholds):
            best = copy.deepcopy(training.ema), epoch, thresholds, p
    return Learnt(*best, seconds)


def make_log_odds(model: Asymmetric, loader: DataLoader, amp: torch.autocast) -> None:
    """Of its scores, by two numbers fitted on the hold-out."""
    model.scale_and_shift.copy_(torch.tensor([1.0, 0.0]))
    rows = [(e.cnn_logits.cpu(), t.cpu()) for e, t, _ in encode_batches(model, loader, amp)]
    scores, targets = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
    model.calibrate(scores, targets)


def all_figures(p: Predictions, threshold: float, label_thresholds: list[float]) -> dict:
    """What metrics.json has of them."""
    found = all_metrics(p.targets, p.marginals, predicted_sets(p, threshold, label_thresholds))
    return {"set_nll": float(p.set_nll.mean()), **found}


def best_rate(args: argparse.Namespace, model: str) -> float:
    """That with the lowest set NLL on the hold-out, in the mean of the seeds run with every rate.

    The val images have no say.
    """
    found = {}  # rate -> seed -> set NLL
    for rate in args.learning_rates:
        results = {seed: load(args, model, rate, seed) for seed in args.seeds}
        found[rate] = {seed: r["holdout"]["set_nll"] for seed, r in results.items() if r}
    found = {rate: nll for rate, nll in found.items() if nll} or {args.learning_rates[0]: {}}
    common = set.intersection(*map(set, found.values()))
    return min(found, key=lambda rate: sum(found[rate][seed] for seed in common))


def load(args: argparse.Namespace, model: str, rate: float, seed: int) -> dict | None:
    """A result, if it is there and the run came to an end.

    Raises UsageError if it was made by another recipe (files of before they said so pass).
    """
    path, now = result_file(args, model, rate, seed), SETS[args.data].recipe
    result = json.loads(path.read_text("utf-8")) if path.exists() else {"diverged": ""}
    if result.get("recipe", now) != now:
        raise UsageError(f"{path} was made with {result['recipe']}, not {now}: move it away")
    return None if "diverged" in result else result


def table(args: argparse.Namespace) -> str:
    """Markdown: a row for each model, mean ± standard deviation of the seeds, the best in bold."""
    rows, part = {}, "holdout" if args.holdout else "val"
    for model in args.models:
        rate = best_rate(args, model)
        found = [load(args, model, rate, seed) for seed in args.seeds]
        if found := [result for result in found if result]:
            rows[model] = found
    results = [result[part] for found in rows.values() for result in found]
    rules = [set(result["predicted_sets"]) for result in results]
    # a figure of a rule, path[1], that they all have
    columns = {c: path for c, path in FIGURES.items() if all({*path[1:2]} <= r for r in rules)}
    best = {}
    for column, path in columns.items():
        means = {m: statistics.mean(look_up(found, part, path)) for m, found in rows.items()}
        if means:
            best[column] = (min if column in LOWER_IS_BETTER else max)(means, key=means.get)
    head = ["model", *columns, "learning rate", "parameters", "minutes", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for model, found in rows.items():
        cells = [f"{model}: {found[0]['about']}"]
        for column, path in columns.items():
            text = spread(look_up(found, part, path))
            cells.append(f"**{text}**" if best[column] == model else text)
        minutes = statistics.mean(result["training_seconds"] for result in found) / 60
        cells += [f"{found[0]['learning_rate']:g}", f"{found[0]['parameters'] / 1e6:.1f} M"]
        lines.append("| " + " | ".join([*cells, f"{minutes:.1f}", str(len(found))]) + " |")
    return "\n".join(lines)


def look_up(results: list[dict], part: str, path: tuple[str, ...]) -> list[float]:
    """One figure of every run, on val or hold-out."""
    return [reduce(getitem, path, result[part]) for result in results]


if __name__ == "__main__":
    run_script(main, get_args_parser())
