"""Train HybridNet: a ResNet and an LSTM label decoder, end to end.

The default set, drawn on this machine (minutes on two cores, no download):

    python train.py

COCO 2014 on a GPU:

    python train.py --image_path data/images/train2014 --vocab_path data/vocab.pkl \\
        --arch resnet101 --pretrained --image_size 448 --batch_size 64 --learning_rate 0.0001

One annotated image, the classic check that the network can overfit:

    python train.py --image_path data/images/img.jpg --vocab_path data/vocab.pkl --batch_size 256 \\
        --learning_rate 0.001 --num_epochs 10 --num_workers 4

Several processes, or machines that share the output folder, train as one:

    torchrun --nproc_per_node=4 train.py

The same command again continues an interrupted run, however it ended, exactly where it was last
saved. One JSON line per epoch goes to stdout and to log.jsonl in the output folder, beside
curves.png, last.pt (to continue) and best.pt (to use).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from images.transforms import Preprocessing
from labels.vocabulary import save_vocabulary
from model import ARCHS, DECODERS, DEFAULT_STAGES, NUM_STAGES
from report.training_log import append_log, draw_curves, format_mistakes
from training.data import training_data
from training.resume import Saver, find_changes, fingerprint, load_last
from training.setup import build_model, log_run_summary, resolve_paths, set_deterministic
from training.signals import StopOnSignal, lock_output_dir
from training.state import HINT, LOOK_EVERY, LossError, TrainState, check_finite_and_add
from training.validation import decode_all, fit_calibration_on, validation_metrics
from util.cli import (
    ArgumentParser,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_script,
)
from util.device import autocast, pick_device, resolve_amp
from util.distributed import all_gather, process_group, rank, world_size
from util.errors import RunError, UsageError
from util.files import without_nan
from util.log import log, progress


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    data = parser.add_argument_group("data").add_argument
    data("--image_path", type=Path, help="image folder, shards or one image; else default set")
    data("--annotations", type=Path, help="file or folder of labels; looked for beside the images")
    data("--val_image_path", type=Path, help="validation images, instead of a hold-out")
    data("--val_annotations", type=Path, help="their labels; they choose epoch and threshold")
    data("--vocab_path", type=Path, help="built if missing; default: in the output folder")
    data("--val_fraction", type=fraction, default=0.1, help="held out if there are no val images")
    data("--normalise_tags", action="store_true", help="spellings of a free tag are one label")
    data("--keep_unlabelled", action="store_true", help="train on images without labels, too")
    data("--limit", type=positive_int, help="use only the first N images, for a quick try")
    data("--image_size", type=positive_int, help="pixels a side; 224, or 64 for the default set")
    data("--skip_bad_images", action="store_true", help="go on without those that cannot be read")
    data("--cache", type=Path, help="file for decoded images, built once, for slow decoding")
    net = parser.add_argument_group("model").add_argument
    net("--arch", choices=ARCHS, default="resnet18", help="encoder; deeper is better and slower")
    net(
        "--stages",
        type=int,
        choices=range(1, NUM_STAGES + 1),
        default=DEFAULT_STAGES,
        help="of the encoder that are read: the last one sees no small things",
    )
    net("--decoder", choices=DECODERS, default="chain", help="none: the CNN alone, the control")
    net("--embed_size", type=positive_int, default=256, help="of the joint image-label space")
    net("--hidden_size", type=positive_int, default=256, help="LSTM units; raise for many labels")
    net("--pretrained", action="store_true", help="fetch ImageNet weights: do, if you can")
    net("--weights", type=Path, help="encoder state dict in torchvision's names, whole or partial")
    net("--freeze_encoder", action="store_true", help="train only the rest, for tiny data")
    opt = parser.add_argument_group("optimisation").add_argument
    opt("--num_epochs", type=positive_int, default=10, help="raise it when starting at random")
    opt("--batch_size", type=positive_int, default=32, help="lower it if memory runs out")
    opt("--learning_rate", type=positive_float, default=2e-3, help="peak; 1e-4 if pretrained")
    opt("--weight_decay", type=non_negative_float, default=1e-2, help="raise it if it overfits")
    opt(
        "--cnn_loss_weight",
        type=non_negative_float,
        default=1.0,
        help="of the CNN's own loss beside the decoder's; 0 only when the encoder is frozen",
    )
    opt("--ema_decay", type=fraction, default=0.998, help="per step; 0.9998 for long runs")
    run = parser.add_argument_group("run").add_argument
    run("--output_dir", type=Path, help="default: runs/<data>-<decoder>")
    run("--seed", type=non_negative_int, default=0, help="of start, order and augmentation")
    run("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    run("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    run("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: where fast")
    run("--compile", action="store_true", help="the encoder, for a GPU: slow to begin, then faster")
    run("--save_minutes", type=positive_float, default=10.0, help="between saves in an epoch")
    run("--accept_changes", action="store_true", help="continue though flags or data have changed")
    return parser


def main(args: argparse.Namespace) -> None:
    """Join the other processes, if torchrun started some, and train."""
    device = pick_device(args.device)
    if args.compile and device.type == "cpu":
        raise UsageError("--compile gains nothing on a CPU: leave it out")
    with process_group(device):
        run(args, device)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Settle the flags and train, in an output folder that no other run writes to."""
    resolve_paths(args)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    set_deterministic(device)
    with lock_output_dir(args.output_dir):
        train(args, flags, device)


