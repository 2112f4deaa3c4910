"""The data sets of quality.py: where they lie, and how long everyone learns from them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rivals import Contender

from train import get_args_parser as train_args_parser

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class DataSet:
    """Where the images of a comparison lie, and how long everyone learns from them."""

    train: tuple[Path, Path]  # images, annotations
    val: tuple[Path, Path]
    made_by: str  # what to do if they are not there
    flags: tuple[str, ...]  # of train.py

    @property
    def recipe(self) -> str:
        """The flags, to be kept with each result; of files the names."""
        return " ".join(Path(flag).name for flag in self.flags)

    def args(self, contender: Contender, learning_rate: float, seed: int) -> argparse.Namespace:
        """train.py's flags."""
        images, annotations = map(str, self.train)
        given = ["--image_path", images, "--annotations", annotations, *self.flags]
        given += ["--learning_rate", str(learning_rate), "--seed", str(seed)]
        args = train_args_parser().parse_args(given)
        vars(args).update(contender.flags)
        return args


def folders(root: Path, train: str, val: str) -> dict[str, tuple[Path, Path]]:
    """images/NAME and annotations/instances_NAME.json, or as they are called there."""
    return {
        part: (root / "images" / name, root / "annotations" / f"{file}.json")
        for part, name, file in (("train", *train.split(":")), ("val", *val.split(":")))
    }


SETS = {
    "scenes": DataSet(
        **folders(ROOT / "data/scenes", "train:instances_train", "val:instances_val"),
        made_by="python data/make_scenes.py",
        flags=("--image_size", "64", "--num_epochs", "20"),
    ),
    "drawn": DataSet(
        **folders(
            ROOT / "data/coco-drawn",
            "instances_train2014:instances_train2014",
            "instances_val2014:instances_val2014",
        ),
        made_by="the two commands of make_scenes.py in the README",
        flags=("--image_size", "64", "--num_epochs", "8", "--batch_size", "64"),
    ),
    "drawn-full": DataSet(
        **folders(
            ROOT / "data/coco-drawn-full",
            "instances_train2014:instances_train2014",
            "instances_val2014:instances_val2014",
        ),
        made_by="the two commands of make_scenes.py in the README",
        flags=(
            *("--image_size", "64", "--num_epochs", "3", "--batch_size", "256"),
            *("--val_fraction", "0.025"),
            *("--cache", str(ROOT / "data/coco-drawn-full/cache")),
        ),
    ),
    "ccp": DataSet(
        **folders(SHARED / "ccp", "train:train", "val:val"),
        made_by="not by this repository: it lies beside it",
        flags=(
            *("--image_size", "128", "--num_epochs", "8"),
            *("--weights", str(SHARED / "weights/resnet18-conv1-layer3.pth")),
        ),
    ),
}
