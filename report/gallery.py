"""The images an evaluation report shows: which, and what there is to see on each.

Nothing is kept of the other images: the few that were chosen go through the encoder once more.
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

PHOTO_SIDE, HEAT_SIDE = 360, 150  # pixels at most
OTHERS_SHOWN = 3  # labels neither true nor predicted, the most probable of them
MAPS_SHOWN = 6  # of one image, its most probable predicted labels


def choose_examples(
    p: Predictions, predicted: np.ndarray, labels: tuple[str, ...], how_many: int = 8
) -> dict[str, list[tuple[int, str]]]:
    """(image, what it is an example of) for "best", "typical" and "worst".

    best     exactly right sets with the most labels, then what comes nearest to that
    worst    the annotated sets that the model found least probable
    typical  one image for each of the most frequent mistakes, that with the fewest other ones
    """
    missed, added = p.targets & ~predicted, predicted & ~p.targets
    wrong = missed.sum(1) + added.sum(1)
    size = p.targets.sum(1) + predicted.sum(1)
    f1 = (size - wrong) / np.maximum(size, 1)  # an empty set rightly predicted shows nothing
    best = np.lexsort((p.set_nll, -size, -f1))[:how_many]
    worst = np.argsort(-p.set_nll, kind="stable")[:how_many]
    typical: list[tuple[int, str]] = []
    for count, has_it, words in _frequent_mistakes(missed, added, labels):
        shown = [image for image, _ in typical]
        fitting = [i for i in np.flatnonzero(has_it) if i not in shown]
        if fitting and len(typical) < how_many:
            example = min(fitting, key=lambda i: (wrong[i], p.set_nll[i]))
            typical.append((int(example), f"{words} ({count:,} image{'s' * (count > 1)})"))
    return {
        "best": [(int(i), "exactly right" if not wrong[i] else "nearly right") for i in best],
        "typical": typical,
        "worst": [(int(i), f"set NLL {p.set_nll[i]:.1f} nats") for i in worst],
    }


def _frequent_mistakes(missed: np.ndarray, added: np.ndarray, labels: tuple[str, ...], most=24):
    """Yield (number of images, N bool which, in words), the most frequent kinds first.

    A kind of mistake is a label missed where another is added, or one of the two by itself.
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
    """The groups of `choose_examples`, with all that the page shows of each image.

    Pictures are data URIs; view is how the model sees files; paths are in the rows' order.
    """
    device = next(model.parameters()).device
    groups: dict[str, list[dict]] = {}
    for group, images in choose_examples(p, predicted, labels).items():
        groups[group] = []
        for i, caption in images:
            photo = load_image(paths[i])
            with amp:
                encoding = model.encode(view.from_file(paths[i])[None].to(device))  # 1×3×S×S
            maps = encoding.class_activation_map(0).cpu().numpy()  # C×h×w
            ranked = np.argsort(-p.marginals[i], kind="stable")
            notable = p.targets[i] | predicted[i]
            notable[ranked[~notable[ranked]][:OTHERS_SHOWN]] = True
            seen_as = [c for c in ranked if predicted[i, c]][:MAPS_SHOWN]
            groups[group].append(
                {
                    "caption": caption,
                    "file": paths[i].name,
                    "photo": data_uri(_shrink(photo, PHOTO_SIDE)),
                    "set_nll": float(p.set_nll[i]),
                    "labels": [
                        {
                            "label": labels[c],
                            "probability": float(p.marginals[i, c]),
                            "true": bool(p.targets[i, c]),
                            "predicted": bool(predicted[i, c]),
                        }
                        for c in ranked[notable[ranked]]
                    ],
                    "maps": [
                        {"label": labels[c], "picture": data_uri(overlay(photo, maps[c]))}
                        for c in seen_as
                    ],
                }
            )
    return groups


def overlay(photo: Image.Image, class_map: np.ndarray) -> Image.Image:
    """The photo, small, under a class map h×w as a heat-map from its lowest to its highest value.

    The network saw the whole picture squeezed to a square, so its map covers all of the photo.
    """
    from matplotlib import colormaps

    photo = _shrink(photo, HEAT_SIDE)
    spread = max(float(np.ptp(class_map)), 1e-6)
    heat = Image.fromarray(np.float32((class_map - class_map.min()) / spread))
    heat = np.clip(np.asarray(heat.resize(photo.size, Image.Resampling.BICUBIC)), 0, 1)  # H×W
    colours = 255 * colormaps["inferno"](heat)[..., :3]
    grey = np.asarray(photo.convert("L"), np.float32)[..., None]  # hues are the heat's alone
    share = 0.25 + 0.5 * heat[..., None]
    return Image.fromarray(np.uint8(share * colours + (1 - share) * grey))


def _shrink(photo: Image.Image, side: int) -> Image.Image:
    """A copy with no side longer than `side`."""
    copy = photo.copy()
    copy.thumbnail((side, side))
    return copy


def data_uri(picture: Image.Image, kind: str = "WEBP") -> str:
    """What an <img> can show without a file; WEBP for photos, PNG for exact pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=72)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
