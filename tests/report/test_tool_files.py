"""sample.py --format: files as Label Studio's and FiftyOne's documentation describe them."""

import json
import os
from xml.etree import ElementTree

from conftest import RANKED, call, write_picture
from test_sample_folders import snapshot

import sample
from images.find import find_images
from labels.read import read_labels
from report.tool_files import fiftyone, label_studio, write_folder, write_for_tool

LABELS = ["cat", 'a & "b"', "7", "<Größe>"]
PREDICTED = {"a.jpg": ["7", "cat"], "sub/a.png": [], "sub/a.jpg": LABELS, "ü & %41 c.jpg": ["7"]}


def results() -> list[dict]:
    probabilities = {label: 0.9 - i / 7 for i, label in enumerate(LABELS)}
    sets = [{"labels": ["cat"], "probability": 0.12345678}]
    return [
        {"image": name, "predicted": labels, "labels": probabilities, "most_probable_sets": sets}
        for name, labels in PREDICTED.items()
    ]


def sets_of(path) -> dict[str, set[str]]:
    """As our own reader sees the file."""
    images = read_labels(path)
    return dict(zip(images.file_names, map(set, images.label_sets), strict=True))


def accept(tasks: list[dict]) -> list[dict]:
    """What Label Studio exports once somebody has accepted each prediction."""
    return [
        {
            "id": i,
            "data": task["data"],
            "annotations": [{"result": p["result"]} for p in task["predictions"]],
        }
        for i, task in enumerate(tasks, start=1)
    ]


def check_label_studio(folder, labels) -> list[dict]:
    """Check tasks.json against config.xml, as labelstud.io/guide/predictions says."""
    view = ElementTree.parse(folder / "config.xml").getroot()
    (image,), (control,) = view.findall("Image"), view.findall("Choices")
    assert control.get("toName") == image.get("name")
    assert control.get("choice") == "multiple"
    assert [choice.get("value") for choice in control] == list(labels)
    tasks = json.loads((folder / "tasks.json").read_text())
    for task in tasks:
        assert task.keys() == {"data", "predictions"}
        assert task["data"].keys() == {image.get("value").removeprefix("$")}
        (prediction,) = task["predictions"]
        assert isinstance(prediction["model_version"], str)
        assert 0 <= prediction["score"] <= 1
        for result in prediction["result"]:
            names = result.pop("from_name"), result.pop("to_name"), result.pop("type")
            assert names == (control.get("name"), image.get("name"), "choices")
            assert result.keys() == {"value"}
            assert {*result["value"].pop("choices")} <= {*labels}
            assert not result["value"]
    return json.loads((folder / "tasks.json").read_text())


def check_fiftyone(folder) -> dict[str, dict[str, float]]:
    """The labels of each photo, found as FiftyOneImageClassificationDataset is documented."""
    content = json.loads((folder / "labels.json").read_text())
    data = json.loads((folder / "data.json").read_text())
    assert content.keys() == {"classes", "labels"}
    paths = {os.path.splitext(name)[0]: path for name, path in data.items()}
    assert paths.keys() == content["labels"].keys()
    assert len(paths) == len(data)
    found = {}
    for uuid, targets in content["labels"].items():
        assert os.path.isabs(paths[uuid])
        assert all(target.keys() == {"label", "confidence"} for target in targets)
        found[paths[uuid]] = {content["classes"][t["label"]]: t["confidence"] for t in targets}
    return found


def test_label_studio(tmp_path):
    for name in PREDICTED:
        write_picture(tmp_path / "photos" / name)
    write_for_tool("labelstudio", tmp_path, results(), tmp_path / "photos", LABELS, "m")
    tasks = check_label_studio(tmp_path / "label_studio", LABELS)
    assert {task["predictions"][0]["score"] for task in tasks} == {0.1235}
    (tmp_path / "accepted.json").write_text(json.dumps(accept(tasks)))
    assert list(sets_of(tmp_path / "accepted.json").values()) == [{*s} for s in PREDICTED.values()]
    images = read_labels(tmp_path / "accepted.json")
    found = find_images(tmp_path / "photos", images)
    assert [p.relative_to(tmp_path / "photos").as_posix() for p in found] == list(PREDICTED)


def test_fiftyone(tmp_path):
    write_for_tool("fiftyone", tmp_path, results(), tmp_path / "photos", LABELS, "m")
    found = check_fiftyone(tmp_path / "fiftyone")
    assert {name: [*found[str(tmp_path / "photos" / name)]] for name in PREDICTED} == PREDICTED
    assert found[str(tmp_path / "photos/a.jpg")] == {"7": 0.6143, "cat": 0.9}
    sets = sets_of(tmp_path / "fiftyone/labels.json")
    assert sets == {name: {*labels} for name, labels in PREDICTED.items()}


def test_a_users_file_is_never_replaced(tmp_path):
    """But the same photos, or more of them, go to the same folder."""
    for make in (label_studio, fiftyone):
        path = tmp_path / make.__name__
        few, all_of_them = (make(results()[:n], tmp_path, LABELS, "m") for n in (2, 4))
        for contents in (few, few, all_of_them, all_of_them):
            assert write_folder(path, contents) == path
        name = next(iter(few))
        assert (path / name).read_bytes() == all_of_them[name]
        corrected = (path / name).read_bytes().replace(b"sub", b"new")
        (path / name).write_bytes(corrected)
        assert write_folder(path, all_of_them) == tmp_path / f"{path.name}-2"
        (tmp_path / f"{path.name}-3").write_text("mine")
        assert write_folder(path, few) == tmp_path / f"{path.name}-4"
        assert (path / name).read_bytes() == corrected
        assert (tmp_path / f"{path.name}-3").read_text() == "mine"


def test_sample_writes_both(trained, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "o"
    for i, name in enumerate(("a.jpg", "b/c.png")):
        write_picture(photos / name, RANKED[i : i + 2], seed=i)
    flags = ("--checkpoint", trained.output / "best.pt", "--output", output, "--num_slides", 0)
    call(sample, photos, *flags, "--format", "labelstudio")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}" in capsys.readouterr().err
    assert len(check_label_studio(output / "label_studio", RANKED)) == 2
    write_picture(photos / "d.jpg")
    call(sample, photos, *flags, "--format", "labelstudio")
    assert len(check_label_studio(output / "label_studio", RANKED)) == 3
    before = snapshot(output)
    call(sample, photos, *flags, "--format", "fiftyone")
    assert {*snapshot(output)} - {*before} == {"fiftyone/data.json", "fiftyone/labels.json"}
    lines = map(json.loads, (output / "predictions.jsonl").read_text().splitlines())
    expected = {str(photos / line["image"]): line["predicted"] for line in lines}
    found = check_fiftyone(output / "fiftyone")
    assert {name: [*labels] for name, labels in found.items()} == expected
    call(sample, photos / "a.jpg", *flags[:2], "--output", tmp_path / "p", "--format", "fiftyone")
    assert check_fiftyone(tmp_path / "p/fiftyone").keys() == {str(photos / "a.jpg")}
