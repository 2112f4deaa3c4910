"""What changes while a run trains, and what continuing it exactly needs."""

from __future__ import annotations

import argparse
import copy
import json
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from model import HybridNet
from util.distributed import all_gather, rank, world_size, wrap_ddp
from util.errors import RunError
from util.files import write_atomically

LOOK_EVERY = 20  # steps; to look at a loss is to wait for the GPU
HINT = "continue with --amp off, or start anew with a lower --learning_rate and --output_dir"
MAX_NORM = 10.0  # of the gradient


class LossError(RunError):
    """The weights are spoilt from here on: nothing may be saved any more."""


def check_finite_and_add(training: TrainState, loader: DataLoader, output_dir: Path) -> None:
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
            f"{HINT}"
        )
    training.add_losses(values)


class TrainState:
    """Weights, their average, optimizer, schedule, and how far the run has come.

    epoch, step       epochs done, and steps done of the one under way
    sums              losses of its steps added up (3), in this process's share of the batches
    pending           (losses, indices of the images) of steps that are not in the sums yet
    is_whole          whether all of this is of one step: torch reports a dead worker at any time
    best_nll          of the best epoch so far
    validated         what the last epoch's validation found, and which epoch that was
    """

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
        self.parallel = wrap_ddp(self.model)  # computes losses
        if args.compile:  # a graph for whole batches, another for an epoch's last, smaller one
            self.model.forward_features = torch.compile(self.model.forward_features, dynamic=False)
        self.ema_decay, self.steps_per_epoch = args.ema_decay, steps_per_epoch
        pairs = list(zip(self.ema.state_dict().values(), model.state_dict().values(), strict=True))
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # counters
        self.optimizer = build_optimizer(model, args)
        total_steps = max(args.num_epochs * steps_per_epoch, 2)
        warm_up = max(0.2, 1.5 / total_steps)  # OneCycleLR divides by zero at 0.2 of 5 steps
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, args.learning_rate, total_steps=total_steps, pct_start=warm_up
        )
        self.epoch, self.step, self.steps, self.best_nll = 0, 0, 0, math.inf
        self.sums, self.pending, self.is_whole = np.zeros(3), [], True
        thresholds = {"threshold": 0.5, "label_thresholds": 0.5}
        calibration = {"temperature": 1.0, "prior_weight": 0.0}
        self.validated = {**calibration, **thresholds, "epoch": 0, "metrics": {}}

    def state_dict(self) -> dict:
        """Plain types and tensors; the averaged weights are in the checkpoint already.

        All processes have to ask for it together.
        """
        sums = [s.tolist() for s in all_gather(self.sums)]
        generators = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state()
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": [self.epoch, self.step, self.steps, self.best_nll],
            "sums": sums,
            "generators": generators,
        }

    def load(self, checkpoint: dict, changed: bool = False) -> None:
        """Go back to where `checkpoint` was written.

        changed: the flags or the data are others by now, so this run's hyperparameters hold, its
        schedule goes on from the same epoch, and an epoch under way begins again.
        """
        state = checkpoint["training"]
        self.model.load_state_dict(state["weights"])
        self.ema.load_state_dict(checkpoint["weights"])
        self.epoch, self.step, self.steps, self.best_nll = state["progress"]
        self.validated = {name: checkpoint[name] for name in self.validated}
        torch.set_rng_state(state["generators"]["cpu"])
        if "cuda" in state["generators"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["generators"]["cuda"])
        if not changed:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            sums = np.array(state["sums"])
            if len(sums) != world_size():  # as many processes as then, or the first has all
                sums = [sums.sum(0), *np.zeros((world_size() - 1, 3))]
            self.sums = np.array(sums[rank()])
            return
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.step = 0
        with warnings.catch_warnings(action="ignore"):  # that no optimizer has made these steps
            for _ in range(min(self.epoch * self.steps_per_epoch, self.scheduler.total_steps - 1)):
                self.scheduler.step()

    def update(self, loss: torch.Tensor, terms: torch.Tensor, indices: torch.Tensor) -> None:
        """One update of the weights and of their average; terms (3) are the losses to add up."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if norm.is_cuda or norm > MAX_NORM:  # to look at it on a GPU would be to wait for all work
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), MAX_NORM, norm)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self.steps += 1
        # over few steps at first, or the average would remember the random start
        self.update_ema(min(self.ema_decay, (1 + self.steps) / (10 + self.steps)))
        self.pending.append((terms, indices))
        self.is_whole = True

    def update_ema(self, decay: float) -> None:
        """Average weights and BatchNorm statistics; counters are copied."""
        get_ema_multi_avg_fn(decay)(*zip(*self.averaged, strict=True), None)
        for ema, current in self.copied:
            ema.copy_(current)

    def add_losses(self, losses: np.ndarray) -> None:
        """The pending steps' losses, N×3, one after the other: the sum is that of any grouping."""
        self.is_whole = False
        for row in losses:
            self.sums = self.sums + row
        self.pending.clear()
        self.is_whole = True

    def end_epoch(
        self, metrics: dict[str, float], threshold: float, label_thresholds: list[float]
    ) -> bool:
        """Take over what validation found; whether this epoch is the best so far."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros(3)
        self.validated = {
            "temperature": self.ema.decoder.temperature,
            "prior_weight": self.ema.decoder.prior_weight,
            "threshold": threshold,
            "label_thresholds": label_thresholds,
            "epoch": self.epoch,
            "metrics": metrics,
        }
        is_best = metrics["val_set_nll"] < self.best_nll
        self.best_nll = min(self.best_nll, metrics["val_set_nll"])
        return is_best


def build_optimizer(model: HybridNet, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices and filters, not on biases and BatchNorm."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)
