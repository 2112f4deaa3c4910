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

The same command again continues an interrupted run. One JSON line per epoch goes to stdout and to
log.jsonl in the output folder, beside curves.png, last.pt (to continue) and best.pt (to use).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from checkpoint import load_checkpoint, refuse_changes, save_checkpoint
from data_loader import training_data
from decoding import Predictions, decode, encode_batches
from distributed import (
    as_one,
    gather,
    gather_batches,
    process_group,
    rank,
    sum_over_processes,
    world_size,
)
from metrics import average_precision, fit_threshold, mean, set_figures
from model import ARCHS, DECODERS, HybridNet
from pictures import Preprocessing
from run_setup import build_model, describe, fill_defaults
from training_log import append_log, describe_mistakes, draw_curves
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
from vocabulary import save_vocabulary

LOOK_EVERY = 20  # steps; to look at a loss is to wait for the GPU
REMEDY = "continue with --amp off, or start anew with a lower --learning_rate and --output_dir"


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
    """Join the other processes, if torchrun started some, and train."""
    device = pick_device(args.device)
    with process_group(device):
        run(args, device)


def run(args: argparse.Namespace, device: torch.device) -> None:
    """Read the data, build or restore the model, train, keep last.pt and best.pt."""
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
    if rank() == 0 and not args.vocab_path.exists():
        save_vocabulary(vocabulary, args.vocab_path)
    # a run keeps the precision it began with, and evaluation that of its run
    earlier = checkpoint["flags"] if checkpoint else {}
    flags |= {"device": device.type, "amp": gather(resolve_amp(args.amp, device, earlier))[0]}
    amp = autocast(device, flags["amp"])
    describe(args, model, train_loader, val_loader, selected_on, device, amp)

    while training.epoch < args.num_epochs:
        epoch = training.epoch + 1
        started = time.perf_counter()
        train_loader.batch_sampler.epoch = epoch
        losses = train_epoch(training, train_loader, amp, args, f"epoch {epoch}/{args.num_epochs}")
        images_per_second = train_loader.batch_sampler.num_items / (time.perf_counter() - started)
        p = predict(training.ema, val_loader, amp)
        figures, threshold = measure(p)
        if not math.isfinite(figures["val_set_nll"]):
            raise RunError(f"the validation loss is not finite after epoch {epoch}; {REMEDY}")
        is_best = figures["val_set_nll"] < training.best_nll
        training.epoch, training.best_nll = epoch, min(training.best_nll, figures["val_set_nll"])
        if rank() > 0:
            continue  # the first process writes for all
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
        draw_curves(args.output_dir / "log.jsonl", args.output_dir / "curves.png")
        print(json.dumps(line), flush=True)
        log(
            f"epoch {epoch}/{args.num_epochs}: loss {losses['train_loss']:.3f}, validation set NLL "
            f"{figures['val_set_nll']:.3f}, mAP {figures['val_mAP']:.1f}, "
            f"OF1 {figures['val_OF1']:.1f}, exact {figures['val_EM']:.1f}, "
            f"{images_per_second:.0f} images/s{' (best so far)' if is_best else ''}"
        )
        log(*describe_mistakes(p, threshold, val_loader.dataset.paths, vocabulary.labels), sep="\n")
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
        self.parallel = as_one(self.model)  # computes losses
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
    training.model.train()
    device = next(training.model.parameters()).device
    has_decoder = args.decoder != "none"
    sums, pending = np.zeros(3), []
    batches = zip(progress(loader, label), loader.batch_sampler.sizes(), strict=True)
    for (images, targets, _), batch_size in batches:
        images = images.to(device, non_blocking=True)  # b×3×S×S, this process's share of the batch
        share = world_size() / batch_size  # what the processes compute is averaged
        with amp:  # targets stay where they are: see HybridNet.forward
            found = training.parallel(images, targets)
        losses = {name: share * each.sum() for name, each in found.items()}
        loss = losses["set_nll"]
        if has_decoder:  # or the decoder, quick to learn, would leave the CNN little to explain
            loss = loss + args.cnn_loss_weight * losses["cnn_bce"]
        training.step(loss)
        terms = torch.stack([loss, losses["set_nll"], losses["cnn_bce"]]).detach()
        pending.append(terms / share)
        if len(pending) == LOOK_EVERY:
            sums += look_at(pending, training.steps)
            pending = []
    if pending:
        sums += look_at(pending, training.steps)
    total = sum_over_processes(torch.from_numpy(sums).to(device)).cpu()
    loss, set_nll, cnn_bce = (total / loader.batch_sampler.num_items).tolist()
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


def predict(model: HybridNet, loader: DataLoader, amp: torch.autocast) -> Predictions:
    """Everybody's share of the validation images decoded, together and in order."""
    encoded = encode_batches(model, loader, amp)
    return Predictions.join(
        gather_batches([decode(model, e, targets) for e, targets, _ in encoded])
    )


def measure(p: Predictions) -> tuple[dict[str, float], float]:
    """Figures on the validation images, and the threshold fitted there."""
    ap = average_precision(p.targets, p.marginals)
    threshold = fit_threshold(p.targets, p.marginals)
    figures = {
        "val_set_nll": float(p.set_nll.mean()),
        "val_mAP": 100 * mean(ap[~np.isnan(ap)]),
        "val_OF1": set_figures(p.targets, p.marginals >= threshold)["OF1"],
        "val_EM": set_figures(p.targets, p.best_sets)["EM"],
    }
    return figures, threshold


def build_optimizer(model: HybridNet, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices and filters, not on biases and BatchNorm."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)


if __name__ == "__main__":
    run_script(main, get_args_parser())
