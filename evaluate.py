"""Evaluate a checkpoint: mAP, CF1, OF1, exact match, set NLL, calibration, per label and in all.

The latest run, on the validation images of the default set or on COCO's val2014:

    python evaluate.py

Any checkpoint on any COCO-format data:

    python evaluate.py --checkpoint runs/instances_train2014-chain/best.pt \\
        --image_path data/images/val2014 --annotations data/annotations/instances_val2014.json

The table goes to the console and to evaluate.log, every figure to metrics.json beside the
checkpoint. A label's score is the decoder's own marginal, P(label in set | image).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from annotations import encode_targets, read_annotations
from checkpoint import find_checkpoint, load_checkpoint, restore
from data_loader import LabelledImages, load_data_set, make_loader
from decoding import predict
from image_cache import ImageCache
from metrics import average_precision, figures, precision_recall_f1
from utils import (
    ArgumentParser,
    UsageError,
    autocast,
    log,
    make_folder,
    non_negative_int,
    pick_device,
    positive_int,
    progress,
    run_script,
    without_nan,
    write_atomically,
)

SCENES_TRAIN = "data/scenes/annotations/instances_train.json"
RULES = {
    "threshold": "score above the threshold fitted on the hold-out",
    "map": "the most probable label set",
    "f1": "the set with the highest expected F1",
    "top3": "exactly the 3 best scores (papers of 2016)",
    "top3@0.5": "of the 3 best scores those above 0.5",
}


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best.pt of a run; the latest run's if not given")
    add("--image_path", type=Path, help="image folder; default: the checkpoint's own val images")
    add("--annotations", type=Path, help="COCO json of the images to evaluate on")
    add("--keep_unlabelled", action="store_true", help="count images without labels (COCO: 40,504)")
    add("--limit", type=positive_int, help="the first N images only, for a quick look")
    add("--cache", type=Path, help="file for decoded images, to evaluate many runs on them")
    add("--num_samples", type=positive_int, default=128, help="label sets drawn for the marginals")
    add("--batch_size", type=positive_int, default=64, help="lower it if memory runs out")
    add("--num_workers", type=non_negative_int, default=2, help="processes that load images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--amp", choices=("auto", "on", "off"), default="auto", help="bf16; auto: where it is fast")
    add("--output_dir", type=Path, help="where metrics.json and the log go (beside the checkpoint)")
    add("--json", action="store_true", help="print metrics.json instead of the tables")
    return parser


def main(args: argparse.Namespace) -> None:
    """Predict, measure, print, save."""
    device = pick_device(args.device)
    path = args.checkpoint or find_checkpoint()
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    output_dir = args.output_dir or path.parent
    make_folder(output_dir)
    image_path, annotations = choose_data(args, checkpoint)
    images, paths = load_data_set(
        image_path, read_annotations(annotations), args.keep_unlabelled, args.limit
    )
    targets = encode_targets(images, vocabulary)
    warn_of_leaks(checkpoint, annotations)
    cache = None
    if args.cache:  # at the model's own size: not a pixel differs from the files'
        cache = ImageCache(args.cache, paths, preprocessing.image_size).prepare(args.num_workers)
    data = LabelledImages(paths, targets, preprocessing, cache=cache)
    loader = make_loader(data, args.batch_size, args.num_workers)

    started = time.perf_counter()
    p = predict(
        model.to(device),
        progress(loader, "evaluating"),
        autocast(device, args.amp),
        args.num_samples,
    )
    seconds = time.perf_counter() - started
    by_threshold = p.marginals >= checkpoint["threshold"]
    sets = {"threshold": by_threshold, "map": p.best_sets, "f1": p.f1_sets}
    results = {
        "checkpoint": str(path),
        "epoch": checkpoint["epoch"],
        "decoder": checkpoint["model"]["decoder"],
        "annotations": str(annotations),
        "num_images": len(images),
        "protocol": ("all images" if args.keep_unlabelled else "images with labels")
        + (" (the first ones)" if args.limit else ""),
        "num_samples": args.num_samples,
        "threshold": checkpoint["threshold"],
        "threshold_fitted_on": checkpoint["selected_on"],
        "set_nll": float(p.set_nll.mean()),
        **figures(p.targets, p.marginals, sets),
        "per_label": per_label(vocabulary.labels, p.targets, p.marginals, by_threshold),
        "map_certain": 100 * float(p.certain.mean()),
        "images_per_second": round(len(images) / seconds, 1),
    }
    as_json = json.dumps(without_nan(results), indent=1)
    tables = format_tables(results)
    for name, text in (("metrics.json", as_json), ("evaluate.log", tables)):
        write_atomically(output_dir / name, lambda t, text=text: t.write_text(text + "\n", "utf-8"))
    print(as_json if args.json else tables)
    log(f"wrote {output_dir / 'metrics.json'} and {output_dir / 'evaluate.log'}")


def choose_data(args: argparse.Namespace, checkpoint: dict) -> tuple[Path, Path]:
    """The images and annotations to evaluate on: as given, the default set's, or COCO's val2014."""
    if args.image_path and args.annotations:
        return args.image_path, args.annotations
    if args.image_path or args.annotations:
        raise UsageError("--image_path and --annotations go together: give both or neither")
    flags = checkpoint["flags"]
    if flags.get("val_annotations"):
        return Path(flags["val_image_path"]), Path(flags["val_annotations"])
    if flags.get("annotations") == SCENES_TRAIN:
        folder = Path(SCENES_TRAIN).parents[1]
        return folder / "images/val", folder / "annotations/instances_val.json"
    annotations = Path("data/annotations/instances_val2014.json")
    if Path(str(flags.get("annotations"))).stem == "instances_train2014" and annotations.exists():
        return Path("data/images"), annotations
    raise UsageError(f"name the data: --image_path and --annotations (there is no {annotations})")


def warn_of_leaks(checkpoint: dict, annotations: Path) -> None:
    """Say so when the reported images also trained the model or chose its epoch."""
    flags = checkpoint["flags"]
    for flag, what in (("annotations", "trained on"), ("val_annotations", "selected on")):
        if flags.get(flag) and Path(flags[flag]).resolve() == annotations.resolve():
            log(f"note: this checkpoint was {what} these very annotations")


def per_label(
    labels: tuple[str, ...], targets: np.ndarray, scores: np.ndarray, predicted: np.ndarray
) -> list[dict]:
    """AP, precision, recall, F1 in percent and the number of true images of every label."""
    values = {"AP": average_precision(targets, scores), **precision_recall_f1(targets, predicted)}
    return [
        {
            "label": label,
            "support": int(targets[:, c].sum()),
            **{name: 100 * float(column[c]) for name, column in values.items()},
        }
        for c, label in enumerate(labels)
    ]


def format_tables(r: dict) -> str:
    """The console's and the log's text, from the same dictionary that becomes metrics.json."""
    width = max(5, *(len(row["label"]) for row in r["per_label"]))
    lines = [f"{'label':<{width}} {'images':>7} {'AP':>6} {'P':>6} {'R':>6} {'F1':>6}"]
    for row in r["per_label"]:
        cells = " ".join(f"{row[k]:6.1f}" for k in ("AP", "precision", "recall", "f1"))
        lines.append(f"{row['label']:<{width}} {row['support']:>7,} {cells}")
    names = ("CP", "CR", "CF1", "macroF1", "OP", "OR", "OF1", "EM", "EBF1")
    lines += ["", f"{'predicted sets':<14}" + "".join(f"{name:>8}" for name in names)]
    for rule, meaning in RULES.items():
        cells = "".join(f"{r['predicted_sets'][rule][name]:8.1f}" for name in names)
        lines.append(f"{rule:<14}{cells}  {meaning}")
    lines += [
        "",
        f"checkpoint {r['checkpoint']} (epoch {r['epoch']}, {r['decoder']}), "
        f"threshold {r['threshold']:.3f} fitted on {r['threshold_fitted_on']}",
        f"{r['num_images']:,} {r['protocol']} of {r['annotations']}",
        f"mAP {r['mAP']:.2f} over {r['mAP_labels']} labels   mAP@10 {r['mAP@10']:.2f}   "
        f"set NLL {r['set_nll']:.3f} nats   ECE {r['ECE']:.2f}",
        f"the most probable set is proved to be it on {r['map_certain']:.1f} % of the images",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, get_args_parser())
