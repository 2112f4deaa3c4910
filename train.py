"""Train HybridNet: a ResNet and an LSTM label decoder, end to end.

The default set, drawn on this machine (minutes on two cores, no download):

    python train.py

COCO 2014 on a GPU:

    python train.py --image_path data/images/train2014 --vocab_path data/vocab.pkl \\
        --arch resnet101 --pretrained --image_size 448 --batch_size 64 --learning_rate 0.0001

One annotated image, the classic check that the network can overfit:

    python train.py --image_path data/images/img.jpg --vocab_path data/vocab.pkl --batch_size 256 \\
        --learning_rate 0.001 --num_epochs 10 --num_workers 4

The same command again continues an interrupted run. One JSON line per epoch goes to stdout and to
log.jsonl in the output folder, beside last.pt (to continue) and best.pt (to use).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from annotations import find_annotations
from checkpoint import append_log, load_checkpoint, refuse_changes, save_checkpoint
from data_loader import training_data
from decoding import predict
from metrics import average_precision, fit_threshold, mean, set_figures
from model import ARCHS, DECODERS, HybridNet, load_encoder_weights
from pictures import Preprocessing
from utils import (
    ArgumentParser,
    RunError,
    UsageError,
    autocast,
    fraction,
    log,
    make_folder,
    non_negative_float,
    non_negative_int,
    pick_device,
    positive_float,
    positive_int,
    progress,
    resolve_amp,
    run_script,
    without_nan,
)
from vocabulary import Vocabulary, check_suffix, save_vocabulary

SCENES = Path("data/scenes")  # the default set, made by data/make_scenes.py
SCENES_IMAGE_SIZE = 64
LOOK_EVERY = 20  # steps; to look at a loss is to wait for the GPU
REMEDY = "continue with --amp off, or start anew with a lower --learning_rate and --output_dir"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    data = parser.add_argument_group("data").add_argument
    data("--image_path", type=Path, help="image folder or one annotated image; else default set")
    data("--annotations", type=Path, help="COCO json; if not given, looked for in ../annotations")
    data("--val_image_path", type=Path, help="validation images, instead of a hold-out")
    data("--val_annotations", type=Path, help="their COCO json; they choose epoch and threshold")
    data("--vocab_path", type=Path, help="built if missing; default: in the output folder")
    data("--hold_out", type=fraction, default=0.1, help="share held out if no validation images")
    data("--keep_unlabelled", action="store_true", help="train on images without labels, too")
    data("--limit", type=positive_int, help="use only the first N images, for a quick try")
    data("--image_size", type=positive_int, help="pixels a side; 224, or 64 for the default set")
    data("--cache", type=Path, help="file for decoded images, built once, for slow decoding")
    net = parser.add_argument_group("model").add_argument
    net("--arch", choices=ARCHS, default="resnet18", help="encoder; deeper is better and slower")
    net("--decoder", choices=DECODERS, default="chain", help="none: the CNN alone, the control")
    net("--embed_size", type=positive_int, default=256, help="of the joint image-label space")
    net("--hidden_size", type=positive_int, default=256, help="LSTM units; raise for many labels")
    net("--pretrained", action="store_true", help="fetch ImageNet weights: do, if you can")
    net("--weights", type=Path, help="encoder state dict in torchvision's names, whole or partial")
    net("--freeze_encoder", action="store_true", help="train only the rest, for tiny data")
    opt = parser.add_argument_group("optimisation").add_argument
    opt("--num_epochs", type=positive_int, default=10, help="raise it when starting at random")
    opt("--batch_size", type=positive_int, default=32, help="lower it if memory runs out")
    opt("--learning_rate", type=positive_float, default=1e-3, help="peak; 1e-4 if pretrained")
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
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the data, build or restore the model, train, keep last.pt and best.pt."""
    device = pick_device(args.device)
    fill_defaults(args)
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    last_path, best_path = args.output_dir / "last.pt", args.output_dir / "best.pt"
    checkpoint = load_checkpoint(last_path) if last_path.exists() else None
    if checkpoint:
        refuse_changes(checkpoint, flags, last_path)
    torch.manual_seed(args.seed)
    preprocessing = Preprocessing(args.image_size)
    train_loader, val_loader, vocabulary, selected_on = training_data(
        args, preprocessing, pin=device.type == "cuda"
    )
    model, settings = build_model(args, vocabulary, fresh=checkpoint is None)
    training = Training(model, args, len(train_loader), device)
    if checkpoint:
        if checkpoint["vocabulary"] != vocabulary.to_dict():
            raise UsageError(f"{last_path} is of another vocabulary; choose another --output_dir")
        training.load(checkpoint)
        log(f"continuing {last_path} after epoch {training.epoch} of {args.num_epochs}")
    make_folder(args.output_dir)
    if not args.vocab_path.exists():
        save_vocabulary(vocabulary, args.vocab_path)
    # a run keeps the precision it began with, and evaluation that of its run
    earlier = checkpoint["flags"] if checkpoint else {}
    flags |= {"device": device.type, "amp": resolve_amp(args.amp, device, earlier)}
    amp = autocast(device, flags["amp"])
    describe(args, model, train_loader, val_loader, selected_on, device, amp)

    while training.epoch < args.num_epochs:
        epoch = training.epoch + 1
        started = time.perf_counter()
        train_loader.sampler.epoch = epoch
        losses = train_epoch(training, train_loader, amp, args, f"epoch {epoch}/{args.num_epochs}")
        images_per_second = len(train_loader.sampler) / (time.perf_counter() - started)
        figures, threshold = validate(training.ema, val_loader, amp)
        if not math.isfinite(figures["val_set_nll"]):
            raise RunError(f"the validation loss is not finite after epoch {epoch}; {REMEDY}")
        is_best = figures["val_set_nll"] < training.best_nll
        training.epoch, training.best_nll = epoch, min(training.best_nll, figures["val_set_nll"])
        checkpoint = {
            "model": settings,
            "vocabulary": vocabulary.to_dict(),
            "preprocessing": preprocessing.to_dict(),
            "weights": training.ema.state_dict(),
            "threshold": threshold,
            "epoch": epoch,
            "figures": figures,
            "selected_on": selected_on,
            "flags": flags,
        }
        if is_best:
            save_checkpoint(checkpoint, best_path)
        seconds = time.perf_counter() - started
        speed = {"images_per_second": images_per_second, "seconds": seconds}
        line = without_nan({"epoch": epoch, **losses, **figures, **speed})
        append_log(line, args.output_dir / "log.jsonl")
        save_checkpoint({**checkpoint, "training": training.state_dict()}, last_path)
        print(json.dumps(line), flush=True)
        log(
            f"epoch {epoch}/{args.num_epochs}: loss {losses['train_loss']:.3f}, validation set NLL "
            f"{figures['val_set_nll']:.3f}, mAP {figures['val_mAP']:.1f}, "
            f"OF1 {figures['val_OF1']:.1f}, exact {figures['val_EM']:.1f}, "
            f"{images_per_second:.0f} images/s{' (best so far)' if is_best else ''}"
        )
    log(f"trained {args.num_epochs} epochs; the best is {best_path}")


