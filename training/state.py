"""What changes while a run trains, and what an exact resume needs."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model import HybridNet
from util.distributed import all_gather, rank, world_size, wrap_ddp


class TrainState:
    """Weights, their moving average, optimizer, schedule, and how far the run has come.

    model, ddp_model  the network; the same in DistributedDataParallel under torchrun: it computes
                      the losses
    ema               the network with averaged weights: what is validated and saved
    epoch, step       epochs done, and steps done of the current one
    steps             steps done in all epochs
    start             each encoder parameter -> its value before the first step, if --start_decay
    sums              summed losses of this epoch's steps (3), for this process's share of batches
    pending           (losses, image indices) of steps that are not in `sums` yet
    is_whole          False while a step is half applied; saving then would mix two steps
    best_nll          validation set NLL of the best epoch so far
    validated         calibration, thresholds and metrics of the last validation, and its epoch
    """

    def __init__(
        self,
        model: HybridNet,
        device: torch.device,
        steps_per_epoch: int,
        num_epochs: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        ema_decay: float = 0.998,
        compiled: bool = False,
        layer_decay: float = 1.0,
        start_decay: float = 0.0,
    ) -> None:
        # copied before a GPU packs the LSTM's weights
        self.ema = copy.deepcopy(model).requires_grad_(False).to(device)
        self.model, self.device = model.to(device), device
        self.ddp_model = wrap_ddp(model)
        if compiled:  # one graph for full batches, another for the smaller last batch
            model.forward_features = torch.compile(model.forward_features, dynamic=False)
        self.ema_decay, self.steps_per_epoch = ema_decay, steps_per_epoch
        pairs = list(zip(self.ema.state_dict().values(), model.state_dict().values(), strict=True))
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]  # counters
        self.optimizer = build_optimizer(model, learning_rate, weight_decay, layer_decay)
        kept = model.encoder.parameters() if start_decay else ()
        self.start = {p: p.detach().clone() for p in kept if p.requires_grad}
        self.start_decay = start_decay
        total_steps = max(num_epochs * steps_per_epoch, 2)
        warm_up = max(0.2, 1.5 / total_steps)  # OneCycleLR divides by zero at 0.2 of 5 steps
        peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, peaks, total_steps=total_steps, pct_start=warm_up
        )
        self.epoch, self.step, self.steps, self.best_nll = 0, 0, 0, math.inf
        self.sums, self.pending, self.is_whole = np.zeros(3), [], True
        thresholds = {"threshold": 0.5, "label_thresholds": 0.5}
        calibration = {"temperature": 1.0, "prior_weight": 0.0}
        unknown = {"promises": None, "epoch": 0, "metrics": {}}
        self.validated = {**calibration, **thresholds, **unknown}

    @torch.no_grad()
    def decay_to_start(self) -> None:
        """Move the encoder towards its first weights, as weight decay moves weights towards 0.

        L2-SP (Li et al., ICML 2018), decoupled from the gradient as in AdamW: rare labels need
        what the first weights know, and a run is too short to learn it from few images.
        """
        for group in self.optimizer.param_groups if self.start else ():
            for parameter in group["params"]:
                if parameter in self.start:
                    share = min(1.0, group["lr"] * self.start_decay)
                    parameter.lerp_(self.start[parameter], share)

    def update_ema(self) -> None:
        """Average weights and BatchNorm statistics; copy counters.

        Not torch's AveragedModel: it would average the counters too, and its decay is constant.
        """
        # over few steps at first, or the average would remember the random start
        step = self.steps + 1
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(*zip(*self.averaged, strict=True), None)
        for ema, current in self.copied:
            ema.copy_(current)

    def end_step(self, losses: Tensor, indices: Tensor) -> None:
        """Count a step. losses (3) of its images, summed; indices of its images."""
        self.step += 1
        self.steps += 1
        self.pending.append((losses, indices))
        self.is_whole = True

    def add_losses(self, losses: np.ndarray) -> None:
        """Add the pending losses, N×3, to the sums; one by one, so that no grouping matters."""
        self.is_whole = False
        for row in losses:
            self.sums = self.sums + row
        self.pending.clear()
        self.is_whole = True

    def end_epoch(
        self,
        metrics: dict[str, float],
        threshold: float,
        label_thresholds: list[float],
        promises: dict | None = None,
    ) -> bool:
        """Take over the results of validation; returns whether this epoch is the best so far."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, np.zeros(3)
        self.validated = {
            "temperature": self.ema.decoder.temperature,
            "prior_weight": self.ema.decoder.prior_weight,
            "threshold": threshold,
            "label_thresholds": label_thresholds,
            "promises": promises,
            "epoch": self.epoch,
            "metrics": metrics,
        }
        is_best = metrics["val_set_nll"] < self.best_nll
        self.best_nll = min(self.best_nll, metrics["val_set_nll"])
        return is_best

    def state_dict(self) -> dict:
        """Plain types and tensors, without the averaged weights, which every checkpoint has.

        Under torchrun all processes have to call it together.
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
            "start": list(self.start.values()),
            "sums": sums,
            "generators": generators,
        }

    def load(self, checkpoint: dict, changed: bool = False) -> None:
        """Go back to where `checkpoint` was written.

        changed: flags or data differ from the checkpoint's. Then this command's hyperparameters
        hold, its schedule continues from the same epoch, and an unfinished epoch starts again.
        """
        state = checkpoint["training"]
        self.model.load_state_dict(state["weights"])
        self.ema.load_state_dict(checkpoint["weights"])
        for ours, saved in zip(self.start.values(), state.get("start", ()), strict=True):
            ours.copy_(saved.view(ours.shape))  # the shape: copy_ alone would repeat a number
        self.epoch, self.step, self.steps, self.best_nll = state["progress"]
        self.validated = {name: checkpoint.get(name) for name in self.validated}
        torch.set_rng_state(state["generators"]["cpu"])
        if "cuda" in state["generators"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["generators"]["cuda"])
        if changed:
            self._continue_changed(state)
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        sums = np.array(state["sums"])
        if len(sums) != world_size():  # another number of processes: the first takes all
            sums = [sums.sum(0), *np.zeros((world_size() - 1, 3))]
        self.sums = np.array(sums[rank()])

    def _continue_changed(self, state: dict) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.step = 0
        with warnings.catch_warnings():  # the optimizer has not made these steps
            warnings.simplefilter("ignore")
            for _ in range(min(self.epoch * self.steps_per_epoch, self.scheduler.total_steps - 1)):
                self.scheduler.step()


def build_optimizer(
    model: HybridNet, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices and filters, not on biases and BatchNorm.

    layer_decay: the learning rate of a layer of the encoder is this times that of the next layer;
    what follows the encoder has `learning_rate` (Clark et al., ELECTRA, ICLR 2020).
    """
    depth = {}  # parameter -> how many layers are between it and the encoder's end, from 1
    if layer_decay != 1:
        for back, layer in enumerate(reversed(model.encoder.layers()), start=1):
            depth |= dict.fromkeys(layer, back)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = depth.get(parameter, 0), parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": learning_rate * layer_decay**back,
                "weight_decay": weight_decay if is_matrix else 0.0,
            }
            for (back, is_matrix), parameters in ordered
        ],
        lr=learning_rate,
        fused=True,
    )
