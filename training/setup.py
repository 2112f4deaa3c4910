"""What train.py does before it trains: defaults, the model to start from, a summary."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from labels.annotated import SHARD_INDEX
from labels.read import find_labels
from labels.vocabulary import Vocabulary, check_suffix
from model import HybridNet, load_encoder_weights
from util.cli import code_commit
from util.distributed import rank_zero_first, world_size
from util.errors import RunError, UsageError
from util.log import log

SCENES = Path("data/scenes")  # the default set, made by data/make_scenes.py
SCENES_IMAGE_SIZE = 64


def build_model(
    args: argparse.Namespace, vocabulary: Vocabulary, fresh: bool
) -> tuple[HybridNet, dict]:
    """A model and the settings that rebuild it; a fresh one starts from the weights asked for."""
    settings = {
        "arch": args.arch,
        "decoder": args.decoder,
        "embed_size": args.embed_size,
        "hidden_size": args.hidden_size,
        "freeze_encoder": args.freeze_encoder,
        "stages": args.stages,
    }
    try:
        model = HybridNet(
            num_labels=len(vocabulary),
            label_logits=vocabulary.prior_logits(),
            pretrained=args.pretrained and fresh,
            **settings,
        )
    except OSError as error:  # urllib's errors are
        raise RunError(f"--pretrained could not fetch the weights ({error})") from None
    if args.weights and fresh:
        load_weights_file(model, args.weights)
    elif fresh and not args.pretrained:
        log("encoder: all tensors at random (--pretrained or --weights FILE would start it better)")
    return model, settings


def load_weights_file(model: HybridNet, path: Path) -> None:
    """Load an encoder state dict and say exactly what was and what was not in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        loaded, missing = load_encoder_weights(model.encoder, state)
    except OSError as error:
        raise UsageError(f"cannot read --weights {path} ({error.strerror or error})") from None
    except ValueError as error:
        raise UsageError(f"--weights {path} does not fit: {error}") from None
    except Exception:  # torch raises many things for a file that is not a state dict
        raise UsageError(f"--weights {path} is not a state dict of tensors") from None
    log(f"encoder: {len(loaded)} tensors from {path}: {', '.join(loaded)}")
    log(f"encoder: {len(missing)} tensors at random: {', '.join(missing) or 'none'}")


def resolve_paths(args: argparse.Namespace) -> None:
    """Resolve every path that was not given; makes the default set if that is what is wanted."""
    if args.image_path is None:
        if args.annotations or args.val_annotations or args.val_image_path:
            raise UsageError("annotations without --image_path: name the image folder, too")
        rank_zero_first(draw_default_set)
        args.image_path = SCENES / "images/train"
        args.annotations = SCENES / "annotations/instances_train.json"
        args.vocab_path = args.vocab_path or SCENES / "vocab.pkl"
        args.image_size = args.image_size or SCENES_IMAGE_SIZE
        name = SCENES.name
    else:
        if not args.image_path.exists():
            raise UsageError(f"--image_path {args.image_path} does not exist")
        args.annotations = args.annotations or find_labels(args.image_path, "train")
        own = args.image_path.is_file() or args.annotations.name == SHARD_INDEX
        name = args.image_path.stem if own else args.annotations.stem
    args.image_size = args.image_size or 224
    args.output_dir = args.output_dir or Path("runs") / f"{name}-{args.decoder}"
    args.vocab_path = args.vocab_path or args.output_dir / "vocab.pkl"
    check_suffix(args.vocab_path)
    if args.pretrained and args.weights:
        raise UsageError("--pretrained and --weights are two starts of the encoder: give one")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UsageError(f"--output_dir {args.output_dir} is a file; choose another")
    if args.val_annotations:
        args.val_image_path = args.val_image_path or args.image_path
    elif args.val_image_path:
        args.val_annotations = find_labels(args.val_image_path, "val")


def set_deterministic(device: torch.device) -> None:
    """The same seed gives the same weights to the bit, on a CPU."""
    if device.type == "cpu":
        # or threads would add up gradients of rows in the order in which they come
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def draw_default_set() -> None:
    """Draw it unless it is there. Raises RunError."""
    if (SCENES / "annotations/instances_val.json").exists():
        return
    script = Path(__file__).parents[1] / "data/make_scenes.py"
    log(f"drawing the default set with {script.name}, once")
    if subprocess.run([sys.executable, script, "--output_dir", SCENES], stdout=2).returncode:
        raise RunError("the default set could not be drawn; the reason is above")


def log_run_summary(args, model, train_loader, val_loader, selected_on, device, amp) -> None:
    """The numbers derived from flags and data, before anything takes long."""
    with amp:
        precision = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images = len(train_loader.dataset)
    per_image = train_loader.dataset.targets.sum(1).mean()
    labels = len(model.classifier.bias)
    log(f"training on {images:,} images, {per_image:.2f} of {labels} labels each")
    num_val = len(val_loader.dataset)
    log(f"epoch, calibration and thresholds are chosen on {selected_on}: {num_val:,} images")
    log(f"{args.arch} + {args.decoder}: {parameters:,} parameters, {trained:,} trained")
    log(
        f"{args.num_epochs} epochs of {len(train_loader)} steps, batches of "
        f"{train_loader.batch_sampler.batch_size} at {args.image_size} px, peak learning rate "
        f"{args.learning_rate:g}, {device}, {precision}, {world_size()} process(es), "
        f"commit {code_commit()}"
    )
    log(f"writing to {args.output_dir}")