class Training:
    """What changes while training runs, and what continuing it needs."""

    def __init__(
        self,
        model: HybridNet,
        args: argparse.Namespace,
        steps_per_epoch: int,
        device: torch.device,
    ) -> None:
        # the averaged weights are what is evaluated; copied before the LSTM is packed for a GPU
        self.ema = copy.deepcopy(model).requires_grad_(False).to(device)
        self.model = model.to(device)
        self.ema_decay = args.ema_decay
        pairs = list(zip(self.ema.state_dict().values(), model.state_dict().values(), strict=True))
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # counters
        self.optimizer = build_optimizer(model, args)
        total_steps = max(args.num_epochs * steps_per_epoch, 2)
        warm_up = max(0.2, 1.5 / total_steps)  # OneCycleLR divides by zero at 0.2 of 5 steps
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, args.learning_rate, total_steps=total_steps, pct_start=warm_up
        )
        self.epoch, self.steps, self.best_nll = 0, 0, math.inf

    def state_dict(self) -> dict:
        """Plain types and tensors; the averaged weights are in the checkpoint already."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": [self.epoch, self.steps, self.best_nll],
        }

    def load(self, checkpoint: dict) -> None:
        """Go back to where `checkpoint` was written."""
        state = checkpoint["training"]
        self.model.load_state_dict(state["weights"])
        self.ema.load_state_dict(checkpoint["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.steps, self.best_nll = state["progress"]

    def step(self, loss: torch.Tensor) -> None:
        """One update of the weights and of their average."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.scheduler.step()
        self.steps += 1
        # over few steps at first, or the average would remember the random start
        self.update_ema(min(self.ema_decay, (1 + self.steps) / (10 + self.steps)))

    def update_ema(self, decay: float) -> None:
        """Average weights and BatchNorm statistics; counters are copied."""
        get_ema_multi_avg_fn(decay)(*zip(*self.averaged, strict=True), None)
        for ema, current in self.copied:
            ema.copy_(current)


