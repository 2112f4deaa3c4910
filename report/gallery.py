"""The example images of report.html: which ones, and what is shown for each.

Evaluation keeps no encodings, so the few chosen images go through the encoder once more.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from images.decode import load_image
from images.transforms import Transform
from inference.predictions import Predictions
from model import HybridNet

PHOTO_SIDE, MAP_SIDE = 360, 150  # longest side in pixels
OTHERS_SHOWN = 3  # most probable labels that are neither annotated nor predicted
MAPS_SHOWN = 6  # class activation maps per image, of its most probable predicted labels


def choose_examples(
    p: Predictions, predicted: np.ndarray, labels: tuple[str, ...], how_many: int = 8
) -> dict[str, list[tuple[int, str]]]:
    """Choose images for "best", "typical" and "worst": group -> [(row, caption)].

    best     sets that are exactly right, largest first; then the sets of the highest F1
    worst    images whose annotated set the model finds least probable
    typical  for each frequent mistake, the image with the fewest other errors

    predicted: N×C bool.
    """
    missed, added = p.targets & ~predicted, predicted & ~p.targets
    wrong = missed.sum(1) + added.sum(1)
    size = p.targets.sum(1) + predicted.sum(1)
    f1 = (size - wrong) / np.maximum(size, 1)  # 0 for empty sets: they show nothing
    best = np.lexsort((p.set_nll, -size, -f1))[:how_many]
    worst = np.argsort(-p.set_nll, kind="stable")[:how_many]
    typical: list[tuple[int, str]] = []
    for count, has_mistake, words in _frequent_mistakes(missed, added, labels):
        shown = [image for image, _ in typical]
        candidates = [i for i in np.flatnonzero(has_mistake) if i not in shown]
        if candidates and len(typical) < how_many:
            example = min(candidates, key=lambda i: (wrong[i], p.set_nll[i]))
            typical.append((int(example), f"{words} ({count:,} image{'s' * (count > 1)})"))
    return {
        "best": [(int(i), "exactly right" if not wrong[i] else "nearly right") for i in best],
        "typical": typical,
        "worst": [(int(i), f"set NLL {p.set_nll[i]:.1f} nats") for i in worst],
    }


def _frequent_mistakes(missed: np.ndarray, added: np.ndarray, labels: tuple[str, ...], most=24):
    """Yield (number of images, which images: N bool, description), the most frequent first.

    A mistake is a label missed while another is added, only a label missed, or only one added.
    """
    only_missed = missed & ~added.any(1, keepdims=True)
    only_added = added & ~missed.any(1, keepdims=True)
    pairs = missed.T.astype(np.float32) @ added  # C×C  images with both
    counts = np.concatenate([pairs.ravel(), only_missed.sum(0), only_added.sum(0)]).astype(int)
    num_labels = len(labels)
    for kind in np.argsort(-counts, kind="stable")[:most]:
        row, column = divmod(int(kind), num_labels)
        if not counts[kind]:
            return
        if row < num_labels:
            which = missed[:, row] & added[:, column]
            words = f"“{labels[column]}” in place of “{labels[row]}”"
        elif row == num_labels:
            which, words = only_missed[:, column], f"“{labels[column]}” missed"
        else:
            which, words = only_added[:, column], f"“{labels[column]}” added"
        yield int(counts[kind]), which, words


@torch.no_grad()
def draw_gallery(
    p: Predictions,
    predicted: np.ndarray,
    labels: tuple[str, ...],
    paths: list[Path],
    model: HybridNet,
    view: Transform,
    amp: torch.autocast,
) -> dict[str, list[dict]]:
    """The groups of `choose_examples`, with everything the page shows for each image.

    Pictures are data URIs. predicted: N×C bool. paths: N image files. view: the test transform.
    """
    device = next(model.parameters()).device
    groups: dict[str, list[dict]] = {}
    for group, images in choose_examples(p, predicted, labels).items():
        groups[group] = []
        for i, caption in images:
            with amp:
                encoding = model.encode(view.from_file(paths[i])[None].to(device))  # 1×3×S×S
            maps = encoding.class_activation_map(0).cpu().numpy()  # C×h×w
            photo = load_image(paths[i])
            ranked = np.argsort(-p.marginals[i], kind="stable")
            mapped = [c for c in ranked if predicted[i, c]][:MAPS_SHOWN]
            groups[group].append(
                {
                    "caption": caption,
                    "file": paths[i].name,
                    "photo": data_uri(_shrink(photo, PHOTO_SIDE)),
                    "labels": _label_bars(p.targets[i], predicted[i], p.marginals[i], labels),
                    "maps": [
                        {"label": labels[c], "picture": data_uri(overlay(photo, maps[c]))}
                        for c in mapped
                    ],
                }
            )
    return groups


def _label_bars(
    true: np.ndarray, predicted: np.ndarray, marginals: np.ndarray, labels: tuple[str, ...]
) -> list[dict[str, object]]:
    """An image's annotated and predicted labels, and the best others, most probable first.

    true, predicted, marginals: C values each, of one image.
    """
    ranked = np.argsort(-marginals, kind="stable")
    shown = true | predicted
    shown[ranked[~shown[ranked]][:OTHERS_SHOWN]] = True
    return [
        {
            "label": labels[c],
            "probability": float(marginals[c]),
            "true": bool(true[c]),
            "predicted": bool(predicted[c]),
        }
        for c in ranked[shown[ranked]]
    ]


def overlay(photo: Image.Image, class_map: np.ndarray) -> Image.Image:
    """A small grey photo with a class activation map h×w on top, from dark (low) to bright (high).

    The network sees the whole image resized to a square, so the map covers the whole photo.
    """
    from matplotlib import colormaps

    photo = _shrink(photo, MAP_SIDE)
    spread = max(float(np.ptp(class_map)), 1e-6)
    heat = Image.fromarray(np.float32((class_map - class_map.min()) / spread))
    heat = np.clip(np.asarray(heat.resize(photo.size, Image.Resampling.BICUBIC)), 0, 1)  # H×W
    colours = 255 * colormaps["inferno"](heat)[..., :3]
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]  # all colour comes from the map
    share = 0.25 + 0.5 * heat[..., None]
    return Image.fromarray(np.uint8(share * colours + (1 - share) * grey))


def _shrink(photo: Image.Image, side: int) -> Image.Image:
    """A copy with no side longer than `side`."""
    copy = photo.copy()
    copy.thumbnail((side, side))
    return copy


def data_uri(picture: Image.Image, kind: str = "WEBP", quality: int = 72) -> str:
    """A picture as text for <img src>: WEBP for photos, PNG for exact pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
