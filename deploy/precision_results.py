"""What a smaller encoder.onnx costs: mAP, set NLL, size and speed beside float32.

Every batch of images goes through each encoder in turn, so that all have the same images and the
same machine, also if it is busy. The decoder is PyTorch's, with which decoder_step.onnx agrees.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deploy.onnx_export import open_session
from evaluation.metrics import SCORE_METRICS, SET_NLL
from inference.decoding import sample_label_sets
from inference.predictions import check_finite, set_nll
from model import Decoder, Encoding, HybridNet
from util.errors import RunError, UsageError
from util.log import counted

if TYPE_CHECKING:
    import onnxruntime

NUM_SAMPLES = 128  # label sets for each image, as evaluate.py samples
MOST_LOSS = 0.5  # points of mAP
MEAN_AP = SCORE_METRICS["mAP"]


@dataclass(frozen=True)
class Measured:
    """One precision's results. set_nll: nats per image; speed: images per second."""

    name: str
    mean_ap: float  # percent
    set_nll: float
    num_bytes: int  # of all ONNX files
    speed: float  # of the encoder alone: the median over batches


@dataclass(frozen=True)
class Comparison:
    """Two precisions on the same images: float32, and the smaller one."""

    before: Measured
    after: Measured
    images: str  # which, in words
    speed_of: str  # what the speeds were measured on, in words

    def as_text(self) -> str:
        """A table with a row for each precision, and what it was measured on."""
        lines = [f"{'precision':<10} {'mAP':>6} {'set NLL':>8} {'size, MB':>9} {'images/s':>9}"]
        for r in (self.before, self.after):
            digits = f"{r.mean_ap:6.{MEAN_AP.digits}f} {r.set_nll:8.{SET_NLL.digits}f}"
            lines.append(f"{r.name:<10} {digits} {r.num_bytes / 1e6:9.1f} {r.speed:9.1f}")
        return "\n".join([*lines, f"on {self.images}; images/s: {self.speed_of}"])

    def check_loss(self) -> None:
        """Raise RunError if mAP falls by more than MOST_LOSS points, or is not defined."""
        before, after = self.before, self.after
        if before.mean_ap - after.mean_ap <= MOST_LOSS:
            return
        raise RunError(
            f"{after.name} lowers mAP from {before.mean_ap:.2f} to {after.mean_ap:.2f}, more than "
            f"{MOST_LOSS} points (set NLL {before.set_nll:.3f} to {after.set_nll:.3f}, size "
            f"{before.num_bytes / 1e6:.1f} to {after.num_bytes / 1e6:.1f} MB), so nothing was "
            "written: add --accept_loss to export it, or export float32"
        )


class _Decoding:
    """The parts of a HybridNet that decoding needs."""

    def __init__(self, model: HybridNet) -> None:
        # encoder.onnx of decoder `none` gives calibrated logits: nothing is left to do
        num_labels = len(model.decoder.prior)
        self.decoder = model.decoder if model.decoder.reads_labels else Decoder(num_labels)

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        return self.decoder.set_logits(encoding, targets)


@dataclass
class _Runner:
    """An encoder and what was found with it so far."""

    session: onnxruntime.InferenceSession
    scores: list[np.ndarray] = field(default_factory=list)
    nats: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # per image, of each batch

    def encode(self, images: np.ndarray) -> Encoding:
        """Images B×3×S×S uint8 -> Encoding without class maps; notes the time."""
        started = time.perf_counter()
        logits, *embedding = self.session.run(None, {"images": images})
        self.seconds.append((time.perf_counter() - started) / len(images))
        embedding = embedding or [np.empty((len(images), 0), np.float32)]
        return Encoding(torch.from_numpy(embedding[0]), torch.from_numpy(logits), [])

    def decode(self, model: _Decoding, encoding: Encoding, targets: Tensor) -> None:
        """Keep scores and set NLL of a batch; targets B×C are 1, 0 or NaN: unknown."""
        nats = set_nll(model, encoding, targets, targets.isnan(), NUM_SAMPLES)
        scores = sample_label_sets(model, encoding, NUM_SAMPLES).marginals
        check_finite(scores, nats)
        self.scores.append(scores.numpy())
        self.nats.append(nats.numpy())


@torch.no_grad()
def measure(
    model: HybridNet,
    exports: Mapping[str, Mapping[str, bytes]],
    batches: Iterable,
    source: str,
    batch_size: int,
) -> Comparison:
    """Run two exports on the same images, which are those of `batches`.

    exports: for float32 and the smaller precision, the files by name as `to_onnx` returns them.
    batches: (images B×3×S×S uint8, targets B×C, indices), with B of batch_size, the last one
    smaller. source: where the images are from, in words. Raises UsageError if no image can be
    read or a result is not finite.
    """
    runners = {name: _Runner(open_session(files["encoder"])) for name, files in exports.items()}
    decoding, truths = _Decoding(model), []
    for images, targets, _ in batches:
        if not len(images):  # none of the batch could be read
            continue
        pixels = np.ascontiguousarray(images.numpy())
        if not truths:  # the first run of a session takes its memory
            for runner in runners.values():
                runner.session.run(None, {"images": pixels})
        # in turn: neither always comes first
        order = list(runners.values())[:: 1 if len(truths) % 2 else -1]
        for runner, encoding in [(each, each.encode(pixels)) for each in order]:
            runner.decode(decoding, encoding, targets)
        truths.append(targets.numpy())
    if not truths:
        raise UsageError("none of the images can be read")
    truth = np.concatenate(truths)
    known = ~np.isnan(truth) if np.isnan(truth).any() else None
    results = [
        Measured(
            name,
            MEAN_AP.compute(truth == 1, np.concatenate(runner.scores), known=known),
            float(np.concatenate(runner.nats).mean()),
            sum(map(len, exports[name].values())),
            1 / median(runner.seconds),
        )
        for name, runner in runners.items()
    ]
    threads = counted(torch.get_num_threads(), "thread")
    speed_of = f"the encoder alone, {batch_size} images at once, {threads}"
    return Comparison(*results, f"{counted(len(truth), 'image')} of {source}", speed_of)
