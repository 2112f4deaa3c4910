"""Compare HybridNet with its rivals: same data, encoder, epochs, augmentation and optimizer.

    python benchmarks/quality/quality.py drawn            train what is missing, print the table
    python benchmarks/quality/quality.py drawn --table    only print the table

Data sets: scenes (the default set), drawn (10,000 and 4,000 of COCO's label sets, drawn at 64 px),
drawn-full (all of them: 82,081 and 40,137), ccp (real photos, encoder from ../shared/weights),
ccp-lite0, posters and coco-photos (real photos, whole encoder from ../shared/weights); with -random
without its weights, with -hidden-60 and such without 60 % of the labels.

The hold-out is a tenth of the training images (a fortieth for drawn-full). It chooses everything:
each model's learning rate (tried with the first seed, lowest set NLL), a run's best epoch, its
calibration and its thresholds. The val images are used once, at the end of a run. Each run adds a
line to benchmarks/quality/results.jsonl. Start the command again to continue after an interruption,
or several times to train several models at once (quickest with one thread each).
Needs the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from ablations import EVERYONE  # noqa: E402
from hidden_labels import hide_labels  # noqa: E402
from quality_results import (  # noqa: E402
    Comparison,
    Run,
    append_result,
    format_table,
    read_results,
)
from quality_sets import SETS, DataSet  # noqa: E402
from rivals import CONTENDERS, Asymmetric  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from data_loader import LabelledImages, load_data_set, make_loader  # noqa: E402
from evaluation.metrics import all_metrics  # noqa: E402
from images.transforms import Preprocessing  # noqa: E402
from inference.checkpoint import save_checkpoint  # noqa: E402
from inference.predictions import Predictions, encode_batches, predicted_sets  # noqa: E402
from labels.read import read_labels  # noqa: E402
from labels.targets import encode_targets  # noqa: E402
from labels.vocabulary import Vocabulary, count_labels, save_vocabulary  # noqa: E402
from model import HybridNet, settings_of  # noqa: E402
from train import choose_images, load_data, preprocessing_of, train_one_epoch  # noqa: E402
from training.data import TrainingData  # noqa: E402
from training.saver import checked_steps  # noqa: E402
from training.setup import set_deterministic  # noqa: E402
from training.state import TrainState  # noqa: E402
from training.validation import Validation, decode_all, validate  # noqa: E402
from training.weights import load_weights_file  # noqa: E402
from util.cli import (  # noqa: E402
    ArgumentParser,
    code_commit,
    non_negative_float,
    non_negative_int,
    positive_int,
    run_script,
)
from util.device import autocast, pick_device, resolve_amp  # noqa: E402
from util.errors import RunError, UsageError  # noqa: E402
from util.log import log  # noqa: E402

NUM_SAMPLES = 128  # as in evaluate.py
RESULTS = ROOT / "benchmarks/quality/results.jsonl"
RUNS = ROOT / "runs/quality"  # a folder for each run: its lock and its vocabulary


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("data", choices=SETS, help="data set to train and test on")
    add(
        "--models",
        nargs="+",
        choices=EVERYONE,
        metavar="NAME",
        default=list(CONTENDERS),
        help=f"any of {', '.join(EVERYONE)}",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run for each")
    add(
        "--learning_rates",
        nargs="+",
        type=float,
        default=[0.0005, 0.001, 0.002],
        help="tried with the first seed; the best one is used for the other seeds",
    )
    add("--start_decay", type=non_negative_float, help="instead of the data set's own")
    add("--limit", type=positive_int, help="use only the first N training images")
    add("--num_epochs", type=positive_int, help="instead of the data set's own number")
    add("--threads", type=positive_int, default=1, help="threads of this process")
    add("--num_workers", type=non_negative_int, default=0, help="processes that load images")
    add("--table", action="store_true", help="train nothing")
    add(
        "--holdout",
        action="store_true",
        help="metrics of the hold-out instead of val: optimistic, because epoch, calibration and "
        "thresholds were chosen there",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Train what is missing, then print the table."""
    torch.set_num_threads(args.threads)
    data = SETS[args.data]
    if args.start_decay is not None:
        data = replace(data, start_decay=args.start_decay)
    comparison = Comparison(
        data=args.data,
        recipe=data.recipe,
        limit=args.limit,
        epochs=args.num_epochs or data.num_epochs,
        learning_rates=args.learning_rates,
        seeds=args.seeds,
    )
    if not args.table:
        first, *others = args.seeds
        runs = [comparison.run(m, r, first) for r in args.learning_rates for m in args.models]
        run_missing(runs, data, args.num_workers)
        results = read_results(RESULTS)
        rates = {model: comparison.best_rate(results, model) for model in args.models}
        runs = [comparison.run(m, rates[m], seed) for seed in others for m in args.models]
        run_missing(runs, data, args.num_workers)
    part = "holdout" if args.holdout else "val"
    print(format_table(read_results(RESULTS), comparison, args.models, part))


