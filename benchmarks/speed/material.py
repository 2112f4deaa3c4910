"""What the benchmarks run on: label sets, photo-like files, torchvision's encoder, images."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from labels.coco import read_annotations
from labels.targets import encode_targets
from labels.vocabulary import count_labels
from util.log import log

COCO = Path(__file__).resolve().parents[3] / "shared/coco2014-labels/instances_train2014.json"
NUM_LABELS = 80
LABELS_PER_IMAGE = 2.94  # mean over COCO's labelled training images


def plain_encoder(arch: str, device: torch.device) -> nn.Module:
    """torchvision's ResNet up to its last stage, with PyTorch's own convolutions."""
    resnet = getattr(torchvision.models, arch)()
    encoder = nn.Sequential(*list(resnet.children())[:-2])
    return encoder.to(device, memory_format=torch.channels_last)


def random_images(num_images: int, size: int, device: torch.device) -> Tensor:
    """N×3×S×S float32 in channels_last format, as the encoder takes them."""
    images = torch.randn(num_images, 3, size, size, device=device)
    return images.contiguous(memory_format=torch.channels_last)


def encoder_step(encoder: nn.Module, images: Tensor, amp: torch.autocast) -> None:
    """Forward and backward through an encoder."""
    encoder.zero_grad()
    with amp:
        loss = encoder(images).float().mean()
    loss.backward()


def wait(result: object = None) -> object:
    """Wait until a GPU has finished all its work; returns `result`."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def label_sets() -> Tensor:
    """N×80 bool in random order, most frequent label first.

    COCO's train2014 if it is there, otherwise random sets with similar statistics.
    """
    if COCO.exists():
        images = read_annotations(COCO)
        vocabulary = count_labels(images.label_sets, images.categories)
        sets = torch.from_numpy(encode_targets(images, vocabulary))
    else:
        log(f"{COCO} does not exist: random label sets are used instead")
        sets = random_label_sets()
    return sets[torch.randperm(len(sets), generator=torch.Generator().manual_seed(0))]


def random_label_sets() -> Tensor:
    """20,000×80 bool; labels of the same kind of scene go together."""
    rng = np.random.default_rng(0)
    rarity = np.log(np.arange(1, NUM_LABELS + 1))
    scenes = -rarity + rng.normal(0, 1.5, (12, NUM_LABELS))
    chances = 1 / (1 + np.exp(-scenes[rng.integers(12, size=20_000)]))
    chances *= LABELS_PER_IMAGE / chances.sum(1).mean()
    sets = rng.random(chances.shape) < chances
    return torch.from_numpy(sets[:, np.argsort(-sets.sum(0), kind="stable")])


def write_photos(folder: Path, label_sets: Tensor) -> tuple[Path, Path]:
    """A 640×480 JPEG for each label set; returns the image folder and the COCO json."""
    images, annotations = folder / "images", folder / "instances.json"
    images.mkdir()
    with ProcessPoolExecutor() as executor:
        list(executor.map(partial(_write_photo, images), range(len(label_sets)), chunksize=8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(len(label_sets))],
        "categories": [{"id": c, "name": f"label {c}"} for c in range(label_sets.shape[1])],
        "annotations": [
            {"image_id": i, "category_id": c} for i, c in label_sets.nonzero().tolist()
        ],
    }
    annotations.write_text(json.dumps(content))
    return images, annotations


def _write_photo(images: Path, i: int) -> None:
    rng = np.random.default_rng(i)
    coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    grain = rng.integers(-8, 9, (480, 640, 1))  # as much detail as photos of 100 KB have
    pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)) + grain
    Image.fromarray(np.uint8(pixels.clip(0, 255))).save(images / f"{i}.jpg", quality=90)
