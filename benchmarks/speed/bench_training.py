"""Training against the classic tutorial loop and against torchvision's encoder alone; the decoder.

The classic loop trains the very same model on the same files with as many loader processes, the
way tutorials do it: PIL, Resize, RandomCrop and ToTensor to float32, a contiguous float32 network,
an LSTM over sequences padded to the batch's longest with every padded step scored, Adam, and
loss.item() in each step. A test of the benchmark itself: its loss on a batch is checked to be ours.
"""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from material import label_sets, plain_encoder, wait, write_photos
from PIL import Image
from timing import Ratio, side_by_side
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from model import Encoding, HybridNet, bernoulli_nll
from train import get_args_parser, load_data, resolve_paths, train_one_epoch
from training.saver import checked_steps
from training.state import TrainState
from util.device import autocast, pick_device

SIZE, BATCH_SIZE, STEPS = 224, 32, 6
DECODER_BATCH = 256


def measure() -> Iterator[Ratio]:
    """Rows of images per second, and of the decoder's time."""
    targets = label_sets()
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]
    yield decoder_row(targets)
    yield from label_rows()
    with tempfile.TemporaryDirectory() as folder:
        files = write_photos(Path(folder), targets[: STEPS * BATCH_SIZE])
        for arch in ("resnet18", "resnet50"):
            ours = OurLoop(arch, "chain", *files)
            classic = ClassicProcess(ours, files[0])
            name = f"training, {arch}, {SIZE} px : classic float32 loop"
            yield timed(name, ours, classic, 4, at_least=3)
            name = f"its limit: torchvision's {arch} alone, from memory : classic float32 loop"
            yield timed(name, BareEncoder(ours), classic, 4)
            classic.close()
        for decoder, at_least in (("chain", 0.90), ("none", 0.97)):
            ours = OurLoop("resnet18", decoder, *files)
            encoder = BareEncoder(ours)
            name = f"training, resnet18 + {decoder} : torchvision's encoder alone"
            yield timed(f"{name}, from files", ours, encoder, at_least=at_least)
            cached = OurLoop("resnet18", decoder, *files, "--cache", str(Path(folder) / "cache"))
            yield timed(f"{name}, from files with --cache", cached, encoder, at_least=at_least)
            ours.loader = InMemory(ours.loader)
            yield timed(f"{name}, from memory", ours, encoder, 9, at_least=at_least)


def timed(
    name: str, ours: Callable, reference: Callable, rounds: int = 5, **targets: float
) -> Ratio:
    """A row of an epoch each, with both rates as its note."""
    row = side_by_side(name, ours, reference, rounds, **targets)
    ours_rate, rate = (STEPS * BATCH_SIZE / seconds for seconds in (row.ours, row.reference))
    return replace(row, note=f"{ours_rate:.1f} and {rate:.1f} images/s")


class OurLoop:
    """An epoch as train.py runs it."""

    def __init__(
        self,
        arch: str,
        decoder: str,
        images: Path,
        annotations: Path,
        *more: str,
        size: int = SIZE,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        flags = f"--arch {arch} --decoder {decoder} --batch_size {batch_size} --val_fraction 0"
        files = ["--image_path", str(images), "--annotations", str(annotations)]
        self.args = get_args_parser().parse_args(
            [*flags.split(), *files, "--num_epochs", "999", *more]
        )
        self.args.vocab_path, self.args.image_size = images.parent / "vocab.json", size
        resolve_paths(self.args)
        self.device = pick_device("auto")
        data = load_data(self.args, self.device)
        self.loader, vocabulary = data.train_loader, data.vocabulary
        self.batch_shape = (batch_size, 3, size, size)
        model = HybridNet(arch, len(vocabulary), decoder, stages=self.args.stages)
        self.state = TrainState(model, self.device, len(self.loader), 999, 2e-3, 1e-2)
        self.amp = autocast(self.device, "auto")

    def __call__(self) -> None:
        self.loader.batch_sampler.epoch += 1
        folder = self.args.output_dir
        steps = checked_steps(self.state, self.loader, self.args.arch, folder)
        train_one_epoch(self.state, steps, self.amp, self.args.decoder, self.args.cnn_loss_weight)
        wait()


class InMemory(list):
    """A loader's batches, read once."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(loader)
        self.batch_sampler = loader.batch_sampler


class BareEncoder:
    """torchvision's ResNet alone, forward and backward, on as many batches in memory."""

    def __init__(self, ours: OurLoop) -> None:
        self.encoder = plain_encoder(ours.args.arch, ours.device)
        self.amp, self.steps = ours.amp, len(ours.loader)
        images = torch.randn(*ours.batch_shape, device=ours.device)
        self.images = images.contiguous(memory_format=torch.channels_last)

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.encoder.zero_grad()
            with self.amp:
                loss = self.encoder(self.images).float().mean()
            loss.backward()
        wait()


class ClassicImages(Dataset):
    """Files to normalised float32 tensors, as tutorials read them."""

    def __init__(self, images: Path, targets: Tensor) -> None:
        self.images, self.targets = images, targets
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.RandomCrop(SIZE),
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
    """An epoch of the tutorials' loop, on a copy of the same model.

    In a process of its own, whose memory and devices nothing of this project has set up.
    """

    def __init__(self, ours: OurLoop, images: Path) -> None:
        targets = ours.loader.dataset.targets
        check_classic_loss(ours.state.model, targets[:BATCH_SIZE].to(ours.device))
        model = copy.deepcopy(ours.state.model).cpu()
        self.executor = ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=begin_classic,
            initargs=(model, images, targets, ours.args.num_workers, ours.device),
        )

    def __call__(self) -> None:
        self.executor.submit(classic_epoch).result()

    def close(self) -> None:
        """End the process and its loader's: the next row is to have the machine to itself."""
        self.executor.shutdown()


