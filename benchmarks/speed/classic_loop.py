"""The classic tutorial loop: it trains the same model on the same files, as tutorials do it.

PIL, Resize, RandomCrop and ToTensor to float32; a contiguous float32 network; an LSTM over
sequences that are padded to the longest of the batch, with every padded step scored; Adam; and
loss.item() in each step. check_classic_loss makes sure that both loops minimise the same loss.
"""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from loops import OurLoop
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from model import Encoding, HybridNet, bernoulli_nll


class ClassicImages(Dataset):
    """Files -> normalised float32 tensors, as tutorials read them."""

    def __init__(self, images: Path, targets: Tensor, size: int) -> None:
        self.images, self.targets = images, targets
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.images / f"{index}.jpg").convert("RGB")
        return self.transform(image), self.targets[index]


class ClassicProcess:
    """Each call is an epoch of the classic loop, on a copy of our model.

    It runs in a process of its own: nothing in this project sets up its memory or devices.
    """

    def __init__(self, ours: OurLoop, images: Path) -> None:
        targets = ours.loader.dataset.targets
        check_classic_loss(ours.state.model, targets[: ours.batch_size].to(ours.device))
        model = copy.deepcopy(ours.state.model).cpu()
        data = ClassicImages(images, targets, ours.size)
        self.executor = ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=begin_classic,
            initargs=(model, data, ours.batch_size, ours.args.num_workers, ours.device),
        )

    def __call__(self) -> None:
        self.executor.submit(classic_epoch).result()

    def close(self) -> None:
        """End the process and its loader's processes: they would slow down the next row."""
        self.executor.shutdown()


def begin_classic(*arguments: object) -> None:
    """Build the loop in the new process; a global keeps it for all epochs."""
    global loop
    torch.backends.cudnn.allow_tf32 = False  # full float32
    loop = ClassicLoop(*arguments)


def classic_epoch() -> None:
    """An epoch in the new process."""
    loop()


class ClassicLoop:
    """The loop itself."""

    def __init__(
        self,
        model: HybridNet,
        data: ClassicImages,
        batch_size: int,
        workers: int,
        device: torch.device,
    ) -> None:
        self.model, self.device = model.train().to(device), device
        self.model.to(memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = DataLoader(
            data,
            batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def __call__(self) -> None:
        total = 0.0
        for images, targets in self.loader:
            images, targets = images.to(self.device), targets.to(self.device)
            loss = classic_loss(self.model, self.model.forward_features(images), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item()


def classic_loss(model: HybridNet, stages: list[Tensor], targets: Tensor) -> Tensor:
    """The mean of HybridNet's two losses, computed from padded sequences."""
    cnn_logits = 0  # B×C
    for features, classifier in zip(
        stages[::-1], [model.classifier, *model.stage_heads], strict=True
    ):
        weight = classifier.weight.flatten(1)[..., None, None]
        maps = F.conv2d(features, weight, classifier.bias)  # B×C×h×w
        cnn_logits = cnn_logits + (maps.mean((2, 3)) + maps.flatten(2).max(2).values) / 2
    pooled = torch.cat([features.mean((2, 3)) for features in stages[::-1]], dim=1)
    embedding = model.decoder.embed_image(pooled)  # B×E
    labels = pad_sequence([row.nonzero().squeeze(1) for row in targets], batch_first=True)  # B×W
    outputs, _ = model.decoder.lstm(model.decoder.label_embedding[labels])
    hidden = F.pad(outputs, (0, 0, 1, 0))  # B×(W+1)×H
    z = model.decoder.logits(hidden, embedding[:, None], cnn_logits[:, None])  # B×(W+1)×C
    step = (targets.cumsum(1) - targets).long()
    z = z.gather(1, step[:, None]).squeeze(1)  # B×C
    return (bernoulli_nll(z, targets) + bernoulli_nll(cnn_logits, targets)).mean()


def check_classic_loss(model: HybridNet, targets: Tensor) -> None:
    """Raise AssertionError unless both loops minimise the same loss."""
    widths = [classifier.in_features for classifier in model.stage_heads[::-1]]
    widths.append(model.classifier.in_channels)
    stages = [torch.randn(len(targets), w, 2, 2, device=targets.device) for w in widths]
    encoding: Encoding = model.encode_features(stages)
    ours = bernoulli_nll(model.set_logits(encoding, targets), targets)
    ours = (ours + bernoulli_nll(encoding.cnn_logits, targets)).mean()
    torch.testing.assert_close(ours, classic_loss(model, stages, targets))
