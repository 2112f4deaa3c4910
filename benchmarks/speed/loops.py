"""The loop of train.py, and its encoder alone: each call is an epoch."""

from __future__ import annotations

from pathlib import Path

from material import encoder_step, plain_encoder, random_images, wait
from torch.utils.data import DataLoader

from model import HybridNet
from train import choose_images, get_args_parser, load_data, resolve_paths, train_one_epoch
from training.saver import checked_steps
from training.state import TrainState
from util.device import autocast, pick_device


class OurLoop:
    """An epoch as train.py runs it."""

    def __init__(
        self,
        arch: str,
        decoder: str,
        files: tuple[Path, Path],
        *more: str,
        size: int,
        batch_size: int,
    ) -> None:
        """files: image folder and annotations; more: other flags of train.py."""
        flags = f"--arch {arch} --decoder {decoder} --batch_size {batch_size} --val_fraction 0"
        paths = ["--image_path", str(files[0]), "--annotations", str(files[1])]
        self.args = get_args_parser().parse_args(
            [*flags.split(), *paths, "--num_epochs", "999", *more]
        )
        self.args.vocab_path, self.args.image_size = files[0].parent / "vocab.json", size
        resolve_paths(self.args)
        self.arch, self.size, self.batch_size = arch, size, batch_size
        self.device = pick_device("auto")
        data = load_data(self.args, choose_images(self.args), self.device)
        self.loader = data.train_loader
        model = HybridNet(len(data.images.vocabulary), arch, decoder, stages=self.args.stages)
        self.state = TrainState(
            model,
            self.device,
            len(self.loader),
            self.args.num_epochs,
            self.args.learning_rate,
            self.args.weight_decay,
        )
        self.amp = autocast(self.device, "auto")

    def __call__(self) -> None:
        self.loader.batch_sampler.epoch += 1
        steps = checked_steps(self.state, self.loader, self.arch, self.args.output_dir)
        train_one_epoch(
            self.state, steps, self.amp, self.args.decoder, self.args.cnn_loss_weight, 0
        )
        wait()


class InMemory(list):
    """The batches of a loader, read once."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(loader)
        self.batch_sampler = loader.batch_sampler


class BareEncoder:
    """torchvision's ResNet alone, forward and backward, on as many batches in memory."""

    def __init__(self, ours: OurLoop) -> None:
        self.encoder = plain_encoder(ours.arch, ours.device)
        self.images = random_images(ours.batch_size, ours.size, ours.device)
        self.amp, self.steps = ours.amp, len(ours.loader)

    def __call__(self) -> None:
        for _ in range(self.steps):
            encoder_step(self.encoder, self.images, self.amp)
        wait()
