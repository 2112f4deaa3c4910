"""What a run is called in its results."""

import os

import pytest

from evaluation.results import name_run


@pytest.mark.parametrize(
    ("image_path", "annotations", "name"),
    [
        ("data/scenes/images/train", "data/scenes/annotations/instances_train.json", "scenes"),
        ("/home/me/holiday/photos/train", "labels.csv", "holiday"),
        ("photos", "photos/labels.csv", "photos"),
        ("../photos", "../photos/labels.csv", "photos"),
        (".", "labels.csv", "pets"),
        (".", ".", "pets"),
        ("data/images/train2014", "data/instances_train2014.json", "instances_train2014"),
    ],
)
def test_a_run_is_named_after_its_model_and_data(tmp_path, image_path, annotations, name):
    path = tmp_path / "pets-chain/best.pt"
    path.parent.mkdir()
    path.touch()
    os.utime(path, (1_779_969_600,) * 2)  # 28 May 2026
    flags = {"image_path": image_path, "annotations": annotations}
    checkpoint = {"model": {"arch": "resnet18", "decoder": "chain"}, "flags": flags}
    expected = f"ResNet-18 with label decoder, trained on {name}, 28 May 2026"
    assert name_run(checkpoint, path) == expected
    checkpoint = {"model": {"arch": "resnet101", "decoder": "none"}, "flags": {}}
    assert name_run(checkpoint, path) == "ResNet-101 with no decoder, 28 May 2026"