def run_missing(runs: list[Run], data_set: DataSet, num_workers: int) -> None:
    """Train and test on `data_set` what RESULTS lacks.

    First the runs that no other process works on, then those that it did not finish.
    """
    for wait in (False, True):
        for run in runs:
            folder = run_folder(run)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = FileLock(folder / "lock").acquire(timeout=-1 if wait else 0)
            except Timeout:
                continue
            with lock:
                if run not in read_results(RESULTS):
                    append_result(train_and_test(run, data_set, folder, num_workers), RESULTS)


def run_folder(run: Run) -> Path:
    """Where a run keeps its lock and its vocabulary."""
    size = "all" if run.limit is None else run.limit
    name = f"{run.data}-{size}-{run.epochs}-epochs-{run.model}-{run.learning_rate:g}-{run.seed}"
    return RUNS / f"{name}-{zlib.crc32(run.recipe.encode()):08x}"


def train_and_test(run: Run, data_set: DataSet, folder: Path, num_workers: int) -> dict:
    """Train a model; its metrics on the hold-out and on the val images, as a line of RESULTS."""
    contender = EVERYONE[run.model]
    for path in (*data_set.train, *data_set.val):
        if not path.exists():
            raise UsageError(f"{path} does not exist: {data_set.missing}")
    log(f"{run.data}: {run.model} (seed {run.seed}, learning rate {run.learning_rate:g})")
    flags = data_set.args(contender, run.learning_rate, run.seed)
    flags.num_epochs, flags.limit, flags.num_workers = run.epochs, run.limit, num_workers
    vars(flags).update({"decoder": "none", **contender.settings})
    flags.output_dir, flags.vocab_path = folder, folder / "vocab.json"
    listed = read_labels(flags.annotations, flags.image_path)
    listed, _ = load_data_set(flags.image_path, listed, limit=run.limit)
    vocabulary = contender.vocabulary(count_labels(listed.label_sets, listed.categories), run.seed)
    save_vocabulary(vocabulary, flags.vocab_path)

    torch.manual_seed(run.seed)
    device = pick_device("auto")
    set_deterministic(device)
    images = choose_images(flags)
    if data_set.hidden:
        images = hide_labels(images, data_set.hidden, run.seed, contender.hidden_is_absent)
    data = load_data(flags, images, device)
    model = contender.build(images.vocabulary, data_set.arch)
    if flags.weights:
        load_weights_file(model.encoder, data_set.arch, flags.weights)
    amp = autocast(device, resolve_amp("auto", device, {}))
    result = {**asdict(run), "commit": code_commit()}
    try:
        best = learn(model, data, device, amp, flags)
    except RunError as error:  # a loss is not finite
        return {**result, "diverged": str(error)}
    preprocessing = preprocessing_of(flags)
    if type(model) is HybridNet:  # evaluate.py and sample.py can read it
        save_best(best, vocabulary, preprocessing, data, flags, folder)
    on_val = predict_val(best.model, data_set.val, vocabulary, preprocessing, num_workers, amp)
    return {
        **result,
        "images": len(data.train_loader.dataset),
        "about": contender.about,
        "best_epoch": best.epoch,
        "temperature": best.model.decoder.temperature,
        "prior_weight": best.model.decoder.prior_weight,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_seconds": round(best.seconds, 1),
        "machine": describe_machine(device),
        "holdout": metrics_of(best.holdout.predictions, best.holdout),
        "val": metrics_of(on_val, best.holdout),
    }


