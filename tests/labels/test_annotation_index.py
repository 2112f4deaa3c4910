"""The index of a large annotation file: never wrong, never in the way, used where it can be."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
from conftest import LABEL_SETS, REPO, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels import coco, index
from labels.coco import read_annotations
from labels.read import find_annotations
from labels.vocabulary import count_labels
from util.errors import UsageError

EVERY_SIZE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch, tmp_path):
    """And has rested since it was written; the cache is this test's own."""
    monkeypatch.setattr(index, "LARGE", 0)
    monkeypatch.setattr(index, "REST", -60.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def parsed(monkeypatch) -> list:
    """Grows by one with every file that is parsed."""
    parse, done = coco._parse, []
    monkeypatch.setattr(coco, "_parse", lambda *a: done.append(a) or parse(*a))
    return done


def index_of(path):
    return path.with_name(f".{path.name}.index")


def test_a_file_is_parsed_once(tiny, parsed, capsys):
    first = read_annotations(tiny.annotations)
    assert "instances.json" in capsys.readouterr().err
    assert read_annotations(tiny.annotations) == first
    assert len(parsed) == 1
    assert capsys.readouterr().err == ""
    assert [set(labels) for labels in first.label_sets] == [set(labels) for labels in LABEL_SETS]
    assert find_annotations(tiny.images, "train") == tiny.annotations, "the index is no such file"


def test_a_rested_file_is_not_even_read(tiny, monkeypatch):
    first = read_annotations(tiny.annotations)
    path_type, read = type(tiny.annotations), type(tiny.annotations).read_bytes
    opened = []
    monkeypatch.setattr(path_type, "read_bytes", lambda p: opened.append(p) or read(p))
    assert read_annotations(tiny.annotations) == first
    assert opened == [index_of(tiny.annotations)]


def test_what_an_index_spares(tiny):
    """pycocotools brings matplotlib along."""
    read_annotations(tiny.annotations)
    script = (
        "import annotation_index, annotations, pathlib, sys; index.LARGE = 0;"
        f"print(len(coco.read_annotations(pathlib.Path({str(tiny.annotations)!r}))),"
        "{'pycocotools', 'matplotlib', 'nltk', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "12 set()"


def test_small_files_have_none(tiny, monkeypatch):
    monkeypatch.setattr(index, "LARGE", 1_000_000)
    read_annotations(tiny.annotations)
    assert os.listdir(tiny.annotations.parent) == ["instances.json"]


@pytest.mark.parametrize("rested", [True, False])
def test_an_edit_that_keeps_size_and_time_is_seen(tiny, monkeypatch, rested):
    """A file just written may change again within the same tick of the clock: it is hashed."""
    path = tiny.annotations
    if not rested:
        monkeypatch.setattr(index, "REST", 60.0)
    for label in ("dog", "cat", "dog"):
        before = path.stat()
        other = json.loads(path.read_text())
        for annotation in other["annotations"]:
            annotation["category_id"] = {"dog": 18, "cat": 17}[label]
        if rested:
            time.sleep(0.05)  # or it had not
        path.write_text(json.dumps(other))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert {name for labels in read_annotations(path).label_sets for name in labels} == {label}


def test_a_touched_file_is_hashed_and_not_parsed(tiny, parsed):
    first = read_annotations(tiny.annotations)
    os.utime(tiny.annotations, (1, 1))
    stamp = json.loads(index_of(tiny.annotations).read_bytes().split(b"\n")[0])["stamp"]
    assert read_annotations(tiny.annotations) == first
    assert len(parsed) == 1
    again = json.loads(index_of(tiny.annotations).read_bytes().split(b"\n")[0])["stamp"]
    assert (again["modified"], again["size"]) == (10**9, stamp["size"])


@EVERY_SIZE
@given(
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=4), st.integers(0, 40)
)
def test_a_damaged_index_is_made_anew(tiny, changes, cut):
    first = read_annotations(tiny.annotations)
    index = index_of(tiny.annotations)
    data = bytearray(index.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    index.write_bytes(data[: len(data) - cut])
    assert read_annotations(tiny.annotations) == first
    assert read_annotations(tiny.annotations) == first


FORGED = {
    "upwards": {"file_names": ["../../a.jpg"], "label_sets": [[0]], "categories": ["cat"]},
    "label": {"file_names": ["a.jpg"], "label_sets": [[7]], "categories": ["cat"]},
    "lengths": {"file_names": ["a.jpg"], "label_sets": [[0], [0]], "categories": ["cat"]},
    "list": [],
    "null": None,
}


@pytest.mark.parametrize("plain", FORGED.values(), ids=FORGED)
def test_a_forged_index_is_made_anew(tiny, plain):
    """Its sums are right, but no file says what it says."""
    first = read_annotations(tiny.annotations)
    index = index_of(tiny.annotations)
    header = json.loads(index.read_bytes().split(b"\n")[0])
    body = json.dumps(plain).encode()
    header["body"] = hashlib.sha256(body).hexdigest()
    index.write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert read_annotations(tiny.annotations) == first


def test_of_another_version(tiny, parsed, monkeypatch):
    read_annotations(tiny.annotations)
    monkeypatch.setattr(index, "FORMAT", "hybridnet-annotation-index-2")
    read_annotations(tiny.annotations)
    read_annotations(tiny.annotations)
    assert len(parsed) == 2


def test_read_only_folders(tiny, tmp_path, parsed, monkeypatch, capsys):
    folder = tiny.annotations.parent
    folder.chmod(0o555)
    try:
        first = read_annotations(tiny.annotations)
        assert read_annotations(tiny.annotations) == first
        assert os.listdir(folder) == ["instances.json"], "not even by root"
        assert len(parsed) == 1
        assert len(list((tmp_path / "cache/hybridnet").iterdir())) == 1
        monkeypatch.setenv("XDG_CACHE_HOME", str(tiny.annotations))  # not a folder
        capsys.readouterr()
        assert read_annotations(tiny.annotations) == first
        lines = capsys.readouterr().err.splitlines()
        assert "cannot be indexed" in lines[-1]
        assert len(lines) == 2
    finally:
        folder.chmod(0o755)


def test_a_user_without_a_home(tiny, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    first = read_annotations(tiny.annotations)
    assert read_annotations(tiny.annotations) == first


def test_a_wrong_file_stays_wrong(tiny, parsed):
    write_json({"images": []}, tiny.annotations)
    for _ in range(2):
        with pytest.raises(UsageError, match="needs the lists"):
            read_annotations(tiny.annotations)
    assert len(parsed) == 2
    assert not index_of(tiny.annotations).exists()
    with pytest.raises(UsageError, match="No such file"):
        read_annotations(tiny.folder / "absent.json")
    with pytest.raises(UsageError, match="Is a directory"):
        read_annotations(tiny.folder)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\:\0"), min_size=1)


@EVERY_SIZE
@given(
    st.lists(NAMES, min_size=1, max_size=5, unique=True),
    st.lists(NAMES, min_size=5, max_size=5, unique=True),
    st.data(),
)
def test_any_names_come_back(tmp_path, file_names, labels, data):
    """Ids may be negative or huge."""
    ids = data.draw(st.lists(st.integers(), min_size=5, max_size=5, unique=True))
    content = {
        "images": [{"id": -i, "file_name": f"{name}x"} for i, name in enumerate(file_names)],
        "categories": [{"id": i, "name": n} for i, n in zip(ids, labels, strict=True)],
        "annotations": [
            {"image_id": -i, "category_id": data.draw(st.sampled_from(ids)), "bbox": [0, 0, 1, 1]}
            for i in range(len(file_names))
            for _ in range(2)
        ],
    }
    path = write_json(content, tmp_path / "any.json")
    first = read_annotations(path)
    name_of = dict(zip(ids, labels, strict=True))
    assert first.file_names == [f"{name}x" for name in reversed(file_names)]
    for i, found in enumerate(reversed(first.label_sets)):
        pairs = [a for a in content["annotations"] if a["image_id"] == -i]
        assert set(found) == {name_of[a["category_id"]] for a in pairs}
        assert len(set(found)) == len(found)
    assert first.categories == sorted(labels)
    assert read_annotations(path) == first


def test_nan_and_repeated_keys_and_geometry(tmp_path):
    """Python writes NaN, and of two equal keys the last one counts; neither is ours to judge."""
    path = tmp_path / "odd.json"
    path.write_text(
        '{"images": [{"id": 9, "id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name":'
        '"cat"}], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [NaN, Infinity],'
        '"segmentation": {"counts": [1, 2], "size": [3, 4]}}], "info": {"images": 7}}'
    )
    assert read_annotations(path).label_sets == [("cat",)]


def test_coco_train(shared, parsed):
    path = shared / "coco2014-labels/instances_train2014.json"
    first = read_annotations(path)
    again = read_annotations(path)
    assert again == first
    assert len(parsed) == 1
    vocabulary = count_labels(again.label_sets, again.categories)
    assert (vocabulary.num_images, len(vocabulary), sum(vocabulary.counts)) == (82081, 80, 241035)
    assert not index_of(path).exists()