def train_epoch(
    training: Training,
    loader: DataLoader,
    amp: torch.autocast,
    args: argparse.Namespace,
    label: str,
) -> dict[str, float]:
    """One pass over the training images; returns mean losses per image in nats."""
    model = training.model.train()
    device = next(model.parameters()).device
    has_decoder = args.decoder != "none"
    sums, pending = np.zeros(3), []
    for images, targets, _ in progress(loader, label):
        images = images.to(device, non_blocking=True)  # B×3×S×S
        with amp:  # targets stay where they are: see HybridNet.forward
            losses = {name: each.mean() for name, each in model(images, targets).items()}
        loss = losses["set_nll"]
        if has_decoder:  # or the decoder, quick to learn, would leave the CNN little to explain
            loss = loss + args.cnn_loss_weight * losses["cnn_bce"]
        training.step(loss)
        terms = torch.stack([loss, losses["set_nll"], losses["cnn_bce"]]).detach()
        pending.append(terms * len(images))
        if len(pending) == LOOK_EVERY:
            sums += look_at(pending, training.steps)
            pending = []
    if pending:
        sums += look_at(pending, training.steps)
    loss, set_nll, cnn_bce = (sums / len(loader.sampler)).tolist()
    return {"train_loss": loss, "train_set_nll": set_nll, "train_cnn_bce": cnn_bce}


def look_at(losses: list[torch.Tensor], steps: int) -> np.ndarray:
    """The sum of the last steps' losses (3 each), the latest of them step number `steps`.

    Waits for the GPU. Raises RunError naming the first step whose loss is not finite: call it for
    every step before anything is saved.
    """
    values = torch.stack(losses).double().cpu().numpy()
    if bad := np.flatnonzero(~np.isfinite(values).all(1)).tolist():
        step = steps - len(losses) + bad[0] + 1
        raise RunError(f"the loss is {values[bad[0], 0]} at step {step}; {REMEDY}")
    return values.sum(0)


def validate(
    model: HybridNet, loader: DataLoader, amp: torch.autocast
) -> tuple[dict[str, float], float]:
    """Figures on the hold-out, and the threshold fitted there."""
    p = predict(model, loader, amp)
    ap = average_precision(p.targets, p.marginals)
    threshold = fit_threshold(p.targets, p.marginals)
    figures = {
        "val_set_nll": float(p.set_nll.mean()),
        "val_mAP": 100 * mean(ap[~np.isnan(ap)]),
        "val_OF1": set_figures(p.targets, p.marginals >= threshold)["OF1"],
        "val_EM": set_figures(p.targets, p.best_sets)["EM"],
    }
    return figures, threshold


def build_model(
    args: argparse.Namespace, vocabulary: Vocabulary, fresh: bool
) -> tuple[HybridNet, dict]:
    """A model and the settings that rebuild it; a fresh one starts from the weights asked for."""
    settings = {
        "arch": args.arch,
        "decoder": args.decoder,
        "embed_size": args.embed_size,
        "hidden_size": args.hidden_size,
        "freeze_encoder": args.freeze_encoder,
    }
    try:
        model = HybridNet(
            num_labels=len(vocabulary),
            label_log_odds=vocabulary.log_odds(),
            pretrained=args.pretrained and fresh,
            **settings,
        )
    except OSError as error:  # urllib's errors are
        raise RunError(f"--pretrained could not fetch the weights ({error})") from None
    if args.weights and fresh:
        load_weights(model, args.weights)
    elif fresh and not args.pretrained:
        log("encoder: all tensors at random (--pretrained or --weights FILE would start it better)")
    return model, settings


