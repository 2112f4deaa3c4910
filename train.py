"""Train HybridNet: a ResNet and an LSTM label decoder, end to end.

The default set, drawn on this machine (minutes on two cores, no download):

    python train.py

COCO 2014 on a GPU:

    python train.py --image_path data/images/train2014 --vocab_path data/vocab.pkl \\
        --arch resnet101 --pretrained --image_size 448 --batch_size 64 --learning_rate 0.0001

One annotated image, the classic check that the network can overfit:

    python train.py --image_path data/images/img.jpg --vocab_path data/vocab.pkl --batch_size 256 \\
        --learning_rate 0.001 --num_epochs 10 --num_workers 4

Several processes, or machines that share the output folder, train as one:

    torchrun --nproc_per_node=4 train.py

Run the same command again to continue an interrupted run exactly where it was last saved. One JSON
line per epoch goes to stdout and to log.jsonl in the output folder, beside curves.png, last.pt (to
continue) and best.pt (to use).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from encoder import ARCHS, NUM_STAGES
from images.bad_images import FILE, BadImages
from images.transforms import Preprocessing
from labels.options import add_label_flags, options_from
from labels.search import find_labels
from labels.vocabulary import check_suffix, save_vocabulary
from model import DECODERS, DEFAULT_STAGES, settings_of
from report.training_log import append_log, draw_curves, format_mistakes
from training.data import TrainingData, choose_train_and_val, make_loaders
from training.resume import continue_run, fingerprint, load_last
from training.saver import Saver
from training.setup import (
    SCENES,
    SCENES_IMAGE_SIZE,
    build_model,
    draw_default_set,
    log_run_summary,
    name_data_set,
    set_deterministic,
)
from training.signals import lock_output_dir
from training.state import TrainState, clip_gradients
from training.validation import Validation, validate
from util.cli import (
    ArgumentParser,
    code_commit,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_script,
)
from util.device import autocast, pick_device, resolve_amp
from util.distributed import all_gather, process_group, rank, rank_zero_first, world_size
from util.errors import UsageError
from util.files import without_nan
from util.log import log, progress


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
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
    add_label_flags(parser)
    net = parser.add_argument_group("model").add_argument
    net("--arch", choices=ARCHS, default="resnet18", help="encoder; deeper is better and slower")
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
    net("--pretrained", action="store_true", help="start from ImageNet weights; best if you can")
    net("--weights", type=Path, help="start from a state dict with torchvision's names")
    net("--freeze_encoder", action="store_true", help="train only the rest; for very few images")
    opt = parser.add_argument_group("optimisation").add_argument
    opt("--num_epochs", type=positive_int, default=10, help="raise it for a random start")
    opt("--batch_size", type=positive_int, default=32, help="lower it if memory runs out")
    opt("--learning_rate", type=positive_float, default=2e-3, help="peak; 1e-4 if pretrained")
    opt("--weight_decay", type=non_negative_float, default=1e-2, help="raise it if it overfits")
    opt(
        "--cnn_loss_weight",
        type=non_negative_float,
        default=1.0,
        help="weight of the CNN's own loss; 0 only with --freeze_encoder",
    )
    opt("--ema_decay", type=fraction, default=0.998, help="of the weights; 0.9998 for long runs")
    run = parser.add_argument_group("run").add_argument
    run("--output_dir", type=Path, help="default: runs/<data>-<decoder>")
    run("--seed", type=non_negative_int, default=0, help="for weights, order and augmentation")
    run("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    run("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    run("--amp", choices=("auto", "on", "off"), default="auto", help="bfloat16; auto: if faster")
    run("--compile", action="store_true", help="compile the encoder; GPU only, slow start")
    run("--save_minutes", type=positive_float, default=10.0, help="between saves within an epoch")
    run("--accept_changes", action="store_true", help="continue even if flags or data differ")
    return parser


def main(args: argparse.Namespace) -> None:
    """Join the processes of torchrun, if any, lock the output folder, train."""
    device = pick_device(args.device)
    if args.compile and device.type == "cpu":
        raise UsageError("--compile gains nothing on a CPU: leave it out")
    with process_group(device):
        resolve_paths(args)
        set_deterministic(device)
        with lock_output_dir(args.output_dir):
            train(args, device)


def train(args: argparse.Namespace, device: torch.device) -> None:
    """Data, model, then for each epoch: train, validate, save, report."""
    torch.manual_seed(args.seed)
    data = load_data(args, device)
    earlier = load_last(args.output_dir)  # the checkpoint to continue from; None in a new run
    fresh = earlier is None
    model = build_model(
        settings_of(vars(args)),
        data.images.vocabulary,
        fresh and args.pretrained,
        fresh and args.weights,
    )
    state = TrainState(
        model,
        device,
        steps_per_epoch=len(data.train_loader),
        num_epochs=args.num_epochs,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        ema_decay=args.ema_decay,
        compiled=args.compile,
    )
    saver, amp = start_or_continue(args, data, state, earlier)
    with saver:  # SIGTERM and Ctrl-C save before they end the run
        for epoch in range(state.epoch + 1, args.num_epochs + 1):
            steps = saver.steps(data.train_loader, f"epoch {epoch}/{args.num_epochs}")
            train_one_epoch(state, steps, amp, args.decoder, args.cnn_loss_weight)
            losses = saver.end_steps()  # saves: validation may take long
            val_batches = saver.stop.watch(progress(data.val_loader, "validating"))
            found = validate(state.ema, val_batches, amp)  # the averaged weights are evaluated
            is_best = saver.end_epoch(found)  # if so, writes best.pt
            report_epoch(args, data, {"epoch": epoch, **losses}, found, is_best, saver.started)
            saver.save()
    report_end(args, data)


def train_one_epoch(
    state: TrainState,
    steps: Iterable[tuple[Tensor, Tensor, Tensor, int]],
    amp: torch.autocast,
    decoder: str,
    cnn_loss_weight: float,
) -> None:
    """Forward, loss, backward, clip, step, average, for each batch."""
    state.model.train()
    for images, targets, indices, batch_size in steps:
        images = images.to(state.device, non_blocking=True)  # b×3×S×S, this process's share
        with amp:
            losses = state.ddp_model(images, targets)  # set_nll and cnn_bce, b each, in nats
        # DDP averages gradients over processes: this scale makes it the mean over the whole batch
        scale = world_size() / batch_size
        set_nll, cnn_bce = (scale * losses[name].sum() for name in ("set_nll", "cnn_bce"))
        loss = set_nll
        if decoder != "none":  # alone, the fast-learning decoder would starve the CNN of gradient
            loss = loss + cnn_loss_weight * cnn_bce
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(state.model)
        state.optimizer.step()
        state.scheduler.step()
        state.update_ema()
        state.end_step(torch.stack([loss, set_nll, cnn_bce]).detach() / scale, indices)


def load_data(args: argparse.Namespace, device: torch.device) -> TrainingData:
    """Loaders of training and validation images, and the vocabulary."""
    bad = BadImages(args.output_dir / FILE) if args.skip_bad_images else None
    images = choose_train_and_val(
        args.image_path,
        args.annotations,
        args.vocab_path,
        val_image_path=args.val_image_path,
        val_annotations=args.val_annotations,
        val_fraction=args.val_fraction,
        leave_out=args.leave_out,
        seed=args.seed,
        normalise_tags=args.normalise_tags,
        keep_unlabelled=args.keep_unlabelled,
        limit=args.limit,
        allow_missing=args.skip_bad_images,
        options=options_from(vars(args)),
    )
    return make_loaders(
        images,
        Preprocessing(args.image_size),
        batch_size=args.batch_size,
        seed=args.seed,
        num_workers=args.num_workers,
        cache_path=args.cache,
        bad=bad,
        pin=device.type == "cuda",
        batch_norm=not args.freeze_encoder,
    )


def start_or_continue(
    args: argparse.Namespace, data: TrainingData, state: TrainState, earlier: dict | None
) -> tuple[Saver, torch.autocast]:
    """Begin a run, or set `state` to where the earlier one was saved."""
    flags = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    loaders = {"training": data.train_loader, "validation": data.val_loader}
    about = {
        "model": settings_of(vars(args)),
        "vocabulary": data.images.vocabulary.to_dict(),
        "preprocessing": Preprocessing(args.image_size).to_dict(),
        "selected_on": data.images.selected_on,
        "held_out": data.images.held_out,
        "data": {name: fingerprint(loader.dataset) for name, loader in loaders.items()},
        "flags": flags,
        "commit": code_commit(),
    }
    if earlier:
        defaults = vars(get_args_parser().parse_args([]))
        continue_run(state, earlier, about, defaults, args.accept_changes)
        steps = f" and {state.step} steps" if state.step else ""
        log(f"continuing {args.output_dir} after epoch {state.epoch} of {args.num_epochs}{steps}")
    else:
        if not args.pretrained and not args.weights:
            log("the encoder starts at random: --pretrained or --weights FILE is a better start")
        if data.bad_images and rank() == 0:
            data.bad_images.forget()
    if rank() == 0 and not args.vocab_path.exists():
        save_vocabulary(data.images.vocabulary, args.vocab_path)
    # a run keeps its precision when it continues, and evaluation uses the same
    precision = resolve_amp(args.amp, state.device, earlier["flags"] if earlier else {})
    flags |= {"device": state.device.type, "amp": all_gather(precision)[0]}
    amp = autocast(state.device, flags["amp"])
    log_run_summary(flags, state.model, data, state.device, amp)
    return Saver(state, about, args.output_dir, args.save_minutes), amp


def report_epoch(
    args: argparse.Namespace,
    data: TrainingData,
    line: dict,
    found: Validation,
    is_best: bool,
    started: float,
) -> None:
    """An epoch's line in log.jsonl and on stdout, curves.png, and a few mistakes on stderr."""
    if data.bad_images:
        line["bad_images"] = len(data.bad_images.read())
    line |= found.metrics | {"seconds": time.perf_counter() - started}
    if rank() > 0:
        return
    append_log(without_nan(line), args.output_dir / "log.jsonl")
    draw_curves(args.output_dir / "log.jsonl", args.output_dir / "curves.png")
    print(json.dumps(without_nan(line)), flush=True)
    log(
        f"epoch {line['epoch']}/{args.num_epochs}: loss {line['train_loss']:.3f}, validation set "
        f"NLL {line['val_set_nll']:.3f}, mAP {line['val_mAP']:.1f}, OF1 {line['val_OF1']:.1f}, "
        f"exact {line['val_EM']:.1f}, {line['images_per_second']:.0f} images/s"
        f"{' (best so far)' if is_best else ''}"
    )
    paths = [data.val_loader.dataset.paths[i] for i in found.rows]
    labels = data.images.vocabulary.labels
    log(*format_mistakes(found.predictions, found.threshold, paths, labels), sep="\n")


