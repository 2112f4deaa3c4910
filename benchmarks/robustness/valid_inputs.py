"""A tiny data set, vocabulary and checkpoint: what the mutated inputs are made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from images.transforms import Preprocessing
from inference.checkpoint import FORMAT_VERSION
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of

IMAGE_MODES = {  # suffix -> Pillow's modes
    "jpg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "RGBA", "P", "I;16", "1"),
    "gif": ("P",),
    "bmp": ("RGB",),
    "tif": ("RGB", "F", "I;16"),
    "webp": ("RGB", "RGBA"),
    "ppm": ("RGB",),
    "tga": ("RGB",),
    "avif": ("RGB",),
    "jp2": ("RGB",),
}
ORIENTATION, ROTATED = 0x0112, 6  # Exif: rotate by 90°
NUM_LABELS = 5


def tiny_resnet(weights: object = None) -> nn.Module:
    """Replaces torchvision's ResNet-18: the same parts, but only a few hundred weights."""
    net = nn.Module()
    net.conv1, net.bn1, net.relu = nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU()
    net.maxpool = nn.MaxPool2d(2)
    net.layer1, net.layer2 = nn.Conv2d(8, 1, 1), nn.Conv2d(1, 2, 1)
    net.layer3, net.layer4 = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 1)
    net.fc = nn.Linear(8, 10)
    return net


def write_valid(folder: Path) -> dict:
    """Write images, annotations and a checkpoint to `folder`; returns the content of each kind."""
    images = write_images(folder / "images")
    names = sorted(p.name for p in (folder / "images").iterdir())
    labels = tuple(f"label {i}" for i in range(NUM_LABELS))
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": label} for i, label in enumerate(labels)],
        "annotations": [
            {"id": i, "image_id": i % len(names), "category_id": i % NUM_LABELS} for i in range(40)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(coco))
    vocabulary = Vocabulary(labels, (9, 8, 7, 6, 5), num_images=20)
    settings = settings_of({"embed_size": 4, "hidden_size": 4, "stages": 2})
    checkpoint = {
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
    torch.save(checkpoint, folder / "best.pt")
    return {
        "annotations": coco,
        "vocabulary": vocabulary.to_dict(),
        "checkpoint": checkpoint,
        "images": images,
    }


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
