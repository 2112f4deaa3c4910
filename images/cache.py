"""Images decoded once, into one memory-mapped file: `--cache` of train.py and evaluate.py.

    a line of JSON   format, side, number of images, digest of the image files
    N×S×S×3 uint8    each image, resized to a square
    N float32        width / height of each image

The digest covers the name, size and modification time of every file. A cache of other images, or
a truncated one, is built again. Reading a cache cannot run code.
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

from images.bad_images import join_errors
from images.decode import load_pixels
from images.shards import ShardMember
from images.transforms import Transform
from util.errors import RunError, UsageError
from util.files import make_folder, write_atomically
from util.log import counted, log, progress
from util.reading import open_file

FORMAT_VERSION = "hybridnet-images-1"


class ImageCache:
    """Decoded images by file: `cache[file]` is (pixels S×S×3 uint8, width / height).

    files: in any order; train.py gives all images of its run, for training and validation.
    skip_bad: an image that cannot be read is stored black with aspect 0, and raises UsageError
    when it is asked for. Without it, `prepare` raises.

    Call `prepare` once. Each process then maps the file when it first reads from it.
    """

    def __init__(self, path: Path, files: list[Path], side: int, skip_bad: bool = False) -> None:
        if any(isinstance(file, ShardMember) for file in files):
            raise UsageError("--cache is for image folders: leave it out if images are in shards")
        self.path, self.side, self.skip_bad = path, side, skip_bad
        self.rows = {file: row for row, file in enumerate(sorted(set(files)))}
        digest = files_digest(list(self.rows), skip_bad)
        about = {"format": FORMAT_VERSION, "side": side, "images": len(self.rows), "digest": digest}
        self.header = json.dumps(about).encode() + b"\n"
        self.pixel_bytes = len(self.rows) * side * side * 3
        self.num_bytes = len(self.header) + self.pixel_bytes + 4 * len(self.rows)

    def __getitem__(self, file: Path) -> tuple[np.ndarray, float]:
        pixels, aspects = self._mapped
        row = self.rows[file]
        if not aspects[row]:
            raise UsageError(f"{file} could not be read as an image for {self.path}")
        return pixels[row], float(aspects[row])

    def __getstate__(self) -> dict:
        """What a worker process gets: never the pixels."""
        return {k: v for k, v in vars(self).items() if k != "_mapped"}

    @cached_property
    def _mapped(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._is_ready():
            raise RunError(f"the cache {self.path} was replaced: give each run its own")
        shape, start = (len(self.rows), self.side, self.side, 3), len(self.header)
        aspects = np.fromfile(self.path, np.float32, offset=start + self.pixel_bytes)
        return np.memmap(self.path, np.uint8, "r", start, shape), aspects

    def _is_ready(self) -> bool:
        if not self.path.is_file() or self.path.stat().st_size != self.num_bytes:
            return False
        with open_file(self.path) as file:
            return file.read(len(self.header)) == self.header

    def prepare(self, num_workers: int) -> ImageCache:
        """Use the file if it holds exactly these images, else build it. Returns itself.

        Raises UsageError if the file is not a cache, an image is damaged or the disk is too full;
        RunError if writing fails.
        """
        try:
            if self._is_ready():
                log(f"using the {len(self.rows):,} decoded images of {self.path}")
                return self
            if self.path.exists():
                self._raise_if_not_a_cache()
                log(f"{self.path} holds other images or is damaged: building it again")
        except OSError as error:
            raise UsageError(f"cannot read --cache {self.path} ({error.strerror})") from None
        make_folder(self.path.parent)
        size, free = self.num_bytes / 1e9, shutil.disk_usage(self.path.parent).free / 1e9
        if size > free:
            raise UsageError(
                f"--cache {self.path} needs {size:.1f} GB and {free:.1f} GB are free: free some "
                "space, use another disk, or leave --cache out"
            )
        images = counted(len(self.rows), "image")
        log(f"decoding {images} to {self.path}, once: {size:.2g} GB")
        write_atomically(self.path, lambda temporary: self._write(temporary, num_workers))
        return self

    def _raise_if_not_a_cache(self) -> None:
        """A typing error in the command must not overwrite another file."""
        start = self.header[: self.header.index(b",")]  # the format only
        with open_file(self.path) as file:
            if file.read(len(start)) != start:
                raise UsageError(f"{self.path} is not an image cache; choose another --cache")

    def _write(self, path: Path, num_workers: int) -> None:
        squares = SquareImages(list(self.rows), self.side, self.skip_bad)
        aspects = []
        with open(path, "wb") as file:
            file.write(self.header)
            loader = DataLoader(squares, batch_size=32, num_workers=num_workers)
            for pixels, batch_aspects in progress(loader, "decoding"):
                file.write(pixels.numpy())
                aspects.append(batch_aspects.numpy().astype(np.float32))
            file.write(np.concatenate(aspects))


class SquareImages(Dataset):
    """For each image file: pixels side×side×3 uint8 and width / height."""

    def __init__(self, files: list[Path], side: int, skip_bad: bool) -> None:
        self.files, self.transform, self.skip_bad = files, Transform(side), skip_bad

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, float]]:
        """The items of a batch. Raises one UsageError for all its images that cannot be read."""
        items, errors = [], []
        for index in indices:
            try:
                items.append(self[index])
            except UsageError as error:
                errors.append(error)
                side = self.transform.side
                items.append((torch.zeros(side, side, 3, dtype=torch.uint8), 0.0))
        if errors and not self.skip_bad:
            raise join_errors(errors)
        return items

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        pixels = load_pixels(self.files[index], self.transform.side)
        aspect = pixels.shape[1] / pixels.shape[0]
        return self.transform(pixels, aspect).permute(1, 2, 0), aspect


def files_digest(files: list[Path], allow_missing: bool = False) -> str:
    """SHA-256 of every file's name, size and modification time.

    Raises UsageError for a missing file, unless `allow_missing`.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            about = os.stat(file)
            entry = [str(file), about.st_size, about.st_mtime_ns]
        except OSError:
            if not allow_missing:
                raise UsageError(f"there is no image {file}") from None
            entry = [str(file), None, None]
        total.update(json.dumps(entry).encode())
    return total.hexdigest()
