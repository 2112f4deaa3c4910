"""Devices and mixed precision."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time

import torch

from util.errors import UsageError
from util.log import is_launched, log


def pick_device(name: str) -> torch.device:
    """The device, set up; `auto` takes a GPU if there is one.

    Raises UsageError for a device that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    number = os.environ["LOCAL_RANK"] if is_launched() else 0  # a GPU for each process
    try:
        device = torch.device(f"cuda:{number}" if name == "cuda" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}); try auto") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # probabilities are to be exact; the encoder has bf16
        torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, for the next tensors.

    A step of training on a CPU takes and frees hundreds of megabytes, and the processes that load
    images, which inherit this, do so for each batch. By default most go back to the system, which
    clears every page that is asked for anew. In exchange a process stays as large as it ever was,
    and somewhat larger: holes between what is in use are not given back either.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_mmap_max, 0)


@functools.cache
def bf16_pays(device: torch.device) -> bool:
    """Whether training is faster there in bfloat16 than in float32: known, or measured once.

    Emulated, bfloat16 is 10 times slower. A GPU or CPU with matrix units for it gains; a CPU with
    no more than vector instructions may lose what they gain in converting, so half a second goes to
    a small network in both precisions.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    can = torch.cpu.get_capabilities()
    if can.get("amx_bf16"):
        return True
    if not (can.get("avx512_bf16") or can.get("bf16")):
        return False
    gain = _bf16_gain()
    log(f"bfloat16 is {gain:.2f} times as fast as float32 on this CPU")
    return gain > 1.2  # for less it is not worth its rounding


def _bf16_gain() -> float:
    """Seconds in float32 over seconds in bfloat16 of a few training steps on the CPU."""
    import torch
    from torch import nn

    # the caller may want no gradients, and its random numbers as if nothing had been measured
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        layers = [nn.Conv2d(3, 64, 3, padding=1)]
        for _ in range(3):
            layers += [nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)]
        net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        images = torch.rand(8, 3, 28, 28).to(memory_format=torch.channels_last)
        times = {False: [], True: []}
        for _ in range(4):
            for bf16, seconds in times.items():
                started = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = net(images).float().square().mean()
                loss.backward()
                seconds.append(time.perf_counter() - started)
    return min(times[False]) / min(times[True])  # what else runs can only lengthen them


def resolve_amp(amp: str, device: torch.device, flags: dict) -> str:
    """`auto` -> `on` or `off`: as it was in the run with these flags on such a device, if any.

    A measurement may end differently the next time; a run must not change its precision, and
    what its checkpoint says of an image must not depend on the minute.
    """
    if amp != "auto":
        return amp
    if flags.get("device") == device.type and flags.get("amp") in ("on", "off"):
        return flags["amp"]
    return "on" if bf16_pays(device) else "off"


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The mixed-precision context for `--amp auto|on|off`."""
    import torch

    enabled = resolve_amp(amp, device, {}) == "on"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
