"""Image files without labels -> batches, for predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_loader import Loader
from images.transforms import Transform
from util.errors import UsageError

Batch = tuple[Tensor, list[int], list[tuple[int, UsageError]]]


class _Pictures(Dataset):
    """An item is the index of a file, and its pixels 3×S×S uint8 or why it cannot be read."""

    def __init__(self, root: Path, names: Sequence[str], transform: Transform) -> None:
        self.root, self.names, self.transform = root, names, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[int, Tensor | UsageError]:
        try:
            return index, self.transform.from_file(self.root / self.names[index])
        except UsageError as error:
            return index, error

    def collate(self, items: list[tuple[int, Tensor | UsageError]]) -> Batch:
        read = [(index, image) for index, image in items if isinstance(image, Tensor)]
        errors = [(index, image) for index, image in items if not isinstance(image, Tensor)]
        side = self.transform.side
        images = torch.stack([i for _, i in read]) if read else torch.empty(0, 3, side, side)
        return images, [index for index, _ in read], errors


def load_batches(
    root: Path, names: Sequence[str], transform: Transform, batch_size: int, num_workers: int
) -> Loader:
    """Batches of the files `names` in `root`, in this order.

    A batch is (images B×3×S×S uint8, their B indices, [(index, error)] of unreadable files); B is
    0 if no file of the batch can be read.
    """
    data = _Pictures(root, names, transform)
    return Loader(
        data,
        batch_size=batch_size,
        num_workers=num_workers if len(names) > batch_size else 0,
        collate_fn=data.collate,
    )
