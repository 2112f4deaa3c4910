"""Pictures decoded once: one memory-mapped file of small pixels, for train.py and evaluate.py.

    a line of JSON   format, side, number of images, digest of which files they are
    N×S×S×3 uint8    each picture whole, squeezed to a square
    N float32        width / height of each picture

The digest is of every file's name, size and time of change. A file that is of other images, or
not whole, is built anew; nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from images.bad_images import raise_if_any
from images.decode import load_pixels
from images.shards import ShardMember
from images.transforms import Transform
from util.errors import RunError, UsageError
from util.files import make_folder, write_atomically
from util.log import log, progress

FORMAT_VERSION = "hybridnet-images-1"


class ImageCache:
    """Decoded pictures by file; `cache[file]` is S×S×3 uint8 pixels and width / height.

    Give it any number of files in any order: train.py gives all of its run's, for training and
    validation. `prepare` it once; then each process maps the file by itself when it first looks.
    skip_bad: images that cannot be read get a black row of aspect 0, and raise UsageError when
    they are asked for; else `prepare` does.
    """

    def __init__(self, path: Path, files: list[Path], side: int, skip_bad: bool = False) -> None:
        if any(isinstance(file, ShardMember) for file in files):
            raise UsageError("--cache is for image folders: leave it out, or name no shards")
        self.path, self.side, self.skip_bad = path, side, skip_bad
        self.rows = {file: row for row, file in enumerate(sorted(set(files)))}
        about = {"format": FORMAT_VERSION, "side": side, "images": len(self.rows)}
        self.header = (
            json.dumps({**about, "digest": files_digest(list(self.rows), skip_bad)}).encode()
            + b"\n"
        )
        self.pixel_bytes = len(self.rows) * side * side * 3
        self.num_bytes = len(self.header) + self.pixel_bytes + 4 * len(self.rows)

    def __getitem__(self, file: Path) -> tuple[np.ndarray, float]:
        pixels, aspects = self._mapped
        row = self.rows[file]
        if not aspects[row]:
            raise UsageError(f"{file} could not be read as an image for {self.path}")
        return pixels[row], float(aspects[row])

    def __getstate__(self) -> dict:
        """What goes to a worker process: never the pixels."""
        return {k: v for k, v in vars(self).items() if k != "_mapped"}

    @cached_property
    def _mapped(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._is_ready():
            raise RunError(f"the cache {self.path} was replaced while in use; one run, one cache")
        shape, start = (len(self.rows), self.side, self.side, 3), len(self.header)
        aspects = np.fromfile(self.path, np.float32, offset=start + self.pixel_bytes)
        return np.memmap(self.path, np.uint8, "r", start, shape), aspects

    def _is_ready(self) -> bool:
        if not self.path.is_file() or self.path.stat().st_size != self.num_bytes:
            return False
        with open(self.path, "rb") as file:
            return file.read(len(self.header)) == self.header

    def prepare(self, num_workers: int) -> ImageCache:
        """Use the file if it is of these very images, else build it; returns itself.

        Raises UsageError if the file is no cache, a picture is damaged or the disk has no room,
        RunError if writing fails.
        """
        try:
            if self._is_ready():
                log(f"using the {len(self.rows):,} decoded images of {self.path}")
                return self
            if self.path.exists():
                self._refuse_another_kind()
                log(f"{self.path} is of other images, or damaged: building it anew")
        except OSError as error:
            raise UsageError(f"cannot read --cache {self.path} ({error.strerror})") from None
        make_folder(self.path.parent)
        size, free = self.num_bytes / 1e9, shutil.disk_usage(self.path.parent).free / 1e9
        if size > free:
            raise UsageError(
                f"--cache {self.path} needs {size:.1f} GB and {free:.1f} GB are free: make room, "
                "name another disk, or do without"
            )
        log(f"decoding {len(self.rows):,} images to {self.path}, once: {size:.2g} GB")
        write_atomically(self.path, lambda temporary: self._write(temporary, num_workers))
        return self

    def _refuse_another_kind(self) -> None:
        """A slip in the command must not cost a file that is no cache."""
        start = self.header[: self.header.index(b",")]  # only the format, whatever the images
        with open(self.path, "rb") as file:
            if file.read(len(start)) != start:
                raise UsageError(f"{self.path} is not an image cache; choose another --cache")

    def _write(self, path: Path, num_workers: int) -> None:
        squeezed = SqueezedImages(list(self.rows), self.side, self.skip_bad)
        aspects = []
        with open(path, "wb") as file:
            file.write(self.header)
            for pixels, some in progress(
                DataLoader(squeezed, batch_size=32, num_workers=num_workers), "decoding"
            ):
                file.write(pixels.numpy())
                aspects.append(some.numpy().astype(np.float32))
            file.write(np.concatenate(aspects))


class SqueezedImages(Dataset):
    """Picture files one by one: pixels side×side×3 uint8, and width / height."""

    def __init__(self, files: list[Path], side: int, skip_bad: bool) -> None:
        self.files, self.view, self.skip_bad = files, Transform(side), skip_bad

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, float]]:
        """A batch's items. Raises one UsageError for all of its images that cannot be read."""
        items, errors = [], []
        for index in indices:
            try:
                items.append(self[index])
            except UsageError as error:
                errors.append(error)
                items.append((torch.zeros(self.view.side, self.view.side, 3).byte(), 0.0))
        if not self.skip_bad:
            raise_if_any(errors)
        return items

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        pixels = load_pixels(self.files[index], self.view.side)
        aspect = pixels.shape[1] / pixels.shape[0]
        return self.view(pixels, aspect).permute(1, 2, 0), aspect


def files_digest(files: list[Path], may_lack: bool = False) -> str:
    """Changes with every file's name, size and time of change.

    Raises UsageError for a missing file, unless `may_lack`.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            about = os.stat(file)
            entry = [str(file), about.st_size, about.st_mtime_ns]
        except OSError:
            if not may_lack:
                raise UsageError(f"there is no image {file}") from None
            entry = [str(file), None, None]
        total.update(json.dumps(entry).encode())
    return total.hexdigest()
