"""Labels are counted and ranked; vocabulary files, valid, damaged and hostile."""

import collections
import json
import os
import pickle
import pickletools

import pytest
from conftest import COUNTS, LABEL_SETS, RANKED, call, coco, refusal, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import build_vocab
from labels.vocabulary import Vocabulary, count_labels, load_vocabulary, save_vocabulary
from util.errors import UsageError

VOCABULARY = Vocabulary(("person", "dog"), counts=(7, 2), num_images=8, dropped=("cat",))


def test_labels_are_counted_once_per_image_and_ranked(tiny, monkeypatch, capsys):
    """The tiny set has two boxes for most labels. Ties are ordered by name, not by category id."""
    monkeypatch.chdir(tiny.folder)
    call(build_vocab, "--annotations", tiny.annotations, "--vocab_path", "v.pkl")
    vocabulary = load_vocabulary(tiny.folder / "v.pkl")
    assert vocabulary.labels == RANKED
    assert vocabulary.counts == COUNTS
    assert vocabulary.num_images == sum(map(bool, LABEL_SETS))
    assert [vocabulary.rank[label] for label in RANKED] == list(range(5))
    out = capsys.readouterr().out
    assert "11 labelled images (of 12), 5 labels, 19 labels in all (1.73 per image)" in out
    assert out.splitlines()[1].split()[:3] == ["0", "person", "7"]


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), max_size=20))
def test_counting_agrees_with_the_definition(label_lists):
    vocabulary = count_labels([tuple(labels) for labels in label_lists], list("abcdefgh"))
    expected = {c: sum(c in labels for labels in label_lists) for c in "abcdefgh"}
    order = sorted("abcdefgh", key=lambda c: (-expected[c], c))
    assert vocabulary.labels == tuple(c for c in order if expected[c])
    assert vocabulary.dropped == tuple(c for c in order if not expected[c])
    assert vocabulary.counts == tuple(expected[c] for c in vocabulary.labels)


def test_min_count_drops_and_names_the_rare(tiny, capsys):
    path = tiny.folder / "v.json"
    call(build_vocab, "--annotations", tiny.annotations, "--min_count", 4, "--vocab_path", path)
    vocabulary = load_vocabulary(path)
    assert vocabulary.labels == ("person", "cat", "dog")
    assert vocabulary.dropped == ("apple", "zebra")
    assert vocabulary.num_images == 11, "dropped labels must not change the number of images"
    assert "2 labels on fewer than 4 images are left out: apple, zebra" in capsys.readouterr().err
    sentence = refusal(
        build_vocab, "--annotations", tiny.annotations, "--min_count", 8, "--vocab_path", path
    )
    assert "--min_count" in sentence


def test_several_annotation_files_are_counted_together(tiny):
    other = write_json(coco([("cat",), ("cat",), ("cat", "dog")]), tiny.folder / "other.json")
    path = tiny.folder / "v.pkl"
    call(build_vocab, "--annotations", tiny.annotations, other, "--vocab_path", path)
    vocabulary = load_vocabulary(path)
    assert vocabulary.labels == ("cat", "person", "dog", "apple", "zebra")
    assert vocabulary.counts == (7, 7, 5, 2, 2)
    assert vocabulary.num_images == 14


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.text() | st.sampled_from(["'", '"', "a\nb", "日本", "\0", "\\", ""]), unique=True),
    st.integers(0, 3),
    st.sampled_from([".pkl", ".json"]),
)
def test_files_keep_any_label_text(tmp_path, labels, num_dropped, suffix):
    labels = [*labels, "one"] if "one" not in labels else labels
    dropped = labels[: min(num_dropped, len(labels) - 1)]
    kept = labels[len(dropped) :]
    vocabulary = Vocabulary(
        tuple(kept), tuple(range(len(kept), 0, -1)), len(kept) + 3, tuple(dropped)
    )
    path = tmp_path / f"v{suffix}"
    save_vocabulary(vocabulary, path)
    again = load_vocabulary(path)
    assert again == vocabulary
    assert again.rank == {label: i for i, label in enumerate(kept)}


def test_a_pickle_holds_plain_types_only(tmp_path):
    save_vocabulary(VOCABULARY, tmp_path / "v.pkl")
    data = (tmp_path / "v.pkl").read_bytes()
    names = {opcode.name for opcode, *_ in pickletools.genops(data)}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "INST", "OBJ"}
    assert type(pickle.loads(data)) is dict


