"""The answers on disk: every one is there, whatever happens, and nothing else is overwritten."""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.store import Answer, StaleError, Store, read_answers, write_answers
from labels.read import read_labels
from util.errors import RunError, UsageError

NAMES = ["a.jpg", "b.jpg", "sub/c d.jpg", "=1+1.jpg"]
LABELS = ["cat", "hot dog", "a|b", "7", "none", "-1", 'a "b"', "É"]
ACTS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.none() | st.lists(st.sampled_from(LABELS), unique=True)),
    max_size=8,
)
STARTS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(LABELS), unique=True), max_size=3
)


def sets(answers) -> dict:
    return {name: (frozenset(a.labels), a.verified) for name, a in answers.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts=ACTS, start=STARTS, stop=st.integers(0, 8))
def test_random_answers_and_undos(tmp_path_factory, acts, start, stop):
    """After each act the table has exactly the answers; a new start continues from the table."""
    output = tmp_path_factory.mktemp("store") / "labels.annotated.csv"
    annotated = {name: Answer(tuple(labels)) for name, labels in start.items()}
    store, expected, history = Store(output, annotated), dict(annotated), {}
    for number, (name, labels) in enumerate(acts):
        if number == stop:  # as after a kill: nothing is written at the end
            store.close()
            store, history = Store(output, annotated), {}
        if labels is None:
            if not history.get(name):
                with pytest.raises(StaleError):
                    store.undo(name, store.version(name))
                continue
            store.undo(name, store.version(name))
            before = history[name].pop()
            expected = {**expected, name: before}
            if before is None:
                del expected[name]
        else:
            store.answer(name, labels, store.version(name))
            history.setdefault(name, []).append(expected.get(name))
            expected = {**expected, name: Answer(tuple(labels), True)}
        assert sets(read_answers(output)) == sets(expected)
        assert {name: store.get(name) is not None for name in NAMES} == {
            name: name in expected for name in NAMES
        }
    if output.exists() and expected:
        images = read_labels(output)
        found = dict(zip(images.file_names, map(set, images.label_sets), strict=True))
        assert found == {name: set(answer.labels) for name, answer in expected.items()}
    store.close()


def test_a_stale_version_changes_nothing(tmp_path):
    store = Store(tmp_path / "o.csv", {})
    seen = store.version("a.jpg")
    store.answer("a.jpg", ["cat"], seen)
    with pytest.raises(StaleError):
        store.answer("a.jpg", ["dog"], seen)
    assert store.get("a.jpg").labels == ("cat",)
    store.close()
    again = Store(tmp_path / "o.csv", {})
    with pytest.raises(StaleError):
        again.answer("a.jpg", ["dog"], seen)
    again.close()


def test_a_failed_write_leaves_table_and_memory_as_they_were(tmp_path, monkeypatch):
    store = Store(tmp_path / "o.csv", {})
    store.answer("a.jpg", ["cat"], store.version("a.jpg"))
    content, version = (tmp_path / "o.csv").read_bytes(), store.version("a.jpg")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(RunError, match="No space left"):
            store.answer("a.jpg", ["dog"], version)
    assert (tmp_path / "o.csv").read_bytes() == content
    assert store.get("a.jpg").labels == ("cat",)
    store.answer("a.jpg", ["dog"], version)
    assert read_answers(tmp_path / "o.csv")["a.jpg"].labels == ("dog",)
    store.close()


def test_a_table_that_was_edited_meanwhile_is_not_overwritten(tmp_path):
    store = Store(tmp_path / "o.csv", {})
    store.answer("a.jpg", ["cat"], store.version("a.jpg"))
    edited = "file_name,labels,verified\na.jpg,cat|dog,yes\n"
    (tmp_path / "o.csv").write_text(edited)
    with pytest.raises(RunError, match="another program has changed"):
        store.answer("b.jpg", ["cat"], store.version("b.jpg"))
    assert (tmp_path / "o.csv").read_text() == edited
    store.close()
    again = Store(tmp_path / "o.csv", {})
    assert again.get("a.jpg").labels == ("cat", "dog")
    (tmp_path / "o.csv").unlink()
    again.answer("b.jpg", ["cat"], again.version("b.jpg"))
    assert [*read_answers(tmp_path / "o.csv")] == ["a.jpg", "b.jpg"]
    again.close()


def test_labels_that_no_table_can_hold_are_refused(tmp_path):
    store = Store(tmp_path / "o.csv", {})
    for label in ("", "a\0b", "two  spaces"):
        with pytest.raises(UsageError):
            store.answer("a.jpg", [label], store.version("a.jpg"))
    assert not (tmp_path / "o.csv").exists()
    store.close()


@pytest.mark.parametrize(
    "text",
    [
        "file_name,labels\na.jpg,cat\n",
        "file_name,labels,verified,note\na.jpg,cat,yes,keep me\n",
        "file_name,labels,verified\na.jpg,cat,perhaps\n",
        "hello",
        "",
        '{"a": 1}',
    ],
)
def test_the_file_of_a_user_is_refused_and_kept(tmp_path, text):
    output = tmp_path / "labels.csv"
    output.write_text(text)
    with pytest.raises(UsageError, match="never overwritten"):
        Store(output, {})
    assert output.read_text() == text


def test_two_processes_do_not_write_one_table(tmp_path):
    store = Store(tmp_path / "o.csv", {})
    code = (
        "import sys; from pathlib import Path; from annotation.store import Store\n"
        "try: Store(Path(sys.argv[1]), {})\n"
        "except Exception as error: print(error)"
    )
    command = [sys.executable, "-c", code, tmp_path / "o.csv"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "another annotate.py is writing" in result.stdout
    store.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_verified_rows_count_more_than_annotations(tmp_path):
    """Unverified rows follow the annotations; rows of photos that are gone stay."""
    output = tmp_path / "o.csv"
    rows = {
        "a.jpg": Answer(("cat",), True),
        "b.jpg": Answer(("cat",), False),
        "gone.jpg": Answer(("dog",), True),
    }
    write_answers(output, rows)
    store = Store(output, {name: Answer(("new",), False) for name in ("a.jpg", "b.jpg", "c.jpg")})
    store.answer("d.jpg", [], store.version("d.jpg"))
    found = read_answers(output)
    assert {name: answer.labels for name, answer in found.items()} == {
        **{"a.jpg": ("cat",), "b.jpg": ("new",), "c.jpg": ("new",)},
        **{"gone.jpg": ("dog",), "d.jpg": ()},
    }
    assert [name for name, answer in found.items() if answer.verified] == [
        *("a.jpg", "gone.jpg", "d.jpg")
    ]
    assert store.count_verified() == 3
    store.close()


def test_splits_are_kept_and_new_photos_are_for_training(tmp_path):
    store = Store(tmp_path / "o.csv", {"a.jpg": Answer(("cat",), False, "val")})
    for name in ("a.jpg", "b.jpg"):
        store.answer(name, ["dog"], store.version(name))
    store.close()
    images = read_labels(tmp_path / "o.csv")
    assert dict(zip(images.file_names, images.splits, strict=True)) == {
        "a.jpg": "val",
        "b.jpg": "train",
    }
