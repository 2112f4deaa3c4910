"""Several processes train as one: `torchrun --nproc_per_node=N train.py …`, on one machine or more.

Each process gets a part of a step's batch. The gradients and the BatchNorm statistics are those of
the whole batch, so the result is that of a single process, up to rounding. In evaluation each
process gets whole batches, so not even the rounding differs.

Without torchrun nothing here has an effect.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.errors import RunError
from util.log import is_launched

T = TypeVar("T")


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes: nccl between GPUs, gloo between CPUs.

    Raises RunError if another process has ended.
    """
    if not is_launched():
        yield
        return
    # torch's default of minutes is too short: rank 0 may make a data set or fill a cache first
    timeout = timedelta(hours=12)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        yield
    except RuntimeError as error:  # DistError is one; gloo's errors only name its source files
        if not isinstance(error, dist.DistError) and "gloo/" not in str(error):
            raise
        raise RunError(
            "another process of this run has ended; if it gave a reason, it is above; start the "
            "same command again"
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    """The number of this process; 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def sum_over_processes(values: Tensor) -> Tensor:
    """Add up the tensor over all processes, in place in each."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether `flag` is True in any process. All processes must call this together."""
    return any(all_gather(flag))


def all_gather(value: object) -> list:
    """The values of all processes, by rank. All processes must call this together."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_batches(results: list) -> list:
    """One result per batch from all processes, in the order of the data.

    Process r of R has the batches r, r + R, r + 2R, … (EpochBatchSampler).
    """
    rounds = zip_longest(*all_gather(results))
    return [result for round_ in rounds for result in round_ if result is not None]


def rank_zero_first(work: Callable[[], T]) -> T:
    """Run `work` that makes files: on rank 0 first, then in one process of each other machine.

    The rest of the processes then find the files, on a disk of their machine or on a shared one.
    All wait until every process is done. If one fails, none goes on.
    """
    if not dist.is_initialized():
        return work()
    one_of_its_machine = os.environ.get("LOCAL_RANK", "0") == "0"
    turn = min(rank(), 1) if one_of_its_machine else 2
    for now in range(3):
        if now == turn:
            result = work()
        barrier()
    return result


class _Sum(torch.autograd.Function):
    """The sum over processes. Its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return sum_over_processes(values.clone())

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone())


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm, also BatchNorm1d, with the statistics of the whole batch, over all processes.

    torch's SyncBatchNorm does the same, but only on GPUs.
    """

    stands_in = False  # within `stand_in`

    def _check_input_dim(self, x: Tensor) -> None:
        """BatchNorm2d would refuse what BatchNorm1d takes."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w, or B×D, to the same; B may differ between processes, and be 0."""
        if not self.training:
            return super().forward(x)
        x32, num_counted = x.float(), 0 if GlobalBatchNorm.stands_in else len(x)
        per_image, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        count = x.new_tensor([num_counted * x[0:1, 0].numel()], dtype=torch.float32)
        count = sum_over_processes(count)  # of values per channel
        mean = _Sum.apply(x32[:num_counted].sum(per_image)) / count
        centred = x32 - mean.view(shape)
        variance = _Sum.apply(centred[:num_counted].square().sum(per_image)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp_min(1)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """A process without images encodes some all the same; they count in no BatchNorm."""
    GlobalBatchNorm.stands_in = True
    try:
        yield
    finally:
        GlobalBatchNorm.stands_in = False


class GlobalBatchNormAct(GlobalBatchNorm):
    """timm's BatchNormAct2d with the statistics of the whole batch; the activation follows."""

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D×h×w."""
        return self.act(self.drop(super().forward(x)))


def wrap_ddp(model: nn.Module) -> nn.Module:
    """`model` in DistributedDataParallel with global BatchNorm; one process: unchanged."""
    if not dist.is_initialized():
        return model
    kinds = nn.BatchNorm1d, nn.BatchNorm2d
    norms = [m for m in model.modules() if isinstance(m, kinds)]
    with_act = [m for m in norms if type(m).__name__ == "BatchNormAct2d"]
    if next(model.parameters()).is_cuda and not with_act:
        # would lose the activation of BatchNormAct2d
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in norms:  # same parameters, same buffers, same names
        module.__class__ = GlobalBatchNormAct if module in with_act else GlobalBatchNorm
    # harmless: the strides of a 1×1 filter can be written in two ways
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    # some of timm's networks have layers that only their classifier uses
    unused = any(type(m).__name__ == "TimmEncoder" for m in model.modules())
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused)
