"""What the oldest supported versions of torch and scipy lack.

Each part can go when requirements.txt no longer allows the versions without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn


def cpu_capabilities() -> frozenset[str]:
    """The instruction sets of this CPU, by torch's names: amx_bf16, avx512_bf16, bf16 (ARM), ...

    Where torch does not list them (2.5), Linux does, by the same names; elsewhere none are known.
    """
    if hasattr(torch.cpu, "get_capabilities"):
        return frozenset(name for name, has in torch.cpu.get_capabilities().items() if has)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = {line.split(":")[0].strip(): line.partition(":")[2].split() for line in lines}
    return frozenset(found.get("flags") or found.get("Features") or ())


def clip_to_norm(module: nn.Module, max_norm: float) -> None:
    """Scale all gradients down to a norm of at most max_norm."""
    if not hasattr(nn.utils, "get_total_norm"):  # torch 2.5: the same, with one pass more
        nn.utils.clip_grad_norm_(module.parameters(), max_norm, foreach=True)
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if norm.is_cuda or norm > max_norm:  # comparing on a GPU would wait for all its work
        nn.utils.clip_grads_with_norm_(module.parameters(), max_norm, norm)


def random_numbers(function: Callable, seed: int) -> dict[str, np.random.Generator]:
    """The keyword argument with random numbers for a function of scipy.

    It is named rng since scipy 1.15, and random_state before.
    """
    name = "rng" if "rng" in inspect.signature(function).parameters else "random_state"
    return {name: np.random.default_rng(seed)}


def can_export() -> bool:
    """Whether torch's ONNX exporter is known to export the networks: 2.11 does, 2.5 does not."""
    return torch.__version__ >= "2.11"  # compares as versions, not as texts
