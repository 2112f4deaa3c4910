"""The data sets of quality.py: where they are, and how every model is trained on them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rivals import Contender

from train import get_args_parser as train_args_parser
from training.recipe import PRETRAINED, fill_in

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class DataSet:
    """Where a data set is, and how every model is trained on it."""

    train: tuple[Path, Path]  # image folder, annotations
    val: tuple[Path, Path]
    missing: str  # what to do if it is missing
    num_epochs: int
    flags: tuple[str, ...]  # other flags of train.py
    arch: str = "resnet18"
    tuned: tuple[str, ...] = ()  # further flags, those that recipe.py varies

    @property
    def recipe(self) -> str:
        """The flags as they are kept with each result: of a path only its last part."""
        return " ".join(Path(flag).name for flag in (*self.flags, *self.tuned))

    def args(self, contender: Contender, learning_rate: float, seed: int) -> argparse.Namespace:
        """train.py's arguments."""
        images, annotations = map(str, self.train)
        given = ["--image_path", images, "--annotations", annotations, *self.flags, *self.tuned]
        given += ["--learning_rate", str(learning_rate), "--seed", str(seed)]
        args = train_args_parser().parse_args(given)
        vars(args).update(contender.flags)
        fill_in(vars(args))
        return args


def tuned_flags(layer_decay: float, augmentation: str) -> tuple[str, ...]:
    """Flags for a pretrained encoder. Results keep them, so that a new default is a new recipe."""
    return ("--layer_decay", f"{layer_decay:g}", "--augmentation", augmentation)


def coco_paths(root: Path, name: str) -> tuple[Path, Path]:
    """Images and annotations where make_scenes.py puts them for COCO's label sets."""
    file = f"instances_{name}2014"
    return root / "images" / file, root / "annotations" / f"{file}.json"


SCENES, DRAWN, DRAWN_FULL, CCP, POSTERS = (
    *(ROOT / "data" / name for name in ("scenes", "coco-drawn", "coco-drawn-full")),
    *(SHARED / name for name in ("ccp", "posters")),
)
LITE0 = "tf_efficientnet_lite0"
SETS = {
    "scenes": DataSet(
        train=(SCENES / "images/train", SCENES / "annotations/instances_train.json"),
        val=(SCENES / "images/val", SCENES / "annotations/instances_val.json"),
        missing="run python data/make_scenes.py",
        num_epochs=20,
        flags=("--image_size", "64"),
    ),
    "drawn": DataSet(
        train=coco_paths(DRAWN, "train"),
        val=coco_paths(DRAWN, "val"),
        missing="run the two commands of make_scenes.py in docs/RESULTS.md",
        num_epochs=8,
        flags=("--image_size", "64", "--batch_size", "64"),
    ),
    "drawn-full": DataSet(
        train=coco_paths(DRAWN_FULL, "train"),
        val=coco_paths(DRAWN_FULL, "val"),
        missing="run the two commands of make_scenes.py in docs/RESULTS.md",
        num_epochs=3,
        flags=(
            *("--image_size", "64", "--batch_size", "256", "--val_fraction", "0.025"),
            *("--cache", str(DRAWN_FULL / "cache")),
        ),
    ),
    "ccp": DataSet(
        train=(CCP / "images/train", CCP / "annotations/train.json"),
        val=(CCP / "images/val", CCP / "annotations/val.json"),
        missing="put Clothing Co-Parsing into ../shared/ccp",
        num_epochs=8,
        flags=(
            *("--image_size", "128"),
            *("--weights", str(SHARED / "weights/resnet18-conv1-layer3.pth")),
        ),
    ),
    "ccp-lite0": DataSet(
        train=(CCP / "images/train", CCP / "annotations/train.json"),
        val=(CCP / "images/val", CCP / "annotations/val.json"),
        missing="put Clothing Co-Parsing into ../shared/ccp",
        num_epochs=5,
        flags=(
            *("--arch", LITE0, "--image_size", "224"),
            *("--weights", str(SHARED / f"weights/{LITE0}.pth")),
        ),
        arch=LITE0,
        tuned=tuned_flags(PRETRAINED["layer_decay"], PRETRAINED["augmentation"]),
    ),
    "posters": DataSet(
        train=(POSTERS / "images/train", POSTERS / "annotations/train.json"),
        val=(POSTERS / "images/val", POSTERS / "annotations/val.json"),
        missing="put the posters into ../shared/posters",
        num_epochs=5,
        flags=(
            *("--arch", LITE0, "--image_size", "192"),
            *("--weights", str(SHARED / f"weights/{LITE0}.pth")),
        ),
        arch=LITE0,
        tuned=tuned_flags(PRETRAINED["layer_decay"], PRETRAINED["augmentation"]),
    ),
}
