"""The pointing game on drawn squares, where the right answer is known."""

import json

import msgspec
import numpy as np
import pytest
import torch
from conftest import call, coco, refusal, write_json
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn import functional as F

import evaluate
from evaluation.pointing import contains, map_peaks, pointing_game, read_label_objects
from images.transforms import Preprocessing
from labels.coco import CocoObject
from labels.options import ReadOptions
from labels.read import read_labels
from labels.vocabulary import count_labels
from model import Encoding
from util.errors import UsageError

WIDTH, HEIGHT = 96, 64
SQUARE = [66, 8, 16, 16]  # x, y, width, height: in the upper right of the picture


def make_object(bbox=None, segmentation=None, size=(WIDTH, HEIGHT), label="square") -> CocoObject:
    raw = msgspec.Raw(json.dumps(segmentation).encode())
    return CocoObject(label, bbox, False, size, "val.json: annotations[0]", raw)


def draw_square(path, orientation: int = 1, bbox=SQUARE) -> None:
    """A white square on black, stored as it is, with EXIF's orientation beside it."""
    left, top, width, height = bbox
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[top : top + height, left : left + width] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def bright_peak(path) -> np.ndarray:
    """1×1×2: the peak of a class activation map that is high where the picture is bright."""
    image = Preprocessing(48).eval_transform().from_file(path).float().mean(0)
    class_map = F.avg_pool2d(image[None, None], 4)  # 1×1×12×12
    return map_peaks(Encoding(torch.zeros(1, 0), torch.zeros(1, 1), [class_map]))


def play(peaks, path, *objects) -> dict:
    rows = [{"square": list(objects)}]
    return pointing_game(peaks, np.ones((1, 1), bool), rows, [path], ("square",))


def test_the_peak_is_the_centre_of_the_highest_cell():
    fine, coarse = torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 4, 2)
    fine[1, 2, 6, 1] = 5
    coarse[0, 0, 1, 1] = 1
    peaks = map_peaks(Encoding(torch.zeros(2, 0), torch.zeros(2, 3), [fine, coarse]))
    assert peaks.shape == (2, 3, 2)
    assert peaks[1, 2].tolist() == [1.5 / 4, 6.5 / 8]
    x, y = peaks[0, 0]
    assert x > 0.5
    assert 0.25 < y < 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_peak_on_the_square_hits_in_every_exif_orientation(tmp_path, orientation):
    """The network sees the picture upright; the box refers to the pixels as stored."""
    path = tmp_path / "square.png"
    draw_square(path, orientation)
    for thing in (make_object(SQUARE), make_object(SQUARE, size=None)):
        found = play(bright_peak(path), path, thing)
        assert found["peak"] == {"all_pairs": 100, "label_mean": 100}
        assert found["centre"] == {"all_pairs": 0, "label_mean": 0}
    elsewhere = make_object([4, 40, 16, 16])
    assert play(bright_peak(path), path, elsewhere)["peak"]["all_pairs"] == 0


def test_a_box_of_the_upright_picture_is_told_by_its_sides(tmp_path):
    """Orientation 6 is a quarter turn clockwise: stored (x, y) is upright (height - y, x)."""
    path = tmp_path / "square.png"
    draw_square(path, orientation=6)
    x, y, side, _ = SQUARE
    upright = make_object([HEIGHT - y - side, x, side, side], size=(HEIGHT, WIDTH))
    assert play(bright_peak(path), path, upright)["peak"]["all_pairs"] == 100


def test_a_shifted_map_misses(tmp_path):
    path = tmp_path / "square.png"
    draw_square(path)
    peak = bright_peak(path)
    assert play(peak, path, make_object(SQUARE))["peak"]["all_pairs"] == 100
    for shift in ([0.25, 0], [-0.25, 0], [0, 0.4]):
        found = play(peak + np.float32(shift), path, make_object(SQUARE))
        assert found["peak"]["all_pairs"] == 0