def report_end(args: argparse.Namespace, data: TrainingData) -> None:
    """Say where the result is, and what was left out."""
    if data.bad_images and (bad := data.bad_images.read()):
        log(f"{len(bad):,} images could not be read and were left out: {data.bad_images.path}")
    log(f"trained {args.num_epochs} epochs; the best is {args.output_dir / 'best.pt'}")


def resolve_paths(args: argparse.Namespace) -> None:
    """Fill in the paths that were not given; without images, draw the default set."""
    if args.image_path is None:
        if args.annotations or args.val_annotations or args.val_image_path:
            raise UsageError("annotations are given but no images: add --image_path")
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
        name = name_data_set(args.image_path, args.annotations)
    args.image_size = args.image_size or 224
    args.output_dir = args.output_dir or Path("runs") / f"{name}-{args.decoder}"
    args.vocab_path = args.vocab_path or args.output_dir / "vocab.pkl"
    check_suffix(args.vocab_path)
    if args.pretrained and args.weights:
        raise UsageError("--pretrained and --weights both set the encoder's weights: give only one")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UsageError(f"--output_dir {args.output_dir} is a file; choose another")
    if args.leave_out and (args.val_annotations or args.val_image_path):
        flag = "--val_annotations" if args.val_annotations else "--val_image_path"
        raise UsageError(
            f"{flag} names validation images, and --leave_out has them held out: give only one"
        )
    if args.val_annotations:
        args.val_image_path = args.val_image_path or args.image_path
    elif args.val_image_path:
        args.val_annotations = find_labels(args.val_image_path, "val")


if __name__ == "__main__":
    run_script(main, get_args_parser())
