"""A tiny data set, a run on it and all files that come with both: what is mutated."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from types import ModuleType

import make_shards
import numpy as np
from PIL import Image

import build_vocab
import evaluate
import export
import sample
import train
from annotation.store import Answer, write_answers
from images.decode import FORMATS
from images.transforms import Preprocessing
from images.xmp import EMPTY, add_tags
from inference.checkpoint import FORMAT_VERSION
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from util.compat import can_export

IMAGE_MODES = {  # suffix -> Pillow's modes
    "jpg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "RGBA", "P", "I;16", "1"),
    "gif": ("P",),
    "bmp": ("RGB",),
    "tif": ("RGB", "F", "I;16"),
    "webp": ("RGB", "RGBA"),
    "ppm": ("RGB",),
    "tga": ("RGB",),
    **({"avif": ("RGB",)} if "AVIF" in FORMATS else {}),
    "jp2": ("RGB",),
}
ORIENTATION, ROTATED = 0x0112, 6  # Exif: rotate by 90°
NUM_LABELS = 5


def write_tree(folder: Path) -> None:
    """All files that commands read, valid ones, in a new folder; the project's scripts make them.

    Call it with tiny_resnet in the place of torchvision's ResNet-18. Changes the working folder.
    Where torch cannot export the networks, those of export.py are missing.
    """
    os.chdir(folder)
    write_images(Path("images"))
    write_labels(sorted(path.name for path in Path("images").iterdir()))
    write_voc(Path("voc"))
    write_yolo(Path("yolo"))
    write_tar(Path("tars"))
    quick = ("--num_workers", 0, "--batch_size", 8, "--device", "cpu", "--amp", "off")
    data = ("--image_path", "images", "--annotations", "instances.json")
    call(build_vocab, *data[2:], "--vocab_path", "vocab.pkl")
    call(build_vocab, *data[2:], "--vocab_path", "vocab.json")
    tiny = ("--image_size", 40, "--num_epochs", 1, "--embed_size", 4, "--hidden_size", 4)
    call(train, *data, *quick, *tiny, "--vocab_path", "vocab.pkl", "--output_dir", "run")
    judge = (*data, *quick, "--checkpoint", "run", "--output_dir", "run", "--num_samples", 8)
    call(evaluate, *judge, "--split", "all", "--cache", "cache", "--label_issues", 5)
    shutil.copytree("run", "other")
    call(sample, "few", "--checkpoint", "run", "--output", "tagged", "--num_workers", 0)
    copy_inputs()
    call(make_shards, *data, "--output_dir", "shards")
    if can_export():
        call(export, "--checkpoint", "run", "--output_dir", "exported")
    lines = [json.dumps({"image": f"images/{i}.jpg", "reason": "damaged"}) for i in range(3)]
    Path("bad.jsonl").write_text("".join(f"{line}\n" for line in lines))


def copy_inputs() -> None:
    """Copies of what the scripts wrote, where doors.py has them, and a table of annotate.py."""
    shutil.copy("run/best.pt", "weights.pt")
    shutil.copy("run/label_issues.csv", "issues.csv")
    shutil.copy("tagged/sample.json", "tagged.json")
    shutil.copytree("tars", "indexed")
    Path("few/00.jpg.xmp").write_bytes(add_tags(EMPTY, ["label 0", "a & b"]))
    call(build_vocab, "--annotations", "indexed", "--vocab_path", "out/v.pkl")
    names = sorted(path.name for path in Path("few").iterdir())
    write_answers(Path("corrected.csv"), {name: Answer(("dog",), True) for name in names})


def tiny_checkpoint() -> dict:
    """The content of a checkpoint whose network has random weights."""
    labels = tuple(f"label {i}" for i in range(NUM_LABELS))
    vocabulary = Vocabulary(labels, (9, 8, 7, 6, 5), num_images=20)
    settings = settings_of({"embed_size": 4, "hidden_size": 4, "stages": 2})
    return {
        "format": FORMAT_VERSION,
        "commit": "an older one",
        "model": settings,
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": Preprocessing(32).to_dict(),
        "weights": HybridNet(num_labels=NUM_LABELS, **settings).state_dict(),
        "temperature": 1.2,
        "prior_weight": 0.1,
        "threshold": 0.4,
        "label_thresholds": [0.4] * NUM_LABELS,
        "epoch": 3,
        "metrics": {"val_mAP": 20.0},
        "selected_on": "a hold-out of 3 training images",
        "flags": {"annotations": "data/x.json", "amp": "off", "device": "cpu", "seed": 0},
    }


def call(module: ModuleType, *args: object) -> None:
    """Run a script in this process."""
    module.main(module.get_args_parser().parse_args([str(a) for a in args]))


def write_labels(names: list[str]) -> None:
    """Labels of the images in several formats, and lists that go with them."""
    labels = tuple(f"label {i}" for i in range(NUM_LABELS))
    sets = [sorted({i % NUM_LABELS, (i * i) % NUM_LABELS}) for i in range(len(names))]
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels)],
        "annotations": [
            {"id": i * NUM_LABELS + c, "image_id": i, "category_id": c, "bbox": [1, 2, 9, 9]}
            for i, found in enumerate(sets)
            for c in found
        ],
    }
    Path("instances.json").write_text(json.dumps(coco))
    rows = [(name, [labels[c] for c in found]) for name, found in zip(names, sets, strict=True)]
    lines = [f"{name},{'|'.join(found)}\n" for name, found in rows]
    Path("labels.csv").write_text("file_name,labels\n" + "".join(lines))
    lines = [json.dumps({"file_name": name, "labels": found}) + "\n" for name, found in rows]
    Path("labels.jsonl").write_text("".join(lines))
    lines = [f"{name},{found[0]}\n" for name, found in zip(names, sets, strict=True)]
    Path("numbers.csv").write_text("file_name,labels\n" + "".join(lines))
    Path("names.txt").write_text("".join(f"{label}\n" for label in labels))
    Path("merges.csv").write_text("from,to\nlabel 4,label 0\nlabel 3,label 1\n")
    Path("rules.txt").write_text('"label 1" -> "label 0"\nat most one of: label 2, label 3\n')
    Path("left_out.txt").write_text("".join(f"{name}\n" for name in names[:3]))
    Path("few").mkdir()
    for name in names[:2]:
        shutil.copy(Path("images", name), Path("few", name))


def write_voc(folder: Path) -> None:
    """Two pictures in PASCAL VOC's layout, with a list of a split."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (32, 24), "red").save(folder / f"JPEGImages/{name}.jpg")
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        objects = "".join(f"<object><name>{n}</name>{box}</object>" for n in ("dog", name))
        about = f"<filename>{name}.jpg</filename><size><width>32</width><height>24</height></size>"
        text = f"<annotation>{about}{objects}</annotation>"
        (folder / f"Annotations/{name}.xml").write_text(text)
    (folder / "ImageSets/Main/trainval.txt").write_text("a\nb\n")