def test_a_mask_counts_before_a_box():
    """A triangle fills half of its box."""
    corners = [10, 10, 50, 10, 10, 50]
    box, size = [10, 10, 40, 40], (WIDTH, HEIGHT)
    inside, beside = (15 / WIDTH, 20 / HEIGHT), (45 / WIDTH, 45 / HEIGHT)
    runs = coco_mask.merge(coco_mask.frPyObjects([corners], HEIGHT, WIDTH))
    pixels = coco_mask.decode(runs).ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
    counts = np.diff([0, *ends, pixels.size]).tolist()
    masks = (
        [corners],
        {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
    )
    assert contains(make_object(box), *beside, size)
    for mask in masks:
        for thing in (make_object(box, mask), make_object(None, mask)):
            assert contains(thing, *inside, size)
            assert not contains(thing, *beside, size)
            assert not contains(thing, 0.9, 0.9, size)


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        ({"size": [3, 3], "counts": [9]}, "another size"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 6]}, "another size"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPYo1"}, "cannot be decoded"),
        ([[0, 0, 1e9, 0, 0, 1e9]], "far outside"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, what):
    with pytest.raises(UsageError, match=what) as caught:
        contains(make_object(None, mask), 0.5, 0.5, (WIDTH, HEIGHT))
    assert "annotations[0]" in str(caught.value)


def test_accuracies_per_label_and_in_all(tmp_path):
    """Two labels on three images: a hits 2 of 3, b hits 0 of 1; one pair has no place."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        draw_square(path)
    here, placeless = make_object(SQUARE), make_object()
    rows = [{"a": [make_object([0, 0, 4, 4]), here], "b": [here]}, {"a": [here], "b": [placeless]}]
    rows.append({"a": [here]})
    targets = np.array([[1, 1], [1, 1], [1, 0]], bool)
    on, off = (74 / WIDTH, 16 / HEIGHT), (0.1, 0.9)
    peaks = np.array([[on, off], [on, on], [off, on]], np.float32)
    found = pointing_game(peaks, targets, rows, paths, ("a", "b"))
    assert found["pairs"] == 4
    assert found["peak"] == {"all_pairs": 50, "label_mean": pytest.approx(100 / 3)}
    assert found["per_label"] == [
        {"label": "a", "pairs": 3, "peak": pytest.approx(200 / 3), "centre": 0},
        {"label": "b", "pairs": 1, "peak": 0, "centre": 0},
    ]


def test_evaluate_pointing(trained, workdir, capsys):
    """With boxes of the whole picture every pair hits; with boxes of a corner not one centre."""
    best = ("--checkpoint", trained.output / "best.pt", "--image_path", "data/images")
    flags = (*best, "--output_dir", "o", "--num_workers", 0, "--pointing", "--split", "all")
    data = coco()
    for image in data["images"]:
        with Image.open(workdir / "data/images" / image["file_name"]) as file:
            image["width"], image["height"] = file.size
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    for share, peak, centre in ((1, 100, 100), (0.1, None, 0)):
        for annotation in data["annotations"]:
            width, height = sizes[annotation["image_id"]]
            annotation["bbox"] = [0, 0, share * width, share * height]
        write_json(data, workdir / "boxes.json")
        call(evaluate, *flags, "--annotations", "boxes.json")
        text = capsys.readouterr().out
        found = json.loads((workdir / "o/metrics.json").read_text())["pointing"]
        assert found["pairs"] == 19
        assert found["centre"]["all_pairs"] == centre
        assert peak is None or found["peak"]["all_pairs"] == peak
        assert [row["pairs"] for row in found["per_label"]] == [7, 4, 4, 2, 2]
        row = next(line for line in text.splitlines() if line.startswith("all pairs")).split()
        assert row[2:] == ["19", f"{found['peak']['all_pairs']:.1f}", f"{centre:.1f}"]


def test_objects_get_the_labels_of_the_images(tmp_path):
    """Labels renamed by --labels_to_merge."""
    data = coco([("dog", "cat")])
    for annotation in data["annotations"]:
        annotation["bbox"] = [0, 0, 1, 1]
    path = write_json(data, tmp_path / "boxes.json")
    (tmp_path / "merge.csv").write_text("from,to\ncat,dog\n")
    options = ReadOptions(merge=tmp_path / "merge.csv")
    images = read_labels(path, options=options)
    vocabulary = count_labels(images.label_sets, images.categories)
    (row,) = read_label_objects(images, vocabulary, options)
    assert list(row) == ["dog"]
    assert len(row["dog"]) == 3


def test_evaluate_pointing_needs_boxes_or_masks(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt", "--image_path", "data/images")
    annotations = ("--annotations", "data/annotations/instances.json", "--pointing")
    assert "no boxes or masks" in refusal(evaluate, *best, *annotations)
    (workdir / "labels.csv").write_text("file_name,labels\nimg_00.jpg,person\n")
    sentence = refusal(evaluate, *best, "--annotations", "labels.csv", "--pointing")
    assert "needs boxes or masks" in sentence
