"""The data sets of quality.py: where they are, and how every model is trained on them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from hidden_labels import HIDDEN
from rivals import Contender

from train import get_args_parser as train_args_parser
from training.recipe import PRETRAINED, RANDOM

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
    start_decay: float = 0.0  # of train.py
    hidden: str | None = None  # which labels are hidden, see hidden_labels.py

    @property
    def recipe(self) -> str:
        """The flags as they are kept with each result: of a path only its last part.

        No --start_decay means 0: the first results are from before that flag.
        """
        start = ("--start_decay", f"{self.start_decay:g}") if self.start_decay else ()
        return " ".join(Path(flag).name for flag in (*self.flags, *self.tuned, *start))

    def args(self, contender: Contender, learning_rate: float, seed: int) -> argparse.Namespace:
        """train.py's arguments."""
        images, annotations = map(str, self.train)
        given = ["--image_path", images, "--annotations", annotations, *self.flags, *self.tuned]
        given += ["--learning_rate", str(learning_rate), "--seed", str(seed)]
        given += ["--start_decay", str(self.start_decay)]
        args = train_args_parser().parse_args(given)
        vars(args).update(contender.flags)
        return args


def tuned_flags(layer_decay: float, augmentation: str) -> tuple[str, ...]:
    """Flags for a pretrained encoder. Results keep them, so that a new default is a new recipe."""
    return ("--layer_decay", f"{layer_decay:g}", "--augmentation", augmentation)


def coco_paths(root: Path, name: str) -> tuple[Path, Path]:
    """Images and annotations where make_scenes.py puts them for COCO's label sets."""
    file = f"instances_{name}2014"
    return root / "images" / file, root / "annotations" / f"{file}.json"


SCENES, DRAWN, DRAWN_FULL, COCO_PHOTOS, CCP, POSTERS = (
    *(ROOT / "data" / n for n in ("scenes", "coco-drawn", "coco-drawn-full", "coco-photos")),
    *(SHARED / name for name in ("ccp", "posters")),
)
SPLITS = ("train", "val")
LITE0 = "tf_efficientnet_lite0"


def split_paths(folder: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """Images and annotations of train and val."""
    if folder == COCO_PHOTOS:
        names = [(f"images/{n}2014", f"annotations/instances_{n}2014.json") for n in SPLITS]
    else:
        names = [(f"images/{n}", f"annotations/{n}.json") for n in SPLITS]
    train, val = ((folder / images, folder / labels) for images, labels in names)
    return train, val


def lite0_set(
    folder: Path, image_size: int, num_epochs: int, missing: str, pretrained: bool = True
) -> DataSet:
    """Real photos for EfficientNet-Lite0, whose weights are ImageNet's or random."""
    recipe = PRETRAINED if pretrained else RANDOM
    weights = ("--weights", str(SHARED / f"weights/{LITE0}.pth")) if pretrained else ()
    return DataSet(
        *split_paths(folder),
        missing=missing,
        num_epochs=num_epochs,
        flags=("--arch", LITE0, "--image_size", str(image_size), *weights),
        arch=LITE0,
        tuned=tuned_flags(recipe["layer_decay"], recipe["augmentation"]),
        start_decay=recipe["start_decay"],
    )


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
        *split_paths(CCP),
        missing=f"put Clothing Co-Parsing into {CCP}",
        num_epochs=8,
        flags=(
            *("--image_size", "128"),
            *("--weights", str(SHARED / "weights/resnet18-conv1-layer3.pth")),
        ),
    ),
    "ccp-lite0": lite0_set(CCP, 224, 5, "put Clothing Co-Parsing there"),
    "ccp-lite0-random": lite0_set(CCP, 224, 5, "put Clothing Co-Parsing there", pretrained=False),
    "posters": lite0_set(POSTERS, 192, 4, "put the posters there"),
    "posters-random": lite0_set(POSTERS, 192, 4, "put the posters there", pretrained=False),
    "coco-photos": lite0_set(COCO_PHOTOS, 224, 10, "run python benchmarks/quality/coco_photos.py"),
}
SETS |= {
    f"{name}-hidden-{hidden}": replace(SETS[name], hidden=hidden)
    for name in ("scenes", "drawn")
    for hidden in HIDDEN
}
