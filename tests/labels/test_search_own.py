"""What this program wrote among the photos is neither labels nor photos."""

import json

import numpy as np
from PIL import Image
from test_search import NAMES, pictures, table

from labels.read import read_labels
from labels.search import find_labels
from report.influence import draw_influence
from report.marked import save_marked
from report.training_log import draw_curves


def test_what_runs_and_scripts_write_is_no_labels(tmp_path, capsys):
    """The folder per label is the truth, and not what a run in it was trained on."""
    pets = tmp_path / "pets"
    for label in ("cat", "dog"):
        pictures(pets / label)
    names = [f"{label}/{name}" for label in ("cat", "dog") for name in NAMES]
    rows = "file_name,labels\n" + "".join(f"{name},cat|dog\n" for name in names)
    listed = json.dumps([{"image": name, "labels": ["cat"]} for name in names])
    for name, beside in (
        ("runs/x/images.csv", "runs/x/best.pt"),
        ("runs/x/config.json", "runs/x/last.pt"),
        ("runs/x/export/config.json", "runs/x/export/model.safetensors"),
        ("runs/x/metrics.json", "runs/x/evaluate.log"),
        ("tags/label_studio/tasks.json", "tags/sample.json"),
        ("tags/fiftyone/labels.json", "tags/sample.json"),
        ("tags/sample.json", "tags/predictions.jsonl"),
        ("tags/sidecars.jsonl", "tags/sample.json"),
        ("tags/skipped_images.jsonl", "tags/sample.json"),
    ):
        own = table(pets / name, rows if name.endswith("csv") else listed)
        table(pets / beside, "x")
        assert find_labels(pets, "train") == pets, name
        if name.split("/")[-1] in ("images.csv", "config.json"):  # a user's, by itself
            (pets / beside).unlink()
            assert find_labels(pets, "train") == own
        own.unlink()


def test_drawings_are_no_photos(tmp_path):
    """Of sample.py, train.py and evaluate.py: neither a label nor pictures without labels."""
    pets = tmp_path / "pets"
    for label in ("cat", "dog"):
        pictures(pets / label)
    picture = Image.new("RGB", (20, 20))
    for name in ("tagged/contact_sheet.png", "tagged/slides/p.jpg.png"):
        (pets / name).parent.mkdir(exist_ok=True, parents=True)
        save_marked(picture, pets / name)
    (pets / "run").mkdir()
    log = table(pets / "run/log.jsonl", '{"epoch": 1, "loss": 1.0, "val_mAP": 10.0}\n')
    draw_curves(log, pets / "run/curves.png")
    draw_influence(np.eye(2), np.eye(2), ["cat", "dog"], pets / "run/label_influence.png")
    assert read_labels(find_labels(pets, "train")).categories == ["cat", "dog"]
    picture.save(pets / "tagged/contact_sheet.png")  # a photo of the user that is called so
    assert read_labels(find_labels(pets, "train")).categories == ["cat", "dog", "tagged"]


def test_words_of_names_in_json_are_no_names(tmp_path):
    pets = tmp_path / "home/pets"
    for label in ("cat", "dog"):
        pictures(pets / label, ("2.jpg", "3.jpg"))
    table(tmp_path / "notes.json", json.dumps({"Holidays/Photo 2.jpg": ["sea"]}))
    assert find_labels(pets, "train") == pets
