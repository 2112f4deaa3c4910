"""What train.py reports: each epoch, and the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from images.bad_images import BadImages
from inference.checkpoint import load_checkpoint
from report.training_log import append_log, draw_curves, format_mistakes
from training.data import TrainingData
from training.validation import Validation
from util.distributed import rank
from util.errors import UsageError
from util.files import without_nan
from util.log import counted, log


def report_epoch(
    data: TrainingData,
    line: dict,
    found: Validation,
    is_best: bool,
    num_epochs: int,
    output_dir: Path,
) -> None:
    """An epoch's line in log.jsonl and on stdout, curves.png, and a few mistakes on stderr."""
    if rank() > 0:
        return
    if data.bad_images:
        line = {**line, "bad_images": len(data.bad_images.read())}
    line = without_nan(line)
    append_log(line, output_dir / "log.jsonl")
    draw_curves(output_dir / "log.jsonl", output_dir / "curves.png")
    print(json.dumps(line), flush=True)
    log(
        f"epoch {line['epoch']}/{num_epochs}: loss {line['train_loss']:.3f}, "
        f"{format_metrics(found.metrics)}, {line['images_per_second']:.0f} images/s"
        f"{' (best so far)' if is_best else ''}"
    )
    paths = [data.val_loader.dataset.paths[i] for i in found.rows]
    labels = data.images.vocabulary.labels
    log(*format_mistakes(found.predictions, found.threshold, paths, labels), sep="\n")


def format_metrics(metrics: dict[str, float]) -> str:
    """The metrics of an epoch's validation, see `validation_metrics`, in one line."""
    return (
        f"validation set NLL {metrics['val_set_nll']:.3f}, mAP {metrics['val_mAP']:.1f}, "
        f"OF1 {metrics['val_OF1']:.1f}, exact {metrics['val_EM']:.1f}"
    )


def describe_best(output_dir: Path) -> str:
    """Which epoch is the best, its metrics, and where its checkpoint is."""
    path = output_dir / "best.pt"
    try:
        best = load_checkpoint(path)
        return f"the best is epoch {best['epoch']}: {format_metrics(best['metrics'])}: {path}"
    except (UsageError, LookupError, TypeError, ValueError):  # it was moved or is damaged
        return f"there is no {path} to use"


def report_end(num_epochs: int, output_dir: Path, bad_images: BadImages | None) -> None:
    """Say what was left out, which epoch is the best, and where it is."""
    if rank() > 0:
        return
    if bad_images and (bad := bad_images.read()):
        left_out = f"{counted(len(bad), 'image')} could not be read and"
        log(f"{left_out} {'was' if len(bad) == 1 else 'were'} left out: {bad_images.path}")
    log(f"trained {counted(num_epochs, 'epoch')}; {describe_best(output_dir)}")


def report_finished(epochs: int, output_dir: Path, annotations: Path) -> None:
    """Say that the run has nothing left to do, and what its user may want instead."""
    if rank() > 0:
        return
    log(
        f"{output_dir} is finished ({counted(epochs, 'epoch')}), nothing is left to train; "
        f"{describe_best(output_dir)}"
    )
    log(
        f"to train longer: --num_epochs {2 * epochs} --accept_changes; the learning rate jumps up "
        "again and then falls, so the next epochs may be worse; best.pt stays until one is better"
    )
    log(
        f"to train on other labels: correct {annotations} and repeat this command, with another "
        "--output_dir if it names one; to start over: another --output_dir"
    )