@pytest.mark.parametrize("name", ["v.txt", "v", "v.pkl.gz", "v.yaml"])
def test_other_suffixes_are_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.pkl or \.json"):
        save_vocabulary(VOCABULARY, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.pkl"
    save_vocabulary(VOCABULARY, path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_vocabulary(Vocabulary(("x",), (1,), 1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"


class Hostile:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_hostile_pickle_does_not_run(tmp_path):
    mark = tmp_path / "hacked"
    for payload in (Hostile(mark), {**VOCABULARY.to_dict(), "labels": Hostile(mark)}):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            (tmp_path / "v.pkl").write_bytes(pickle.dumps(payload, protocol))
            with pytest.raises(UsageError, match="not a HybridNet vocabulary"):
                load_vocabulary(tmp_path / "v.pkl")
            assert not mark.exists()


GOOD = VOCABULARY.to_dict()
DAMAGED = {
    "no labels": {**GOOD, "labels": [], "counts": []},
    "more counts": {**GOOD, "counts": [7, 2, 1]},
    "twice the same": {**GOOD, "labels": ["dog", "dog"]},
    "count above all": {**GOOD, "counts": [9, 2]},
    "negative count": {**GOOD, "counts": [7, -1]},
    "text count": {**GOOD, "counts": ["7", 2]},
    "float count": {**GOOD, "counts": [7.0, 2]},
    "number label": {**GOOD, "labels": ["dog", 3]},
    "list label": {**GOOD, "labels": ["dog", []]},
    "text labels": {**GOOD, "labels": "ab"},
    "no number": {**GOOD, "num_images": None},
    "dropped missing": {k: v for k, v in GOOD.items() if k != "dropped"},
    "normalised missing": {k: v for k, v in GOOD.items() if k != "normalised"},
}
FOREIGN = {
    "list": [1, 2],
    "nothing": None,
    "other dictionary": {"labels": ["dog"]},
    "other version": {**GOOD, "format": "hybridnet-vocabulary-9"},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_damaged_vocabularies(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(pickle.dumps(content) if suffix == ".pkl" else json.dumps(content).encode())
    with pytest.raises(UsageError, match="damaged vocabulary"):
        load_vocabulary(path)


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_foreign_content(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(pickle.dumps(content) if suffix == ".pkl" else json.dumps(content).encode())
    with pytest.raises(UsageError, match="not a HybridNet vocabulary"):
        load_vocabulary(path)


def test_foreign_files(tmp_path):
    """Pickled class instances, as many scripts write them; half a file; anything else."""
    whole = pickle.dumps(GOOD, protocol=4)
    contents = [
        pickle.dumps(collections.Counter(dog=2)),
        pickle.dumps(VOCABULARY),
        whole[: len(whole) // 2],
        b"",
        b"hello",
        b"\x80\x04\x95" + b"\xff" * 8,  # a frame larger than any memory
        bytes(range(256)),
        b"[" * 100_000,
    ]
    for content in contents:
        for name in ("v.pkl", "v.json"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UsageError, match="not a HybridNet vocabulary"):
                load_vocabulary(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the vocabulary .*No such file"):
        load_vocabulary(tmp_path / "v.pkl")
    with pytest.raises(UsageError, match="cannot read the vocabulary"):
        load_vocabulary(tmp_path)


def test_prior_logits():
    vocabulary = Vocabulary(("always", "half", "rare"), (8, 4, 1), 8)
    always, half, rare = vocabulary.prior_logits()
    assert half == 0
    assert rare < half < always < float("inf")


def test_coco_2014(shared, tmp_path, capsys):
    """The counts of COCO 2014, as anyone should get them."""
    call(
        build_vocab,
        "--annotations",
        shared / "coco2014-labels/instances_train2014.json",
        "--vocab_path",
        tmp_path / "v.pkl",
    )
    out = capsys.readouterr().out
    assert "82,081 labelled images" in out
    assert "80 labels, 241,035 labels in all" in out
    vocabulary = load_vocabulary(tmp_path / "v.pkl")
    assert vocabulary.labels[0] == "person"
    assert vocabulary.counts == tuple(sorted(vocabulary.counts, reverse=True))
    assert sum(vocabulary.counts) == 241_035
