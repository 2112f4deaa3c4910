"""Pictures that clients send -> the network's input, in threads."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from images.decode import read_header
from images.transforms import Transform
from util.errors import UsageError

THREADS = 2  # simplejpeg and Pillow let others work meanwhile
LARGE = 1 << 25  # pixels: only one such picture is decoded at a time, because it can take 2 GB


class Upload(NamedTuple):
    """The bytes of a picture. It has `open`, as a Path has."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str = "rb") -> BinaryIO:
        """The bytes as a file."""
        return io.BytesIO(self.data)


class Decoders:
    """Threads that decode pictures."""

    def __init__(self, transform: Transform) -> None:
        self._transform, self._large = transform, threading.Lock()
        # resizing gains nothing from more threads, and takes them from the network
        self._pool = ThreadPoolExecutor(THREADS, "decode", torch.set_num_threads, (1,))

    async def run(self, function: Callable, *values: object) -> object:
        """What a function returns that one of the threads calls."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *values)

    def decode(self, name: str, file: BinaryIO) -> Tensor:
        """A picture as 3×S×S uint8. Raises UsageError as `load_pixels` does."""
        upload = Upload(name, file.read())
        if not upload.data:
            raise UsageError(f"{name} is empty")
        _, (width, height) = read_header(upload)
        if width * height < LARGE:
            return self._transform.from_file(upload)
        with self._large:
            return self._transform.from_file(upload)

    def stop(self) -> None:
        """Finish, then end the threads."""
        self._pool.shutdown()
