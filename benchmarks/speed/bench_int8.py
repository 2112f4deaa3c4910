"""onnxruntime with an encoder in 8-bit integers or float16, against the same in float32.

The weights are random and the ranges are measured on noise: the time does not depend on either.
What int8 does to the metrics is in export.py's own table, which needs a trained model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from timing import Ratio, side_by_side

from deploy.onnx_export import metadata, open_session, to_onnx
from deploy.precision import to_float16, to_int8
from images.transforms import Preprocessing
from labels.vocabulary import Vocabulary
from model import HybridNet
from util.log import log

ARCHS, LABELS, SIZE = ("resnet18", "resnet50"), 80, 224
IMAGES, ROUNDS = 16, 9


def measure() -> Iterator[Ratio]:
    """Two rows for each encoder, on the CPU."""
    vocabulary = Vocabulary(tuple(map(str, range(LABELS))), (1,) * LABELS, LABELS)
    constants = metadata({"decoder": "chain"}, vocabulary, Preprocessing(SIZE), 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, SIZE, SIZE), np.uint8)
    inputs = {"images": pixels}
    for arch in ARCHS:
        torch.manual_seed(0)
        model = HybridNet(LABELS, arch).eval().requires_grad_(False)
        encoder = to_onnx(model, constants)["encoder"]
        smaller = {"int8": to_int8(encoder, [pixels[:4]]), "float16": to_float16(encoder)}
        before = open_session(encoder)
        for name, data in smaller.items():
            after, target = open_session(data), 1.8 if name == "int8" else None
            log(f"{arch}: {len(encoder) / 1e6:.1f} MB, {name} {len(data) / 1e6:.1f} MB")
            yield side_by_side(
                f"onnxruntime, {arch}, {SIZE} px, {name} : float32",
                lambda network=after: network.run(None, inputs),
                lambda network=before: network.run(None, inputs),
                rounds=ROUNDS,
                at_least=target,
            ).with_rates(IMAGES)
