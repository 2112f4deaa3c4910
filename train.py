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

Run the same command again to continue an interrupted run exactly where it was last saved, or, once
labels are corrected, to train on them in a new folder. One JSON line per epoch goes to stdout and
to log.jsonl in the output folder, beside curves.png, images.csv (what it was trained on),
config.json (how; --config gives it back), last.pt (to continue) and best.pt (to use).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from images.bad_images import FILE, BadImages
from images.on_device import check_decoder
from images.transforms import Preprocessing
from inference.checkpoint import find_checkpoint
from inference.unknown import partial_nll
from labels.options import options_from
from labels.search import find_labels
from labels.vocabulary import Vocabulary, check_suffix
from model import settings_of
from training.config_file import CONFIG, plain_flags, write_config
from training.data import TrainAndVal, TrainingData, choose_train_and_val, make_loaders
from training.flags import TrainArgumentParser, add_train_flags
from training.recipe import STARTS
from training.report import report_end, report_epoch, report_finished
from training.resume import (
    LAST,
    Changes,
    continue_run,
    epochs_done,
    find_changes,
    fingerprint,
    load_last,
    peek_last,
)
from training.run_folder import (
    check_records,
    choose_folder,
    newest_run,
    write_records,
)
from training.saver import Saver
from training.setup import (
    SCENES,
    SCENES_IMAGE_SIZE,
    build_model,
    check_model,
    draw_default_set,
    log_run_summary,
    name_data_set,
    set_deterministic,
)
from training.signals import lock_output_dir
from training.start_from import load_start
from training.state import TrainState
from training.track import check_tool, tracking
from training.validation import validate
from util.cli import code_commit, run_script
from util.compat import clip_to_norm
from util.device import autocast, pick_device, resolve_amp
from util.distributed import all_gather, process_group, rank, rank_zero_first, world_size
from util.errors import UsageError
from util.log import counted, log, progress

MAX_NORM = 10.0  # of the gradient


def get_args_parser() -> argparse.ArgumentParser:
    parser = TrainArgumentParser(__doc__)
    add_train_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Join the processes of torchrun, if any, choose and lock the run's folder, train."""
    device = pick_device(args.device)
    if args.compile and device.type == "cpu":
        raise UsageError("--compile gains nothing on a CPU: leave it out")
    if args.decode_on_gpu:
        check_decoder(device, args.cache, args.skip_bad_images)
    check_tool(args.track)
    with process_group(device):
        given = dict(vars(args))  # as typed, for config.json: choose_run fills in the rest
        images, about = choose_run(args)
        set_deterministic(device)
        with lock_output_dir(args.output_dir):
            train(args, images, about, device, given)


def train(
    args: argparse.Namespace, images: TrainAndVal, about: dict, device: torch.device, given: dict
) -> None:
    """Data, model, then for each epoch: train, validate, save, report. given: as typed."""
    earlier = load_last(args.output_dir)  # the checkpoint to continue from; None in a new run
    changes = find_changes(earlier, about, default_flags()) if earlier else Changes()
    changes.check(args.output_dir, args.accept_changes)
    check_records(args.output_dir, images, args.vocab_path, is_new=earlier is None)
    if earlier and (done := epochs_done(earlier)) >= args.num_epochs:
        report_finished(done, args.output_dir, args.annotations)
        return
    data = load_data(args, images, device)
    weights = () if earlier else (args.pretrained, args.weights, args.start_from)
    torch.manual_seed(args.seed)  # not earlier: filling a cache draws random numbers, too
    state = TrainState(
        build_model(about["model"], images.vocabulary, *weights, image_size=args.image_size),
        device,
        steps_per_epoch=len(data.train_loader),
        num_epochs=args.num_epochs,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        ema_decay=args.ema_decay,
        compiled=args.compile,
        layer_decay=args.layer_decay,
        start_decay=args.start_decay,
    )
    saver, amp = start_or_continue(args, data, state, about, earlier, changes, given)
    tracker = tracking(args.track, args.output_dir, about["flags"], state.epoch + 1)
    most_labels = int(images.train.targets.sum(1).max())  # of an image
    with saver, tracker as track:  # SIGTERM and Ctrl-C save before they end the run
        for epoch in range(state.epoch + 1, args.num_epochs + 1):
            steps = saver.steps(data.train_loader, f"epoch {epoch}/{args.num_epochs}")
            train_one_epoch(state, steps, amp, args.decoder, args.cnn_loss_weight, args.seed)
            losses = saver.end_steps()  # saves: validation may take long
            val_batches = saver.stop.watch(progress(data.val_loader, "validating"))
            found = validate(state.ema, val_batches, amp, most_labels)  # of the averaged weights
            is_best = saver.end_epoch(found)  # if so, writes best.pt
            line = {"epoch": epoch, **losses, **found.metrics, "seconds": saver.seconds()}
            track.report(line)
            report_epoch(data, line, found, is_best, args.num_epochs, args.output_dir)
            saver.save()
    saver.finish()
    report_end(args.num_epochs, args.output_dir, data.bad_images)