def begin_classic(*arguments: object) -> None:
    """What the new process begins with; a global keeps it there for every epoch."""
    global loop
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    loop = ClassicLoop(*arguments)


def classic_epoch() -> None:
    """An epoch in that process."""
    loop()


class ClassicLoop:
    """The loop itself."""

    def __init__(
        self, model: HybridNet, images: Path, targets: Tensor, workers: int, device: torch.device
    ) -> None:
        self.model, self.device = model.train().to(device), device
        self.model.to(memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = DataLoader(
            ClassicImages(images, targets),
            BATCH_SIZE,
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
    """The mean of HybridNet's two losses, from padded sequences."""
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
    """Raise AssertionError unless both loops minimise the same."""
    widths = [classifier.in_features for classifier in model.stage_heads[::-1]]
    widths.append(model.classifier.in_channels)
    stages = [torch.randn(len(targets), w, 2, 2, device=targets.device) for w in widths]
    encoding: Encoding = model.encode_features(stages)
    ours = bernoulli_nll(model.set_logits(encoding, targets), targets)
    ours = (ours + bernoulli_nll(encoding.cnn_logits, targets)).mean()
    torch.testing.assert_close(ours, classic_loss(model, stages, targets))


def random_stages(num_images: int, device: torch.device) -> list[Tensor]:
    """What ResNet-18 makes of as many images of 224 pixels in its last three stages."""
    shapes = ((128, 28), (256, 14), (512, 7))
    stages = [torch.randn(num_images, width, side, side, device=device) for width, side in shapes]
    return [f.relu().contiguous(memory_format=torch.channels_last) for f in stages]


def decoder_row(targets: Tensor) -> Ratio:
    """From the ResNet's features on, forward and backward, against the independent head."""
    device = pick_device("auto")
    batches = targets[: 4 * DECODER_BATCH].float().split(DECODER_BATCH)
    stages = [features.requires_grad_() for features in random_stages(DECODER_BATCH, device)]

    def epoch(decoder: str) -> Callable[[], None]:
        model = HybridNet("resnet18", targets.shape[1], decoder, stages=len(stages)).to(device)

        def run() -> None:
            for batch in batches:
                for features in stages:
                    features.grad = None
                model.zero_grad()
                encoding = model.encode_features(stages)
                loss = bernoulli_nll(model.set_logits(encoding, batch), batch.to(device)).mean()
                if decoder != "none":
                    loss = loss + bernoulli_nll(encoding.cnn_logits, batch.to(device)).mean()
                loss.backward()
            wait()

        return run

    name = f"time of chain's decoder : independent head, batch {DECODER_BATCH}"
    row = side_by_side(name, epoch("chain"), epoch("none"), 9, at_most=4)
    ours, reference = (1000 * seconds / len(batches) for seconds in (row.ours, row.reference))
    return replace(row, note=f"{ours:.0f} and {reference:.0f} ms a step")


def label_rows() -> Iterator[Ratio]:
    """A step of chain's decoder for many labels against 80: at most linear in their number."""
    device = pick_device("auto")
    stages = random_stages(BATCH_SIZE, device)

    def step(num_labels: int) -> Callable[[], None]:
        model = HybridNet("resnet18", num_labels, stages=len(stages)).to(device)
        targets = torch.zeros(BATCH_SIZE, num_labels)
        targets.scatter_(1, torch.randint(num_labels, (BATCH_SIZE, 3)), 1)  # as COCO has them

        def run() -> None:
            encoding = model.encode_features(stages)
            bernoulli_nll(model.set_logits(encoding, targets), targets.to(device)).mean().backward()
            model.zero_grad()
            wait()

        return run

    for num_labels in (1000, 10_000):
        name = f"time of a decoder step, {num_labels:,} labels : 80 labels, batch {BATCH_SIZE}"
        row = side_by_side(name, step(num_labels), step(80), 9, at_most=num_labels / 80)
        yield replace(row, note=f"{1000 * row.ours:.0f} and {1000 * row.reference:.0f} ms")
