"""The size of report.html and of label_influence.png: many images, many labels, long names."""

import contextlib
import csv
import tracemalloc

import numpy as np
import pytest
from conftest import write_picture
from PIL import Image

from evaluation import metrics
from evaluation.calibration import calibration_bins
from evaluation.metrics import SET_METRICS, label_set_sizes
from images.transforms import Preprocessing
from inference.predictions import DECISIONS, Predictions
from model import HybridNet
from report.gallery import draw_gallery, fit_photo
from report.influence import DRAWN, draw_influence
from report.page import write_report


def made_up_results(num_images: int, num_labels: int) -> dict:
    """The part of metrics.json that does not follow from the predictions below."""
    halves = {rule: dict.fromkeys(SET_METRICS, 50.0) for rule in DECISIONS}
    pairs = {rule: {name: [0.0, 1.0] for name in SET_METRICS} for rule in halves}
    return {
        **{"checkpoint": "best.pt", "epoch": 1, "decoder": "chain", "annotations": "val.json"},
        **{"name": "made up", "split": "val", "folds": None, "leak": ""},
        **{"num_images": num_images, "protocol": "images with labels", "decide": "threshold"},
        **{"set_nll": 1.0, "mAP": 50.0, "mAP_labels": num_labels, "mAP@10": 50.0, "ECE": 1.0},
        **{"threshold": 0.5, "threshold_fitted_on": "a hold-out", "map_certain": 99.0},
        **{"command": "python evaluate.py", "num_samples": 128, "predicted_sets": halves},
        "intervals": {"set_nll": [0.0, 1.0], "mAP": [0.0, 1.0], "predicted_sets": pairs},
    }


@pytest.mark.parametrize(("num_images", "num_labels"), [(40_137, 80), (1500, 1000)])
def test_large_results_make_a_small_page(tmp_path, monkeypatch, num_images, num_labels):
    """COCO's 40,137 images and 80 labels; 1,000 labels: file size and memory.

    Every photo takes all the room that it may.
    """
    monkeypatch.setattr("report.gallery.fit_photo", lambda photo, letters: letters * "x")
    rng = np.random.default_rng(0)
    share = np.geomspace(0.2, 0.002, num_labels) * 80 / num_labels
    targets = rng.random((num_images, num_labels)) < share
    scores = (0.6 * targets + 0.6 * rng.random(targets.shape)).astype(np.float32)
    predicted = (scores > 0.5) & (targets | (rng.random(targets.shape) < 0.1))
    labels = tuple(f"label {c}" for c in range(num_labels))
    p = Predictions(targets, scores, predicted, predicted, targets.any(1), scores.sum(1))
    paths = [write_picture(tmp_path / "photo.jpg")] * num_images
    model = HybridNet(num_labels, label_logits=[0.0] * num_labels, embed_size=8).eval()
    view, amp = Preprocessing(64).eval_transform(), contextlib.nullcontext()
    tracemalloc.start()
    gallery = draw_gallery(p, predicted, labels, paths, [model] * len(paths), view, amp)
    results = made_up_results(num_images, num_labels) | {
        "per_label": metrics.per_label(labels, targets, scores, predicted),
        "calibration": calibration_bins(targets, scores),
        "label_set_sizes": label_set_sizes(targets, {"threshold": predicted}),
    }
    log = tmp_path / "none.jsonl"
    write_report(results, p, predicted, gallery, log, "", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "report.html").stat().st_size
    assert 9e6 < size < 15e6
    with (tmp_path / "pr_curves.csv").open(encoding="utf-8-sig") as file:
        assert sum(1 for _ in csv.reader(file)) <= targets.sum() + 1
    assert peak < 600e6


@pytest.mark.parametrize("size", [(400, 300), (64, 48), (3000, 2), (1, 1), (2000, 2000)])
@pytest.mark.parametrize("letters", [20_000, 100_000])
def test_a_photo_fits_and_is_as_large_as_it_may_be(size, letters):
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    smooth = Image.fromarray(noise).resize((max(size[0] // 8, 1), max(size[1] // 8, 1)))
    for photo in (Image.fromarray(noise), smooth.resize(size)):
        uri = fit_photo(photo, letters)
        assert uri.startswith("data:image/webp;base64,")
        assert len(uri) <= letters
        assert len(uri) > letters / 5 or min(size) <= 300


@pytest.mark.parametrize("num_labels", [1, 42, 90, 1000])
def test_the_influence_has_room_for_names(tmp_path, num_labels):
    """Nothing touches the edge of the picture, and many labels need no larger one than DRAWN."""
    rng = np.random.default_rng(0)
    ratio = np.tril(rng.normal(size=(num_labels, num_labels)), -1)
    labels = [f"{c} a very long name, much longer than others {'x' * c}" for c in range(num_labels)]
    draw_influence(ratio + ratio.T, ratio + ratio.T, labels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()
    assert pixels.shape[1] < 130 * 2 * (0.13 * DRAWN + 4)
