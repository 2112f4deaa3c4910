"""Every file that a command reads, with the command and the functions that read it.

Paths are those of `valid_inputs.write_tree`, in the working folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import make_shards
import numpy as np
import torch

import annotate
import build_vocab
import data_loader
import evaluate
import export
import sample
import train
from annotation.photos import read_annotations as read_start
from annotation.photos import read_issues, read_label_list
from annotation.store import read_answers
from deploy import predict_onnx
from deploy.model_card import write_card
from deploy.safetensors_io import load_export
from evaluation.choice import choose_images
from evaluation.compare import read_run
from images.bad_images import BadImages
from images.cache import ImageCache
from images.decode import load_image
from images.shards import find_members
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, restore
from inference.predictions import decode
from inference.rules import load_rules
from labels.annotated import AnnotatedImages
from labels.merge import read_merges
from labels.options import DEFAULTS, ReadOptions
from labels.read import read_labels
from labels.targets import encode_targets
from labels.vocabulary import Vocabulary, count_labels, load_vocabulary
from report.page_charts import draw_training
from report.prediction_files import PredictionFiles
from report.sidecars import SideCars
from report.training_log import read_log
from training.config_file import read_config
from training.data import without_images
from training.resume import read_last
from training.weights import find_state, read_weights
from util.errors import UsageError
from util.reading import read_json

IMAGES, BEST = Path("images"), Path("run/best.pt")
PHOTO = "few/00.jpg"
DATA = "--image_path images --annotations instances.json"
MAKE = "--vocab_path out/v.pkl"
LOOK = "--num_workers 0"
TINY = "--image_size 40 --embed_size 4 --hidden_size 4 --num_epochs 1 --batch_size 8"
TRAIN = f"{DATA} {TINY} --num_workers 0 --device cpu --amp off"
JUDGE = f"{DATA} --split all --checkpoint run --num_workers 0 --num_samples 8 --output_dir out"
COMPARE = "--compare other/metrics.json run/metrics.json"


class Door(NamedTuple):
    """One file and what reads it. form: how it is mutated, see mutated_inputs.py."""

    file: str
    form: str
    script: ModuleType | None  # None: no script reads it
    flags: str
    read: Callable[[Path], object]


def labels_in(place: str) -> Callable[[Path], object]:
    """Reads a data set in a folder or file."""
    return lambda path: use_labels(read_labels(Path(place)))


def use_labels(images: AnnotatedImages) -> None:
    """As training does."""
    encode_targets(images, count_labels(images.label_sets, images.categories))


def use_side_car(path: Path) -> None:
    """As sample.py does."""
    cars = SideCars(path.parent, None)
    cars.write([{"image": path.stem, "predicted": ["a new one"]}])
    cars.report()


def use_vocabulary(path: Path) -> None:
    """As training does."""
    vocabulary = load_vocabulary(path)
    vocabulary.prior_logits()
    encode_targets(read_labels(Path("instances.json")), vocabulary)


def use_checkpoint(path: Path) -> None:
    """As evaluate.py and sample.py do, on one photo."""
    checkpoint = load_checkpoint(path)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    with contextlib.suppress(UsageError):
        choose_images(None, None, None, checkpoint, ReadOptions())
    if preprocessing.image_size <= 256:
        image = preprocessing.eval_transform().from_file(Path(PHOTO))
        with torch.no_grad():
            decode(model, model.encode(image[None]), torch.zeros(1, len(vocabulary)))


def use_weights(path: Path) -> None:
    """As train.py does."""
    try:
        find_state(read_weights(path))
    except ValueError as error:
        raise UsageError(str(error)) from None


def use_image(path: Path) -> None:
    """As a data loader does."""
    load_image(path)
    Preprocessing(32).eval_transform().from_file(path)
    Preprocessing(32).train_transform(np.random.default_rng(0)).from_file(path)


def use_card(path: Path) -> None:
    """As export.py does."""
    checkpoint = load_checkpoint(BEST)
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], str(BEST))
    write_card(checkpoint, BEST, vocabulary, 9, Path("out"))


def use_cache(path: Path) -> None:
    """As training does: a damaged one is made again."""
    files = sorted(IMAGES.iterdir())
    cache = ImageCache(path, files, 40).prepare(0)
    for file in files:
        cache[file]


def use_shards(path: Path) -> None:
    """Reads the index, then an image."""
    images = read_labels(path.parent)
    for member in find_members(path.parent, images):
        load_image(member)


def use_tagged(path: Path) -> None:
    """As sample.py does when it goes on."""
    about = read_json(Path("tagged.json"))
    labels = load_checkpoint(BEST)["vocabulary"]["labels"]
    with PredictionFiles(Path("tagged"), about, labels) as files:
        files.first(9)


def use_issues(path: Path) -> None:
    """As annotate.py does."""
    names = sorted(each.name for each in IMAGES.iterdir())
    start = read_start(Path("instances.json"), IMAGES, DEFAULTS, names)
    read_issues(path, names, start)


def use_rules(path: Path) -> None:
    """As sample.py does."""
    load_rules(path, load_checkpoint(BEST)["vocabulary"]["labels"])


def use_export(path: Path) -> None:
    """As the docstring of safetensors_io.py does."""
    restore(load_export(path.parent), path)


def use_networks(path: Path) -> None:
    """As a user of an export does; its errors are those of a script."""
    try:
        predict_onnx.main(path.parent, [Path(PHOTO)])
    except SystemExit as error:
        if error.code != 2:
            raise RuntimeError(f"exit code {error.code}") from None
        raise UsageError("exit code 2") from None


COCO = "instances.json"
NUMBERS = "--annotations numbers.csv --label_names names.txt"
DOORS = {
    "COCO json": Door(COCO, "json", build_vocab, f"--annotations {COCO} {MAKE}", labels_in(COCO)),
    "CSV": Door(
        *("labels.csv", "table", data_loader),
        f"--image_path images --annotations labels.csv {LOOK}",
        lambda path: use_labels(read_labels(path, IMAGES)),
    ),
    "JSON lines": Door(
        *("labels.jsonl", "lines", build_vocab, f"--annotations labels.jsonl {MAKE}"),
        labels_in("labels.jsonl"),
    ),
    "names of numbers": Door(
        *("names.txt", "table", build_vocab, f"{NUMBERS} {MAKE}"),
        lambda path: read_labels(Path("numbers.csv"), None, ReadOptions(label_names=path)),
    ),
    "merges": Door(
        *("merges.csv", "table", build_vocab),
        f"--annotations {COCO} --labels_to_merge merges.csv {MAKE}",
        read_merges,
    ),
    "VOC, annotation": Door(
        *("voc/Annotations/a.xml", "table", build_vocab, f"--annotations voc {MAKE}"),
        labels_in("voc"),
    ),
    "VOC, split list": Door(
        *("voc/ImageSets/Main/trainval.txt", "table", build_vocab, f"--annotations voc {MAKE}"),
        labels_in("voc"),
    ),
    "YOLO, names": Door(
        *("yolo/data.yaml", "table", build_vocab, f"--annotations yolo {MAKE}"), labels_in("yolo")
    ),
    "YOLO, labels": Door(
        *("yolo/labels/train/a.txt", "table", build_vocab, f"--annotations yolo {MAKE}"),
        labels_in("yolo"),
    ),
    "tars": Door(
        *("tars/train-000.tar", "bytes", build_vocab, f"--annotations tars {MAKE}"),
        labels_in("tars"),
    ),
    "index of tars": Door(
        *("indexed/shards.json", "json", build_vocab, f"--annotations indexed {MAKE}"),
        labels_in("indexed"),
    ),
    "index of shards": Door(
        *("shards/shards.json", "json", data_loader, f"--image_path shards {LOOK}"), use_shards
    ),
    "shards": Door(
        *("shards/shards-000000.tar", "bytes", data_loader),
        f"--image_path shards --check --bad_images out/bad.jsonl {LOOK}",
        use_shards,
    ),
    "vocabulary": Door(
        *("vocab.pkl", "pickle", train, f"{TRAIN} --vocab_path vocab.pkl --output_dir out/run"),
        use_vocabulary,
    ),
    "vocabulary, json": Door(
        *("vocab.json", "json", train, f"{TRAIN} --vocab_path vocab.json --output_dir out/run"),
        use_vocabulary,
    ),
    "leave-out list": Door(
        *("left_out.txt", "table", train),
        f"{TRAIN} --vocab_path vocab.pkl --leave_out left_out.txt --output_dir out/run",
        lambda path: without_images(read_labels(Path(COCO)), path),
    ),
    "weights": Door(
        *("weights.pt", "torch", train, f"{TRAIN} --weights weights.pt --output_dir out/run"),
        use_weights,
    ),
    "start_from": Door(
        *("other/best.pt", "torch", train),
        f"{TRAIN} --start_from other/best.pt --output_dir out/run",
        use_checkpoint,
    ),
    "last.pt": Door(
        *("run/last.pt", "torch", train),
        f"{TRAIN} --vocab_path vocab.pkl --output_dir run",
        lambda path: read_last(path.parent),
    ),
    "flags": Door(
        *("run/config.json", "json", train, "--config run/config.json --output_dir out/run"),
        lambda path: read_config(path, train.get_args_parser()),
    ),
    "side-car": Door(
        *(f"{PHOTO}.xmp", "table", sample),
        f"{PHOTO} --checkpoint run --output out --write xmp",
        use_side_car,
    ),
    "checkpoint": Door("run/best.pt", "torch", evaluate, JUDGE, use_checkpoint),
    "cache": Door("cache", "bytes", evaluate, f"{JUDGE} --cache cache", use_cache),
    "metrics.json": Door("run/metrics.json", "json", evaluate, COMPARE, read_run),
    "predictions.npz": Door(
        *("run/predictions.npz", "npz", evaluate, COMPARE),
        lambda path: read_run(path.with_name("metrics.json")),
    ),
    "metrics.json of the card": Door(
        *("run/metrics.json", "json", export, "--checkpoint run --output_dir out"), use_card
    ),
    "log.jsonl": Door(
        *("run/log.jsonl", "lines", evaluate, f"{JUDGE} --report"),
        lambda path: draw_training(read_log(path), 1),
    ),
    "images": Door(PHOTO, "image", sample, f"{PHOTO} --checkpoint run --output out", use_image),
    "rules": Door(
        *("rules.txt", "table", sample),
        f"{PHOTO} --checkpoint run --rules rules.txt --output out",
        use_rules,
    ),
    "sample.json": Door(
        *("tagged/sample.json", "json", sample),
        f"few --checkpoint run --output tagged {LOOK}",
        use_tagged,
    ),
    "predictions.jsonl": Door(
        *("tagged/predictions.jsonl", "lines", sample),
        f"few --checkpoint run --output tagged {LOOK}",
        use_tagged,
    ),
    "predictions.csv": Door(
        *("tagged/predictions.csv", "table", sample),
        f"few --checkpoint run --output tagged {LOOK}",
        use_tagged,
    ),
    "bad images": Door(
        *("bad.jsonl", "lines", data_loader),
        f"{DATA} --check --bad_images bad.jsonl {LOOK}",
        lambda path: BadImages(path).read(),
    ),
    "issues": Door(
        *("issues.csv", "table", annotate),
        f"images --annotations {COCO} --issues issues.csv --output out/c.csv",
        use_issues,
    ),
    "label list": Door(
        *("names.txt", "table", annotate, "images --label_list names.txt --output out/c.csv"),
        read_label_list,
    ),
    "confirmed labels": Door(
        *("corrected.csv", "table", annotate, "images --output corrected.csv"), read_answers
    ),
    "config.json": Door("exported/config.json", "json", None, "", use_export),
    "model.safetensors": Door("exported/model.safetensors", "bytes", None, "", use_export),
    "encoder.onnx": Door(
        *("exported/encoder.onnx", "onnx", predict_onnx, f"exported {PHOTO}"), use_networks
    ),
    "decoder_step.onnx": Door(
        *("exported/decoder_step.onnx", "onnx", predict_onnx, f"exported {PHOTO}"), use_networks
    ),
}
SCRIPTS = (annotate, build_vocab, data_loader, evaluate, export, make_shards, sample, train)
