"""The machine that a benchmark runs on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Threads, cores, processor, GPU (if the device is one) and the version of torch."""
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return (
        f"{torch.get_num_threads()} of {os.cpu_count()} cores, {processor_name()}{gpu}, "
        f"torch {torch.__version__}"
    )


def processor_name() -> str:
    """The CPU's name. Linux has it in a file, other systems in `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