@dataclass(frozen=True)
class Best:
    """The best epoch of a run, by the set NLL on the hold-out."""

    model: HybridNet
    epoch: int
    holdout: Validation
    seconds: float  # of training, all epochs


def save_best(
    best: Best,
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    data: TrainingData,
    flags: argparse.Namespace,
    folder: Path,
) -> None:
    """Write the run's best.pt, as train.py does."""
    paths = {k: str(v) if isinstance(v, Path) else v for k, v in vars(flags).items()}
    checkpoint = {
        "commit": code_commit(),
        "model": settings_of(vars(flags)),
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "weights": best.model.state_dict(),
        "temperature": best.model.decoder.temperature,
        "prior_weight": best.model.decoder.prior_weight,
        "threshold": best.holdout.threshold,
        "label_thresholds": best.holdout.label_thresholds,
        "promises": best.holdout.promises,
        "epoch": best.epoch,
        "metrics": best.holdout.metrics,
        "selected_on": data.images.selected_on,
        "held_out": data.images.held_out,
        "flags": paths,
    }
    save_checkpoint(checkpoint, folder / "best.pt")


def learn(
    model: HybridNet,
    data: TrainingData,
    device: torch.device,
    amp: torch.autocast,
    flags: argparse.Namespace,
) -> Best:
    """Train as train.py does, without saving. Raises RunError if a loss is not finite."""
    state = TrainState(
        model,
        device,
        steps_per_epoch=len(data.train_loader),
        num_epochs=flags.num_epochs,
        learning_rate=flags.learning_rate,
        weight_decay=flags.weight_decay,
        ema_decay=flags.ema_decay,
        layer_decay=flags.layer_decay,
        start_decay=flags.start_decay,
    )
    seconds, best = 0.0, None
    for epoch in range(1, flags.num_epochs + 1):
        data.train_loader.batch_sampler.epoch, started = epoch, time.perf_counter()
        steps = checked_steps(state, data.train_loader, f"epoch {epoch}", flags.output_dir)
        train_one_epoch(state, steps, amp, flags.decoder, flags.cnn_loss_weight, flags.seed)
        seconds += time.perf_counter() - started
        if isinstance(state.ema, Asymmetric):
            fit_scale_and_shift(state.ema, data.val_loader, amp)
        found = validate(state.ema, data.val_loader, amp)
        log(f"epoch {epoch}: {found.metrics}")
        if state.end_epoch(found.metrics, found.threshold, found.label_thresholds):
            best = copy.deepcopy(state.ema), epoch, found
    return Best(*best, seconds)


def fit_scale_and_shift(model: Asymmetric, holdout: Iterable, amp: torch.autocast) -> None:
    """Turn the model's scores into logits, with two numbers fitted on the hold-out."""
    model.scale_and_shift.copy_(torch.tensor([1.0, 0.0]))
    rows = [(e.cnn_logits.cpu(), t.cpu()) for e, t, _ in encode_batches(model, holdout, amp)]
    scores, targets = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
    model.calibrate(scores, targets)


def predict_val(
    model: HybridNet,
    val: tuple[Path, Path],
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    num_workers: int,
    amp: torch.autocast,
) -> Predictions:
    """Predictions on the val images (folder and annotations)."""
    images, paths = load_data_set(val[0], read_labels(val[1], val[0]))
    data = LabelledImages(paths, encode_targets(images, vocabulary), preprocessing)
    loader = make_loader(data, 256, num_workers, pin_memory=torch.cuda.is_available())
    return decode_all(model, encode_batches(model, loader, amp), NUM_SAMPLES)[0]


def metrics_of(p: Predictions, holdout: Validation) -> dict:
    """The metrics that evaluate.py writes to metrics.json, with thresholds from the hold-out."""
    sets = predicted_sets(p, holdout.threshold, holdout.label_thresholds)
    found = all_metrics(p.targets, p.marginals, sets, p.known)
    return {"set_nll": float(p.set_nll.mean()), **found}


if __name__ == "__main__":
    run_script(main, get_args_parser())
