"""Random labels, written as each tool writes them, read back as the same label sets."""

import csv
import io
import json
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_exports import choices, task, via_file

from labels.options import ReadOptions
from labels.read import read_labels
from labels.text import folded

WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8)
LABELS = WORDS.map(folded).filter(bool)
SETS = st.lists(st.lists(LABELS, max_size=4, unique=True), min_size=2, max_size=6)


def as_json(content, folder) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(content))
    return path


def as_tasks(sets, folder):
    return as_json([task(i, [choices(s)] if s else []) for i, s in enumerate(sets)], folder)


def as_min(sets, folder):
    records = [
        {"image": f"{i}.jpg", "id": i, "annotator": 1, "lead_time": 2.5, "updated_at": "2024"}
        | ({"animals": s[0] if len(s) == 1 else {"choices": s}} if s else {})
        for i, s in enumerate(sets)
    ]
    return as_json(records, folder)


def as_via(sets, folder):
    files = [via_file(f"{i}.jpg", kind=dict.fromkeys(s, True)) for i, s in enumerate(sets)]
    return as_json({f"{file['filename']}9": file for file in files}, folder)


def as_via_csv(sets, folder):
    text = io.StringIO()
    writer = csv.writer(text)
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes"
    writer.writerow([*header.split(","), "region_attributes"])
    for i, s in enumerate(sets):
        kinds = json.dumps({"kind": dict.fromkeys(s, True)})
        writer.writerow([f"{i}.jpg", 9, kinds, 0, 0, "{}", "{}"])
    (folder / "via.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    return folder / "via.csv"


def as_fiftyone(sets, folder):
    classes = sorted({label for s in sets for label in s})
    labels = {str(i): [classes.index(label) for label in s] for i, s in enumerate(sets)}
    return as_json({"classes": classes, "labels": labels}, folder)


def as_cvat(sets, folder):
    tags = ["".join(f"<tag label={quoteattr(label)}/>" for label in s) for s in sets]
    images = (f'<image id="{i}" name="{i}.jpg">{each}</image>' for i, each in enumerate(tags))
    (folder / "x.xml").write_text(f"<annotations>{''.join(images)}</annotations>", "utf-8")
    return folder / "x.xml"


def as_voc(sets, folder):
    (folder / "Annotations").mkdir()
    for i, s in enumerate(sets):
        objects = "".join(f"<object><name>{escape(x)}</name></object>" for x in s)
        text = f"<annotation>{objects}</annotation>"
        (folder / f"Annotations/{i}.xml").write_text(text, "utf-8")
    return folder


def as_yolo(sets, folder):
    classes = sorted({label for s in sets for label in s}) or ["x"]
    (folder / "labels").mkdir()
    (folder / "images").mkdir()
    for i, s in enumerate([*sets, [classes[0]]]):
        lines = (f"{classes.index(label)} 0.5 0.5 0.1 0.1\n" for label in s)
        (folder / f"labels/{i}.txt").write_text("".join(lines))
        (folder / f"images/{i}.jpg").write_bytes(b"")
    (folder / "classes.txt").write_text("\n".join(classes), "utf-8")
    return folder


WRITERS = [as_tasks, as_min, as_via, as_via_csv, as_fiftyone, as_cvat, as_voc, as_yolo]


@pytest.mark.parametrize("write", WRITERS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(sets=SETS)
def test_any_labels_survive(write, sets, tmp_path_factory):
    """The first image has two labels, so that there is something to read."""
    sets = [["one", "two"], *sets]
    path = write(sets, tmp_path_factory.mktemp("export"))
    images = read_labels(path, None, ReadOptions())
    assert [set(s) for s in images.label_sets][: len(sets)] == [set(s) for s in sets]
    assert set(images.categories) == {label for s in sets for label in s}