def train(args: argparse.Namespace, flags: dict, device: torch.device) -> None:
    """Read the data, build or restore the model, train, keep last.pt and best.pt."""
    torch.manual_seed(args.seed)
    preprocessing = Preprocessing(args.image_size)
    train_loader, val_loader, vocabulary, selected_on = training_data(
        args, preprocessing, pin=device.type == "cuda"
    )
    data = {"training": fingerprint(train_loader.dataset)}
    data["validation"] = fingerprint(val_loader.dataset)
    with StopOnSignal() as stop:
        earlier = load_last(args.output_dir)
        if earlier and earlier["vocabulary"] != vocabulary.to_dict():
            raise UsageError(
                f"the run in {args.output_dir} is of another vocabulary; choose another "
                "--output_dir"
            )
        changed = bool(earlier) and find_changes(earlier, flags, data, args.accept_changes)
        model, settings = build_model(args, vocabulary, fresh=earlier is None)
        training = TrainState(model, args, len(train_loader), device)
        if earlier:
            load_training(training, earlier, data, changed)
            log(
                f"continuing {args.output_dir} after epoch {training.epoch} of {args.num_epochs}"
                + (f" and {training.step} steps" if training.step else "")
            )
        bad_images = train_loader.dataset.bad
        if bad_images and rank() == 0 and not earlier:
            bad_images.forget()
        if rank() == 0 and not args.vocab_path.exists():
            save_vocabulary(vocabulary, args.vocab_path)
        # a run keeps the precision it began with, and evaluation that of its run
        precision = resolve_amp(args.amp, device, earlier["flags"] if earlier else {})
        flags |= {"device": device.type, "amp": all_gather(precision)[0]}
        amp = autocast(device, flags["amp"])
        log_run_summary(args, model, train_loader, val_loader, selected_on, device, amp)
        about = {
            "model": settings,
            "vocabulary": vocabulary.to_dict(),
            "preprocessing": preprocessing.to_dict(),
            "selected_on": selected_on,
            "flags": flags,
            "data": data,
        }
        saver = Saver(training, about, args, stop)
        while training.epoch < args.num_epochs:
            run_epoch(training, train_loader, val_loader, amp, args, saver)
    if bad_images and (bad := bad_images.read()):
        log(f"{len(bad):,} images could not be read and were left out: {bad_images.path}")
    log(f"trained {args.num_epochs} epochs; the best is {args.output_dir / 'best.pt'}")


def load_training(training: TrainState, earlier: dict, data: dict, changed: bool) -> None:
    """Go back to where the checkpoint was written. Raises UsageError if it does not fit."""
    try:
        training.load(earlier, changed)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        raise UsageError(
            "the checkpoint in --output_dir is damaged: its state to continue from does not fit; "
            "move it away to begin anew"
        ) from None
    if changed and earlier.get("data", {}).get("validation") != data["validation"]:
        training.best_nll = math.inf  # of other images


