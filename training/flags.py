"""The flags of train.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from encoder import NUM_STAGES, check_arch
from images.transforms import AUGMENTATIONS
from labels.options import add_label_flags
from model import DECODERS, DEFAULT_STAGES
from training.config_file import read_config
from training.recipe import describe_default, fill_in
from training.track import TOOLS
from util.cli import (
    ArgumentParser,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_fraction,
    positive_int,
)


class TrainArgumentParser(ArgumentParser):
    """Parses train.py's flags; those that are not given get the recipe's values."""

    def parse_args(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse, then fill in what depends on where the encoder's weights come from.

        The flags in --config count as defaults. Raises UsageError for a file that cannot be used.
        """
        args = super().parse_args(words)
        if args.config:
            self.set_defaults(**read_config(args.config, self))
            args = super().parse_args(words)
        fill_in(vars(args))
        return args


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Add them in groups: data, how to read labels, model, optimisation, run."""
    data = parser.add_argument_group("data").add_argument
    data("--image_path", type=Path, help="image folder, shards or one image; else the default set")
    data("--annotations", type=Path, help="labels, a file or folder; else searched near the images")
    data("--val_image_path", type=Path, help="validation images, if they have their own folder")
    data("--val_annotations", type=Path, help="labels of the validation images")
    data("--vocab_path", type=Path, help="built if missing; default: in the output folder")
    data(
        "--val_fraction", type=fraction, default=0.1, help="hold-out, if there is no validation set"
    )
    data("--leave_out", type=Path, metavar="TXT", help="names of images not to use, one a line")
    data("--normalise_tags", action="store_true", help="merge spellings of the same free tag")
    data("--keep_unlabelled", action="store_true", help="also train on images without labels")
    data("--limit", type=positive_int, help="use only the first N images, for a quick try")
    data("--image_size", type=positive_int, help="pixels a side; 224, or 64 for the default set")
    data("--skip_bad_images", action="store_true", help="leave out images that cannot be read")
    data("--cache", type=Path, help="file for decoded images; use it if decoding is the bottleneck")
    data(
        "--decode_on_gpu", action="store_true", help="decode JPEGs on the GPU, if it waits for them"
    )
    add_label_flags(parser)
    net = parser.add_argument_group("model").add_argument
    net(
        "--arch",
        type=arch_name,
        default="resnet18",
        help="encoder: resnet18, 34, 50, 101 or 152, or any network of the package timm",
    )
    net(
        "--stages",
        type=int,
        choices=range(1, NUM_STAGES + 1),
        default=DEFAULT_STAGES,
        help="how many of the encoder's last stages are read; earlier ones see small objects",
    )
    net("--decoder", choices=DECODERS, default="chain", help="none: the CNN alone, as a control")
    net("--embed_size", type=positive_int, default=256, help="size of the image-label embedding")
    net("--hidden_size", type=positive_int, default=256, help="LSTM units; raise for many labels")
    net("--pretrained", action="store_true", help="fetch ImageNet weights; best if you can")
    net("--weights", type=Path, help="start from a file of such weights, or of best.pt")
    net("--start_from", type=Path, help="start at an earlier run's best.pt, e.g. with more labels")
    net("--freeze_encoder", action="store_true", help="train only the rest; for very few images")
    opt = parser.add_argument_group("optimisation").add_argument
    opt("--num_epochs", type=positive_int, help=describe_default("num_epochs"))
    opt("--batch_size", type=positive_int, default=32, help="lower it if memory runs out")
    opt("--learning_rate", type=positive_float, help=f"peak; {describe_default('learning_rate')}")
    opt(
        "--layer_decay",
        type=positive_fraction,
        help="learning rate of an encoder layer, as a share of the next layer's; "
        + describe_default("layer_decay"),
    )
    opt(
        "--augmentation",
        choices=AUGMENTATIONS,
        help=f"strong: RandAugment, too; {describe_default('augmentation')}",
    )
    opt(
        "--start_decay",
        type=non_negative_float,
        help="weight decay of the encoder towards the weights that it starts from; "
        + describe_default("start_decay"),
    )
    opt("--weight_decay", type=non_negative_float, default=1e-2, help="raise it if it overfits")
    opt(
        "--cnn_loss_weight",
        type=non_negative_float,
        default=1.0,
        help="weight of the CNN's own loss; 0 only with --freeze_encoder",
    )
    opt("--ema_decay", type=fraction, default=0.998, help="of the weights; 0.9998 for long runs")
    run = parser.add_argument_group("run").add_argument
    run("--config", type=Path, metavar="JSON", help="config.json of a run: its flags as defaults")
    run("--output_dir", type=Path, help="default: runs/<data>-<decoder>")
    run("--seed", type=non_negative_int, default=0, help="for weights, order and augmentation")
    run("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    run("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    run("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    run("--compile", action="store_true", help="compile the encoder; GPU only, slow start")
    run("--track", choices=TOOLS, help="show the run in this tool, too; needs its package")
    run("--save_minutes", type=positive_float, default=10.0, help="between saves within an epoch")
    run("--accept_changes", action="store_true", help="continue even if flags or data differ")


def arch_name(text: str) -> str:
    """Type of --arch: a name that `build_encoder` knows."""
    try:
        check_arch(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
