"""Label Studio: JSON and JSON-MIN."""

import pytest
from conftest import write_json
from tool_exports import SETS, boxes, choices, comment, records, refusal, sets_of, task, tasks

from images.find import find_images
from labels.read import read_labels


def test_label_studio_tasks(tmp_path, capsys):
    for i in range(4):
        (tmp_path / f"p{i}.jpg").write_bytes(b"")
    path = write_json(tasks(), tmp_path / "export.json")
    images = read_labels(path)
    assert images.kind == "Label Studio"
    assert [set(s) for s in images.label_sets] == [set(s) for s in SETS.values()]
    assert [p.name for p in find_images(tmp_path, images)] == list(SETS)
    assert images.categories == ["cat", "dog", "traffic light"]

    content = tasks()
    content[0]["annotations"].append({"id": 9, "result": [], "was_cancelled": True})
    content.append(task(4))  # not annotated
    content.append({**task(5), "predictions": [{"result": [choices(["cat"])]}]})
    assert len(sets_of(write_json(content, path))) == 4
    assert "2 of 6 tasks have no annotation and are left out" in capsys.readouterr().err

    content = [task(0, boxes("cat", "cat", "dog")), task(1, [*boxes("dog"), comment()])]
    assert list(sets_of(write_json(content, path)).values()) == [{"cat", "dog"}, {"dog"}]


def test_label_studio_control_tags(tmp_path):
    content = [task(0, [choices(["cat"]), choices(["sharp"], "quality"), *boxes("dog")])]
    path = write_json(content, tmp_path / "export.json")
    said = refusal(path)
    assert "control tags, 'animals', 'box', 'quality'" in said
    assert "--label_columns" in said
    assert list(sets_of(path, label_columns=("animals",)).values()) == [{"cat"}]
    assert list(sets_of(path, label_columns=("animals", "box")).values()) == [{"cat", "dog"}]
    assert "no control tag 'animal'" in refusal(path, label_columns=("animal",))


def test_label_studio_annotations_that_differ(tmp_path):
    content = [task(0, [choices(["cat"])], [choices(["dog"])])]
    path = write_json(content, tmp_path / "export.json")
    assert "task 0 has annotations with different labels" in refusal(path)
    content[0]["annotations"][1]["ground_truth"] = True
    assert list(sets_of(write_json(content, path)).values()) == [{"dog"}]
    same = [task(0, [choices(["cat", "dog"])], [choices(["dog", "cat"])])]
    assert list(sets_of(write_json(same, path)).values()) == [{"cat", "dog"}]
    twice = [task(0, [choices(["cat"])], name="a.jpg"), task(1, [choices(["dog"])], name="a.jpg")]
    assert "task 1 and task 0 are the same image, 'a.jpg'" in refusal(write_json(twice, path))


WRONG_TASKS = {
    "no annotation": ([task(0)], "no task with an annotation"),
    "no result": ([task(0) | {"annotations": [{"id": 1}]}], "without the list result"),
    "taxonomy": (
        [task(0, [choices([]) | {"type": "taxonomy", "value": {"taxonomy": [["a", "b"]]}}])],
        "result of type 'taxonomy'",
    ),
    "no value": ([task(0, [{"type": "choices", "from_name": "x"}])], "without type, from_name"),
    "no list": ([task(0, [choices("cat")])], "without the list 'choices'"),
    "number": ([task(0, [choices([7])])], "has '7' as a label"),
    "empty": ([task(0, [choices([" "])])], "as a label: it must be a text"),
    "mixed": ([*tasks(), {"image": "a.jpg"}], "entry 5, is no task"),
    "text in between": ([*tasks(), "a"], "entry 5, is no task"),
    "no picture": ([task(0, [choices(["a"])], name="sound.wav") | {}], "image"),
    "two pictures": (
        [task(0, [choices(["a"])]) | {"data": {"left": "a.jpg", "right": "b.jpg"}}],
        "several fields with pictures: left, right; name the field with --file_column",
    ),
    "no file": ([task(0, [choices(["a"])]) | {"data": {"n": 1}}], "no picture's name"),
}


@pytest.mark.parametrize(("content", "sentence"), WRONG_TASKS.values(), ids=WRONG_TASKS)
def test_label_studio_tasks_that_are_refused(tmp_path, content, sentence):
    path = write_json(content, tmp_path / "export.json")
    if sentence == "image":  # the only field, called image: its name is not a picture's
        assert list(sets_of(path)) == ["sound.wav"]
    else:
        assert sentence in refusal(path)


def test_label_studio_min(tmp_path, capsys):
    path = write_json(records(), tmp_path / "min.json")
    assert list(sets_of(path).values()) == [set(s) for s in SETS.values()]
    with_data = [r | {"source": f"camera {i}"} for i, r in enumerate(records())]
    assert list(sets_of(write_json(with_data, path)).values()) == [set(s) for s in SETS.values()]
    assert "labels are in animals; not used: source" in capsys.readouterr().err
    two = [r | {"quality": "good"} for r in records()]
    assert "several fields, 'animals', 'quality'" in refusal(write_json(two, path))
    assert sets_of(path, label_columns=("animals",)) == sets_of(write_json(records(), path))
    shapes = [{"x": 1, "rectanglelabels": ["cat"]}, {"x": 2, "rectanglelabels": ["dog"]}]
    content = [{"image": "a.jpg", "id": 1, "annotator": 2, "box": shapes}]
    assert sets_of(write_json(content, path)) == {"a.jpg": {"cat", "dog"}}
    content[0]["box"] = [{"x": 1}]
    assert "no field with labels" in refusal(write_json(content, path))
    content[0]["box"] = [*shapes, {"x": 1}]
    assert "choices or labels are read" in refusal(write_json(content, path))
    twice = [records()[0], records()[0] | {"animals": "cat"}]
    assert "are the same image" in refusal(write_json(twice, path))
    again = [records()[0], records()[0]]
    assert len(sets_of(write_json(again, path))) == 1