def run_epoch(
    training: TrainState,
    train_loader: DataLoader,
    val_loader: DataLoader,
    amp: torch.autocast,
    args: argparse.Namespace,
    saver: Saver,
) -> None:
    """Train (what is left of) an epoch, validate, save, log."""
    epoch, batches = training.epoch + 1, train_loader.batch_sampler
    started = time.perf_counter()
    batches.epoch, batches.first = epoch, training.step
    name, num_items = f"epoch {epoch}/{args.num_epochs}", sum(batches.batch_sizes())
    try:
        losses = train_epoch(training, train_loader, amp, args, name, saver.between_steps)
    except LossError:
        raise
    except (UsageError, RuntimeError):  # an image is gone, a worker was killed: keep what was done
        if world_size() == 1 and training.is_whole:
            check_finite_and_add(training, train_loader, args.output_dir)
            saver.save()
        raise
    images_per_second = num_items / (time.perf_counter() - started)
    saver.save()  # validation may take long
    val_batches = saver.stop.watch(progress(val_loader, "validating"))
    p, rows = decode_all(training.ema, fit_calibration_on(training.ema, val_batches, amp))
    metrics, threshold, label_thresholds = validation_metrics(p)
    if not math.isfinite(metrics["val_set_nll"]):
        raise RunError(f"the validation loss is not finite after epoch {epoch}; {HINT}")
    if is_best := training.end_epoch(metrics, threshold, label_thresholds):
        saver.save_best()
    bad_images = train_loader.dataset.bad
    skipped = {"bad_images": len(bad_images.read())} if bad_images else {}
    timings = {
        "images_per_second": images_per_second,
        "seconds": time.perf_counter() - started,
    }
    line = without_nan({"epoch": epoch, **losses, **metrics, **skipped, **timings})
    if rank() == 0:
        append_log(line, args.output_dir / "log.jsonl")
        draw_curves(args.output_dir / "log.jsonl", args.output_dir / "curves.png")
    saver.save()
    if rank() > 0:
        return
    print(json.dumps(line), flush=True)
    log(
        f"epoch {epoch}/{args.num_epochs}: loss {losses['train_loss']:.3f}, validation set NLL "
        f"{metrics['val_set_nll']:.3f}, mAP {metrics['val_mAP']:.1f}, "
        f"OF1 {metrics['val_OF1']:.1f}, exact {metrics['val_EM']:.1f}, "
        f"{images_per_second:.0f} images/s{' (best so far)' if is_best else ''}"
    )
    labels = saver.about["vocabulary"]["labels"]
    paths = [val_loader.dataset.paths[i] for i in rows]
    log(*format_mistakes(p, threshold, paths, labels), sep="\n")


def train_epoch(
    training: TrainState,
    loader: DataLoader,
    amp: torch.autocast,
    args: argparse.Namespace,
    label: str,
    between_steps: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The steps that are left of an epoch; returns its mean losses per image in nats.

    between_steps is called where everything is as saved: after each step, on a GPU after some.
    """
    training.model.train()
    device = next(training.model.parameters()).device
    look_every = 1 if device.type == "cpu" else LOOK_EVERY
    has_decoder = args.decoder != "none"
    batches = zip(progress(loader, label), loader.batch_sampler.batch_sizes(), strict=True)
    for (images, targets, indices), batch_size in batches:
        images = images.to(device, non_blocking=True)  # b×3×S×S, this process's share of the batch
        share = world_size() / batch_size  # what the processes compute is averaged
        training.is_whole = False  # BatchNorm's statistics move
        with amp:  # targets stay where they are: see HybridNet.forward
            found = training.parallel(images, targets)
        losses = {name: share * each.sum() for name, each in found.items()}
        loss = losses["set_nll"]
        if has_decoder:  # or the decoder, quick to learn, would leave the CNN little to explain
            loss = loss + args.cnn_loss_weight * losses["cnn_bce"]
        terms = torch.stack([loss, losses["set_nll"], losses["cnn_bce"]]).detach()
        training.update(loss, terms / share, indices)
        if len(training.pending) == look_every:
            check_finite_and_add(training, loader, args.output_dir)
            between_steps()
    check_finite_and_add(training, loader, args.output_dir)
    total = np.sum(all_gather(training.sums), axis=0) / loader.batch_sampler.num_items
    return dict(zip(("train_loss", "train_set_nll", "train_cnn_bce"), total.tolist(), strict=True))


if __name__ == "__main__":
    run_script(main, get_args_parser())
