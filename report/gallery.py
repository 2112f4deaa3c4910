"""The photos of report.html: which ones, and what is shown for each.

The page holds every photo once, and its size has a limit: of a small set it holds all photos, of
a large one those that show the best and worst results and each label's hits and errors.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evaluation.ranking import only_known
from images.decode import load_pixels
from images.shards import ShardMember
from images.transforms import Transform
from inference.predictions import Predictions
from model import HybridNet
from util.log import log

MOST_PHOTOS = 480
PER_LABEL = 24  # misses of each label, and as many hits and false alarms, if there is room
PHOTO_LETTERS = 9_000_000  # of all photos together, as text in the page
MAX_SIDE, MIN_SIDE, MAP_SIDE = 960, 96, 150  # longest side in pixels
LETTERS_PER_PIXEL = 0.2  # of a photo as text, about
OTHERS_SHOWN = 3  # most probable labels that are neither annotated nor predicted
MAPS_SHOWN = 6  # class activation maps per image, of its most probable predicted labels


def choose_examples(
    p: Predictions, predicted: np.ndarray, labels: tuple[str, ...], how_many: int = 8
) -> dict[str, list[tuple[int, str]]]:
    """Choose images for "best", "typical" and "worst": group -> [(row, caption)].

    best     sets that are exactly right, largest first; then the sets of the highest F1
    worst    those with errors whose annotated set the model finds least probable
    typical  for each frequent mistake, the image with the fewest other errors

    predicted: N×C bool, without labels that are not known of their image.
    """
    missed, added = p.targets & ~predicted, predicted & ~p.targets
    wrong = missed.sum(1) + added.sum(1)
    size = p.targets.sum(1) + predicted.sum(1)
    f1 = (size - wrong) / np.maximum(size, 1)  # 0 for empty sets: they show nothing
    best = [i for i in np.lexsort((p.set_nll, -size, -f1))[:how_many] if f1[i]]
    worst = [i for i in np.argsort(-p.set_nll, kind="stable") if wrong[i]][:how_many]
    typical: list[tuple[int, str]] = []
    for count, has_mistake, words in _frequent_mistakes(missed, added, labels):
        shown = [image for image, _ in typical]
        candidates = [i for i in np.flatnonzero(has_mistake) if i not in shown]
        if candidates and len(typical) < how_many:
            example = min(candidates, key=lambda i: (wrong[i], p.set_nll[i]))
            typical.append((int(example), f"{words} ({count:,} photo{'s' * (count > 1)})"))
    return {
        "best": [(int(i), "all right" if not wrong[i] else "one of the best") for i in best],
        "typical": typical,
        "worst": [(int(i), "one of the worst") for i in worst],
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


def choose_photos(
    p: Predictions, predicted: np.ndarray, first: Iterable[int], most: int = MOST_PHOTOS
) -> list[int]:
    """The rows of the photos on the page: `first`, then all others, or those that show the labels.

    Of more than `most` photos, each label gets up to PER_LABEL misses (the least probable ones),
    false alarms and hits (the most probable ones). Rare labels come first: photos of the frequent
    ones are chosen along with them. predicted: N×C bool, as in `choose_examples`.
    """
    chosen = dict.fromkeys(first)
    if len(p.targets) <= most:
        return list(chosen | dict.fromkeys(range(len(p.targets))))
    kinds = (p.targets & ~predicted, predicted & ~p.targets, p.targets & predicted)
    shown = np.array([kind[list(chosen)].sum(0) for kind in kinds])  # 3×C
    wanted = {
        (k, c): _most_extreme(kind[:, c], p.marginals[:, c], lowest=k == 0)
        for c in np.argsort(p.targets.sum(0), kind="stable")
        for k, kind in enumerate(kinds)
    }
    for so_many in range(1, PER_LABEL + 1):
        for (k, c), rows in wanted.items():
            for i in rows:
                if shown[k, c] >= so_many or len(chosen) >= most:
                    break
                if i not in chosen:
                    chosen[i] = None
                    shown += [kind[i] for kind in kinds]
    return list(chosen)


def _most_extreme(which: np.ndarray, scores: np.ndarray, lowest: bool) -> list[int]:
    """Up to PER_LABEL of the rows where `which`, N bool, with the lowest or highest scores N."""
    rows = np.flatnonzero(which)
    ranked = np.argsort(scores[rows] if lowest else -scores[rows], kind="stable")
    return rows[ranked[:PER_LABEL]].tolist()


def draw_gallery(
    p: Predictions,
    predicted: np.ndarray,
    labels: tuple[str, ...],
    paths: list[Path] | list[ShardMember],
    models: Sequence[HybridNet],
    view: Transform,
    amp: torch.autocast,
) -> list[dict]:
    """The photos of `choose_photos`, those of `choose_examples` first: what the page shows of each.

    Pictures are data URIs. predicted: N×C bool. paths: N image files. models: N, those that
    predicted them. view: the test transform. Only examples have captions and class activation maps.
    """
    judged = only_known(predicted, p.known)
    groups = choose_examples(p, judged, labels)
    captions = {i: caption for group in reversed(groups.values()) for i, caption in group}
    # the page begins with a good photo, two mistakes and a bad one
    ranked = [groups["best"][:1], groups["typical"][:2], groups["worst"][:1], *groups.values()]
    rows = choose_photos(p, judged, [i for group in ranked for i, _ in group])
    log(f"drawing {len(rows):,} of the {len(paths):,} photos for the report")
    letters = PHOTO_LETTERS // len(rows)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        pictures = pool.map(lambda i: fit_photo(_load(paths[i], MAX_SIDE), letters), rows)
        photos = [
            {
                "path": paths[i],
                "picture": picture,
                "caption": captions.get(i, ""),
                "labels": _label_bars(p.select([i]), predicted[i], labels),
                "maps": [],
            }
            for i, picture in zip(rows, pictures, strict=True)
        ]
    for i, photo in zip(rows, photos, strict=True):
        if i in captions:
            ranked = [c for c in np.argsort(-p.marginals[i], kind="stable") if predicted[i, c]]
            photo["maps"] = _draw_maps(paths[i], ranked[:MAPS_SHOWN], labels, models[i], view, amp)
    return photos


def _load(path: Path | ShardMember, side: int) -> Image.Image:
    """An image file, perhaps decoded at less than its size, but not below `side`."""
    return Image.fromarray(load_pixels(path, side))


@torch.no_grad()
def _draw_maps(
    path: Path | ShardMember,
    mapped: list[int],
    labels: tuple[str, ...],
    model: HybridNet,
    view: Transform,
    amp: torch.autocast,
) -> list[dict[str, str]]:
    """Class activation maps of an image's labels `mapped`.

    Evaluation keeps no encodings, so the image goes through the encoder once more.
    """
    device = next(model.parameters()).device
    with amp:
        encoding = model.encode(view.from_file(path)[None].to(device))  # 1×3×S×S
    maps, photo = encoding.class_activation_map(0).cpu().numpy(), _load(path, MAP_SIDE)
    return [{"label": labels[c], "picture": data_uri(overlay(photo, maps[c]))} for c in mapped]


def _label_bars(
    p: Predictions, predicted: np.ndarray, labels: tuple[str, ...]
) -> list[dict[str, object]]:
    """An image's annotated and predicted labels, and the best others, most probable first.

    p, predicted (C bool): of one image. The truth of a predicted label may be "unknown".
    """
    true, marginals = p.targets[0], p.marginals[0]
    known = np.ones(len(true), bool) if p.known is None else p.known[0]
    ranked = np.argsort(-marginals, kind="stable")
    shown = true | predicted
    shown[ranked[~shown[ranked]][:OTHERS_SHOWN]] = True
    kinds = {(1, 1, 1): "right", (1, 0, 1): "missed", (0, 1, 1): "added", (0, 1, 0): "unknown"}
    return [
        {
            "rank": int(c),
            "label": labels[c],
            "probability": float(marginals[c]),
            "kind": kinds.get((true[c], predicted[c], known[c]), "other"),
        }
        for c in ranked[shown[ranked]]
    ]


def fit_photo(photo: Image.Image, letters: int) -> str:
    """A data URI of at most `letters` characters, unless that needs fewer than MIN_SIDE pixels."""
    longest, area = max(photo.size), photo.width * photo.height
    side = min(MAX_SIDE, longest, longest * math.sqrt(letters / (LETTERS_PER_PIXEL * area)))
    while True:
        side = max(int(side), MIN_SIDE)
        uri = data_uri(_shrink(photo, side))
        if len(uri) <= letters or side == MIN_SIDE:
            return uri
        side *= min(0.9, math.sqrt(letters / len(uri)))


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
