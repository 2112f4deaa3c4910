"""Several processes as one: `torchrun --nproc_per_node=N train.py …`, also over several machines.

A step's batch is dealt out to the processes, which then agree on its gradient and its BatchNorm
statistics: what is computed is what one process with the whole batch computes, up to rounding. In
evaluation whole batches are dealt out, so that not even the rounding differs.

Without torchrun everything here does nothing.
"""

from __future__ import annotations

import contextlib
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
    """Join the other processes: nccl between GPUs, gloo between CPUs."""
    if not is_launched():
        yield
        return
    # the others wait while the first draws a data set or fills a cache: torch's minutes are too few
    patience = timedelta(hours=12)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        yield
    except dist.DistError:
        raise RunError("another process of this run has ended: its reason is above") from None
    except RuntimeError as error:
        if "Connection closed by peer" not in str(error):  # gloo's have no class of their own
            raise
        raise RunError("another process of this run has ended: its reason is above") from None
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum, in place and for everybody."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_rank(flag: bool) -> bool:
    """Whether it is set for anybody, for everybody."""
    return any(all_gather(flag))


def all_gather(value: object) -> list:
    """Everybody's value, in order of rank, for everybody."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_batches(mine: list) -> list:
    """Everybody's results of the batches dealt out by EpochBatchSampler, in the data's order."""
    dealt = zip_longest(*all_gather(mine))
    return [batch for round_ in dealt for batch in round_ if batch is not None]


def rank_zero_first(work: Callable[[], T]) -> T:
    """`work` that makes files: the first process does it, then the others find them made."""
    if rank() > 0:
        dist.barrier()
    result = work()
    if rank() == 0 and dist.is_initialized():
        dist.barrier()
    return result


class _Sum(torch.autograd.Function):
    """The sum over processes; each one's part in it has the sum of everybody's gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return sum_over_processes(values.clone())

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone())


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of all processes' images together.

    torch's SyncBatchNorm does the same on GPUs, and refuses CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """B×D×h×w -> B×D×h×w; B may differ between processes, and be 0."""
        if not self.training:
            return super().forward(x)
        x32 = x.float()
        count = x.new_tensor([float(x.numel() // x.shape[1])], dtype=torch.float32)
        count = sum_over_processes(count)  # of values per channel
        mean = _Sum.apply(x32.sum((0, 2, 3))) / count
        centred = x32 - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp_min(1)
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        y = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)


def wrap_ddp(model: nn.Module) -> nn.Module:
    """`model` in DistributedDataParallel, its BatchNorms made global; unchanged if alone."""
    if not dist.is_initialized():
        return model
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm  # same parameters, same buffers, same names
    # of 1×1 filters, whose strides may be written in two ways: harmless
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    # labels may be lacking in a share of a batch, and then the LSTM has nothing to read
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