def load_weights(model: HybridNet, path: Path) -> None:
    """Load an encoder state dict and say exactly what was and what was not in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        loaded, missing = load_encoder_weights(model.encoder, state)
    except OSError as error:
        raise UsageError(f"cannot read --weights {path} ({error.strerror or error})") from None
    except ValueError as error:
        raise UsageError(f"--weights {path} does not fit: {error}") from None
    except Exception:  # torch raises many things for a file that is not a state dict
        raise UsageError(f"--weights {path} is not a state dict of tensors") from None
    log(f"encoder: {len(loaded)} tensors from {path}: {', '.join(loaded)}")
    log(f"encoder: {len(missing)} tensors at random: {', '.join(missing) or 'none'}")


def build_optimizer(model: HybridNet, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices and filters, not on biases and BatchNorm."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)


def fill_defaults(args: argparse.Namespace) -> None:
    """Resolve every path that was not given; makes the default set if that is what is wanted."""
    if args.image_path is None:
        if args.annotations or args.val_annotations or args.val_image_path:
            raise UsageError("annotations without --image_path: name the image folder, too")
        if not (SCENES / "annotations/instances_val.json").exists():
            script = Path(__file__).parent / "data/make_scenes.py"
            log(f"drawing the default set with {script.name}, once")
            if subprocess.run(
                [sys.executable, script, "--output_dir", SCENES], stdout=2
            ).returncode:
                raise RunError("the default set could not be drawn; the reason is above")
        args.image_path = SCENES / "images/train"
        args.annotations = SCENES / "annotations/instances_train.json"
        args.vocab_path = args.vocab_path or SCENES / "vocab.pkl"
        args.image_size = args.image_size or SCENES_IMAGE_SIZE
        name = SCENES.name
    else:
        if not args.image_path.exists():
            raise UsageError(f"--image_path {args.image_path} does not exist")
        args.annotations = args.annotations or find_annotations(args.image_path, "train")
        name = args.image_path.stem if args.image_path.is_file() else args.annotations.stem
    args.image_size = args.image_size or 224
    args.output_dir = args.output_dir or Path("runs") / f"{name}-{args.decoder}"
    args.vocab_path = args.vocab_path or args.output_dir / "vocab.pkl"
    check_suffix(args.vocab_path)
    if args.pretrained and args.weights:
        raise UsageError("--pretrained and --weights are two starts of the encoder: give one")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UsageError(f"--output_dir {args.output_dir} is a file; choose another")
    if args.val_annotations:
        args.val_image_path = args.val_image_path or args.image_path
    elif args.val_image_path:
        args.val_annotations = find_annotations(args.val_image_path, "val")


def describe(args, model, train_loader, val_loader, selected_on, device, amp) -> None:
    """The numbers derived from flags and data, before anything takes long."""
    with amp:
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images = len(train_loader.dataset)
    per_image = train_loader.dataset.targets.sum(1).mean()
    labels = len(model.classifier.bias)
    log(f"training on {images:,} images, {per_image:.2f} of {labels} labels each")
    log(f"epoch and threshold are chosen on {selected_on}: {len(val_loader.dataset):,} images")
    log(f"{args.arch} + {args.decoder}: {parameters:,} parameters, {trained:,} trained")
    log(
        f"{args.num_epochs} epochs of {len(train_loader)} steps, batches of "
        f"{train_loader.batch_size} at {args.image_size} px, peak learning rate "
        f"{args.learning_rate:g}, {device}, {precision}, "
        f"commit {commit()}"
    )
    log(f"writing to {args.output_dir}")


def commit() -> str:
    """The code's git commit, or 'unknown' outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    run_script(main, get_args_parser())