def train_one_epoch(
    state: TrainState,
    steps: Iterable[tuple[Tensor, Tensor, Tensor, int]],
    amp: torch.autocast,
    decoder: str,
    cnn_loss_weight: float,
    seed: int,
) -> None:
    """Forward, loss, backward, clip, step, average, for each batch."""
    state.model.train()
    for images, targets, indices, batch_size in steps:
        images = images.to(state.device, non_blocking=True)  # b×3×S×S, this process's share
        nll = functools.partial(partial_nll, seed=seed + state.steps)  # if labels are unknown
        with amp:
            losses = state.ddp_model(images, targets, nll)  # set_nll, cnn_bce: b nats each
        # DDP averages gradients over processes: this scale makes it the mean over the whole batch
        scale = world_size() / batch_size
        set_nll, cnn_bce = (scale * losses[name].sum() for name in ("set_nll", "cnn_bce"))
        loss = set_nll
        if decoder != "none":  # alone, the fast-learning decoder would starve the CNN of gradient
            loss = loss + cnn_loss_weight * cnn_bce
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_to_norm(state.model, MAX_NORM)
        state.optimizer.step()
        state.decay_to_start()
        state.scheduler.step()
        state.update_ema()
        state.end_step(torch.stack([loss, set_nll, cnn_bce]).detach() / scale, indices)


def choose_run(args: argparse.Namespace) -> tuple[TrainAndVal, dict]:
    """Fill in args; choose the images, and as args.output_dir the run's folder.

    Returns the images and what every checkpoint of the run holds besides weights and results.
    """
    is_given = args.output_dir is not None
    resolve_paths(args)
    check_model(settings_of(vars(args)), args.image_size)
    earlier = None
    if args.accept_changes:
        args.output_dir = args.output_dir if is_given else newest_run(args.output_dir)
        earlier = peek_last(args.output_dir)
    images = choose_images(args, earlier)
    about = {
        "model": settings_of(vars(args)),
        "vocabulary": images.vocabulary.to_dict(),
        "preprocessing": preprocessing_of(args).to_dict(),
        "selected_on": images.selected_on,
        "held_out": images.held_out,
        "data": {"training": fingerprint(images.train), "validation": fingerprint(images.val)},
        "flags": plain_flags(vars(args)),
        "commit": code_commit(),
    }
    if not is_given and not args.accept_changes:
        chosen = None
        if rank() == 0:
            chosen = choose_folder(args.output_dir, images, about, default_flags())
        args.output_dir = all_gather(chosen)[0]
    args.vocab_path = args.vocab_path or args.output_dir / "vocab.pkl"
    about["flags"] |= {"output_dir": str(args.output_dir), "vocab_path": str(args.vocab_path)}
    return images, about


def default_flags() -> dict[str, object]:
    """What the flags are that a command does not give."""
    return vars(get_args_parser().parse_args([]))


def preprocessing_of(args: argparse.Namespace) -> Preprocessing:
    """How this run prepares its images."""
    return Preprocessing(args.image_size, augmentation=args.augmentation)


def choose_images(args: argparse.Namespace, earlier: dict | None = None) -> TrainAndVal:
    """The training and validation images. earlier: the checkpoint to continue from, if known."""
    start = load_start(args.start_from, settings_of(vars(args))) if args.start_from else None
    return choose_train_and_val(
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
        vocabulary=Vocabulary.from_dict(earlier["vocabulary"], LAST) if earlier else None,
        start=earlier or start,
    )


def load_data(args: argparse.Namespace, images: TrainAndVal, device: torch.device) -> TrainingData:
    """Loaders of training and validation images."""
    bad = BadImages(args.output_dir / FILE) if args.skip_bad_images else None
    return make_loaders(
        images,
        preprocessing_of(args),
        batch_size=args.batch_size,
        seed=args.seed,
        num_workers=args.num_workers,
        cache_path=args.cache,
        bad=bad,
        pin=device.type == "cuda",
        batch_norm=not args.freeze_encoder,
        encoded=args.decode_on_gpu,
    )


def start_or_continue(
    args: argparse.Namespace,
    data: TrainingData,
    state: TrainState,
    about: dict,
    earlier: dict | None,
    changes: Changes,
    given: dict,
) -> tuple[Saver, torch.autocast]:
    """Begin a run, or set `state` to where the earlier one was saved. given: see `train`."""
    if earlier:
        continue_run(state, earlier, changes)
        steps = f" and {counted(state.step, 'step')}" if state.step else ""
        log(f"continuing {args.output_dir} after epoch {state.epoch} of {args.num_epochs}{steps}")
    else:
        if not args.pretrained and not args.weights and not args.start_from:
            log("the encoder starts at random: --pretrained or --weights FILE is a better start")
        if data.bad_images and rank() == 0:
            data.bad_images.forget()
    # a run keeps its precision when it continues, and evaluation uses the same
    precision = resolve_amp(args.amp, state.device, earlier["flags"] if earlier else {})
    about["flags"] |= {"device": state.device.type, "amp": all_gather(precision)[0]}
    amp = autocast(state.device, about["flags"]["amp"])
    log_run_summary(about["flags"], state.model, data, state.device, amp)

    def records() -> None:
        write_records(args.output_dir, data.images, args.vocab_path, bool(changes))
        write_config(args.output_dir / CONFIG, given, about, bool(changes))

    return Saver(state, about, args.output_dir, args.save_minutes, records), amp


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
        args.annotations = args.annotations or find_labels(
            args.image_path, "train", options_from(vars(args)).files()
        )
        name = name_data_set(args.image_path, args.annotations)
    args.image_size = args.image_size or 224
    args.output_dir = args.output_dir or Path("runs") / f"{name}-{args.decoder}"
    if args.vocab_path:
        check_suffix(args.vocab_path)
    starts = [f"--{name}" for name in STARTS if getattr(args, name)]
    if len(starts) > 1:
        raise UsageError(f"{starts[0]} and {starts[1]} both set the first weights: give only one")
    if args.start_from:
        args.start_from = find_checkpoint(args.start_from)
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
        args.val_annotations = find_labels(
            args.val_image_path, "val", options_from(vars(args)).files()
        )


if __name__ == "__main__":
    run_script(main, get_args_parser())
