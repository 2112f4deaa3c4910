"""Saving while a run trains, so that it can be stopped or killed at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from inference.checkpoint import save_checkpoint
from training.resume import remove_previous, save_last
from training.signals import StopOnSignal
from training.state import TrainState
from training.validation import HINT, Validation
from util.distributed import all_gather, any_rank, barrier, rank, world_size
from util.errors import RunError
from util.files import write_whole
from util.log import progress

CHECK_EVERY = 20  # steps on a GPU: reading a loss waits for all its work


class LossError(RunError):
    """A loss is not finite: the weights are useless from here on and must not be saved."""


def checked_steps(
    state: TrainState,
    loader: DataLoader,
    label: str,
    output_dir: Path,
    between_steps: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Yield (images, targets, indices, size of the batch over all processes) for an epoch's steps.

    After each step, on a GPU after every CHECK_EVERY, checks the losses and calls `between_steps`.
    Raises LossError.
    """
    check_every = 1 if state.device.type == "cpu" else CHECK_EVERY
    batches = zip(progress(loader, label), loader.batch_sampler.batch_sizes(), strict=True)
    for (images, targets, indices), batch_size in batches:
        state.is_whole = False  # the forward pass moves BatchNorm's statistics
        yield images, targets, indices, batch_size
        if len(state.pending) == check_every:
            check_finite_and_add(state, loader, output_dir)
            between_steps()
    check_finite_and_add(state, loader, output_dir)


def check_finite_and_add(state: TrainState, loader: DataLoader, output_dir: Path) -> None:
    """Add the losses of the pending steps to the epoch's sums. Waits for the GPU.

    Raises LossError at the first loss that is not finite, with the names of its images in
    nonfinite_batch.json.
    """
    if not state.pending:
        return
    losses, indices = zip(*state.pending, strict=True)
    values = torch.stack(losses).double().cpu().numpy()  # steps×3
    if bad := np.flatnonzero(~np.isfinite(values).all(1)).tolist():
        step = state.steps - len(values) + bad[0] + 1
        path = output_dir / "nonfinite_batch.json"
        batch = {
            "epoch": state.epoch + 1,
            "step": step,
            "losses": [str(x) for x in values[bad[0]]],
            "images": [str(loader.dataset.paths[i]) for i in indices[bad[0]].tolist()],
        }
        write_whole(path, json.dumps(batch, indent=1))
        raise LossError(
            f"the loss is {values[bad[0], 0]} at step {step}, on the images listed in {path}; "
            f"{HINT}"
        )
    state.add_losses(values)


class Saver:
    """Writes last.pt and best.pt, and ends the run when a signal asks for it.

    Use it as a context manager around the epochs: within it, SIGTERM and Ctrl-C only ask for a
    stop, and an error in the middle of an epoch (an image is gone, a worker was killed) saves the
    steps done so far. Not under torchrun: the processes would have to do so together.

    about: what every checkpoint of the run holds besides weights and validation results.
    write_records: called once, after the first save.
    """

    def __init__(
        self,
        state: TrainState,
        about: dict,
        output_dir: Path,
        save_minutes: float,
        write_records: Callable[[], None],
    ) -> None:
        self.write_records, self.has_saved, self.is_saving = write_records, False, False
        self.state, self.about, self.output_dir = state, about, output_dir
        self.stop, self.save_seconds = StopOnSignal(), 60 * save_minutes
        self.saved_at, self.saved_steps = time.monotonic(), state.steps

    def __enter__(self) -> Saver:
        self.stop.__enter__()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            in_epoch = self.state.is_whole and self.state.step
            usable = isinstance(error, Exception) and not isinstance(error, LossError)
            is_new = self.state.steps > self.saved_steps and not self.is_saving  # a save failed
            if usable and in_epoch and is_new and world_size() == 1:
                check_finite_and_add(self.state, self.loader, self.output_dir)
                self.save()
        finally:
            self.stop.__exit__(kind, error, trace)

    def steps(self, loader: DataLoader, label: str) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
        """The batches that are left of this epoch, see `checked_steps`; saves when it is time."""
        self.loader, batches = loader, loader.batch_sampler
        batches.epoch, batches.first = self.state.epoch + 1, self.state.step
        self.num_items, self.started = sum(batches.batch_sizes()), time.perf_counter()
        return checked_steps(self.state, loader, label, self.output_dir, self.between_steps)

    def between_steps(self) -> None:
        """Save if it is time; if a stop was asked for, save and raise its RunError."""
        stop = self.stop.is_requested()
        if stop or any_rank(time.monotonic() - self.saved_at > self.save_seconds):
            self.save()
        if stop:
            raise self.stop.error()

    def end_steps(self) -> dict[str, float]:
        """Save; the epoch's mean losses in nats per image, and images per second."""
        seconds = self.seconds()
        num_items = self.loader.batch_sampler.num_items
        means = np.sum(all_gather(self.state.sums), axis=0) / num_items
        names = ("train_loss", "train_set_nll", "train_cnn_bce")
        self.save()
        losses = dict(zip(names, means.tolist(), strict=True))
        return {**losses, "images_per_second": self.num_items / seconds}

    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self.started

    def end_epoch(self, found: Validation) -> bool:
        """Count the epoch and, if it is the best so far, write best.pt; returns whether it is."""
        fitted = found.threshold, found.label_thresholds, found.promises
        is_best = self.state.end_epoch(found.metrics, *fitted)
        if is_best:
            self.save_best()
        return is_best

    def checkpoint(self) -> dict:
        """What evaluate.py and sample.py need."""
        return {**self.about, **self.state.validated, "weights": self.state.ema.state_dict()}

    def save_best(self) -> None:
        """Write best.pt."""
        if rank() == 0:
            save_checkpoint(self.checkpoint(), self.output_dir / "best.pt")

    def save(self) -> None:
        """Write last.pt; under torchrun all processes call it at the same step.

        All return once it is written: torchrun ends the others soon after the first one ends.
        """
        self.is_saving = True
        state = self.state.state_dict()
        if rank() == 0:
            save_last({**self.checkpoint(), "training": state}, self.output_dir)
            if not self.has_saved:
                self.write_records()
            self.has_saved = True
        barrier()
        self.saved_at, self.saved_steps = time.monotonic(), self.state.steps
        self.is_saving = False

    def finish(self) -> None:
        """Keep one checkpoint to continue from: the run has all its epochs."""
        if rank() == 0:
            remove_previous(self.output_dir)