def write_yolo(folder: Path) -> None:
    """Two pictures in YOLO's layout."""
    for part in ("images/train", "labels/train"):
        (folder / part).mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images/train\nnames: [dog, cat]\n")
    for number, name in enumerate(("a", "b")):
        Image.new("RGB", (32, 24), "red").save(folder / f"images/train/{name}.jpg")
        (folder / f"labels/train/{name}.txt").write_text(f"{number} 0.5 0.5 0.2 0.3\n")


def write_tar(folder: Path) -> None:
    """Two samples of a WebDataset that was made elsewhere."""
    folder.mkdir()
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for name in ("a", "b"):
            picture = io.BytesIO()
            Image.new("RGB", (32, 24), "red").save(picture, "JPEG")
            for suffix, data in (("jpg", picture.getvalue()), ("cls", b"dog")):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_images(folder: Path) -> list[tuple[str, bytes]]:
    """An image of random pixels for each suffix and mode; returns (suffix, content) of each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    images = []
    for suffix, modes in IMAGE_MODES.items():
        for mode in modes:
            pixels = rng.integers(0, 255, (24, 32, 3), np.uint8)
            if mode == "I;16":
                image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
            else:
                image = Image.fromarray(pixels).convert(mode)
            extra = {}
            if suffix in ("jpg", "png", "webp"):
                extra["exif"] = Image.Exif()
                extra["exif"][ORIENTATION] = ROTATED
            if suffix == "gif":
                extra = {"save_all": True, "append_images": [image.rotate(90)]}
            path = folder / f"{len(images):02d}.{suffix}"
            image.save(path, **extra)
            images.append((suffix, path.read_bytes()))
    return images
