"""The device, its memory, and mixed precision (bfloat16)."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time

import torch
from torch import Tensor, nn

from util.compat import cpu_capabilities
from util.errors import UsageError
from util.log import is_launched, log


def pick_device(name: str) -> torch.device:
    """The torch device of that name, ready to use. `auto`: a GPU if there is one.

    Raises UsageError if the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    number = os.environ["LOCAL_RANK"] if is_launched() else 0  # one GPU per process
    try:
        device = torch.device(f"cuda:{number}" if name == "cuda" else name)
    except RuntimeError:
        raise UsageError(f"--device {name} is unknown: use auto, cpu, cuda or cuda:1") from None
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}); try auto") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # probabilities need full float32; the encoder is fast already, in bfloat16
        torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Make glibc keep freed memory and reuse it for the next tensors.

    A training step on a CPU allocates and frees hundreds of megabytes. The processes that load
    images inherit this setting; they do the same for each batch. By default glibc returns most of
    it to the system, which then has to clear each page before it is used again. The cost: a
    process never shrinks, and grows a little more than before, because of gaps between tensors.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_mmap_max, 0)


@functools.cache
def bf16_pays(device: torch.device) -> bool:
    """Whether training on this device is faster in bfloat16 than in float32.

    Emulated bfloat16 is 10 times slower. A GPU or CPU with bfloat16 matrix units is faster. A CPU
    with only vector instructions for it may lose the gain in conversions: there a small network is
    timed once in both precisions (half a second).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if _cpu_has("amx_bf16"):
        return True
    if not _cpu_has("avx512_bf16", "bf16"):
        return False
    gain = _bf16_gain()
    log(f"bfloat16 is {gain:.2f} times as fast as float32 on this CPU")
    return gain > 1.2  # a smaller gain is not worth the rounding errors


def _cpu_has(*capabilities: str) -> bool:
    """Whether this CPU has at least one of these, by torch's names."""
    return not cpu_capabilities().isdisjoint(capabilities)


def _bf16_gain() -> float:
    """Time of a training step on this CPU in float32 divided by its time in bfloat16."""
    # works under no_grad, and does not change the caller's random numbers
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
    return min(times[False]) / min(times[True])  # other programs can only slow a step down


def resolve_amp(amp: str, device: torch.device, flags: dict) -> str:
    """Replace `auto` by `on` or `off`.

    flags: of the run that is continued or evaluated. If it used the same type of device, its
    precision is kept: a new measurement could end differently, and then the run's precision or
    the checkpoint's predictions would change.
    """
    if amp != "auto":
        return amp
    if flags.get("device") == device.type and flags.get("amp") in ("on", "off"):
        emulated = device.type == "cpu" and not _cpu_has("amx_bf16", "avx512_bf16", "bf16")
        if flags["amp"] == "on" and emulated:
            log("note: the run is in bfloat16, which this CPU emulates slowly; --amp off is faster")
        return flags["amp"]
    return "on" if bf16_pays(device) else "off"


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """The context of `--amp auto|on|off`: bfloat16, or nothing."""
    enabled = resolve_amp(amp, device, {}) == "on"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def in_bfloat16(x: Tensor) -> bool:
    """Whether autocast computes with this tensor, which is on the CPU, in bfloat16."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return torch.get_autocast_dtype("cpu") == torch.bfloat16
