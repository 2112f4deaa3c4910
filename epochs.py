"""An epoch of training, and what validation finds after it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from decoding import Predictions, decode, encode_batches
from distributed import gather, gather_batches, world_size
from metrics import (
    average_precision,
    fit_calibration,
    fit_label_thresholds,
    fit_threshold,
    mean,
    set_figures,
)
from model import Encoding, HybridNet
from training_state import Training
from utils import RunError, UsageError, progress, write_atomically

LOOK_EVERY = 20  # steps; to look at a loss is to wait for the GPU
REMEDY = "continue with --amp off, or start anew with a lower --learning_rate and --output_dir"


class LossError(RunError):
    """The weights are spoilt from here on: nothing may be saved any more."""


def train_epoch(
    training: Training,
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
    batches = zip(progress(loader, label), loader.batch_sampler.sizes(), strict=True)
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
            look_at(training, loader, args.output_dir)
            between_steps()
    look_at(training, loader, args.output_dir)
    total = np.sum(gather(training.sums), axis=0) / loader.batch_sampler.num_items
    return dict(zip(("train_loss", "train_set_nll", "train_cnn_bce"), total.tolist(), strict=True))


def look_at(training: Training, loader: DataLoader, output_dir: Path) -> None:
    """Add up the losses of the steps that nobody has looked at yet. Waits for the GPU.

    Raises LossError at the first step whose loss is not finite, with the names of its images in
    nonfinite_batch.json.
    """
    if not training.pending:
        return
    terms, indices = zip(*training.pending, strict=True)
    values = torch.stack(terms).double().cpu().numpy()  # steps×3
    if bad := np.flatnonzero(~np.isfinite(values).all(1)).tolist():
        step = training.steps - len(values) + bad[0] + 1
        path = output_dir / "nonfinite_batch.json"
        batch = {
            "epoch": training.epoch + 1,
            "step": step,
            "losses": [str(x) for x in values[bad[0]]],
            "images": [str(loader.dataset.paths[i]) for i in indices[bad[0]].tolist()],
        }
        write_atomically(path, lambda t: t.write_text(json.dumps(batch, indent=1), "utf-8"))
        raise LossError(
            f"the loss is {values[bad[0], 0]} at step {step}, on the images listed in {path}; "
            f"{REMEDY}"
        )
    training.add_losses(values)


def calibrate(
    model: HybridNet, batches: Iterable, amp: torch.autocast
) -> list[tuple[Encoding, Tensor, Tensor]]:
    """Encode this process's share of the validation images and fit the calibration to all of them.

    Returns what `predict` takes: of each batch encoding (without class maps), targets and indices.
    Raises UsageError if no image can be read.
    """
    decoder = model.decoder
    decoder.temperature, decoder.prior_weight = 1.0, 0.0
    encoded, log_odds = [], []
    for encoding, targets, indices in encode_batches(model, batches, amp):
        encoded.append((replace(encoding, class_maps=[]), targets, indices))
        z = model.set_log_odds(encoding, targets)
        log_odds.append((targets.cpu().numpy(), z.detach().cpu().numpy()))
    log_odds = gather_batches(log_odds)
    if not log_odds:
        raise UsageError("none of the validation images can be read")
    found = map(np.concatenate, zip(*log_odds, strict=True))
    decoder.temperature, decoder.prior_weight = fit_calibration(*found, decoder.prior.cpu().numpy())
    return encoded


def predict(
    model: HybridNet, encoded: Iterable[tuple[Encoding, Tensor, Tensor]], num_samples: int = 32
) -> tuple[Predictions, list[int]]:
    """Everybody's share of encoded images decoded, together and in order; which they are.

    num_samples: label sets drawn for the marginals of each image.
    """
    found = gather_batches(
        [(decode(model, e, targets, num_samples), i) for e, targets, i in encoded]
    )
    rows = torch.cat([indices for _, indices in found]).tolist()
    return Predictions.join(p for p, _ in found), rows


def measure(p: Predictions) -> tuple[dict[str, float], float, list[float]]:
    """Figures on the validation images; the threshold and the labels' own ones, fitted there."""
    ap = average_precision(p.targets, p.marginals)
    threshold = fit_threshold(p.targets, p.marginals)
    figures = {
        "val_set_nll": float(p.set_nll.mean()),
        "val_mAP": 100 * mean(ap[~np.isnan(ap)]),
        "val_OF1": set_figures(p.targets, p.marginals >= threshold)["OF1"],
        "val_EM": set_figures(p.targets, p.best_sets)["EM"],
    }
    return figures, threshold, fit_label_thresholds(p.marginals).tolist()
