"""Labels that are probably misspelt, and those that are several in one."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.checks import likely_misspellings, several_in_one
from labels.merge import merges_as_csv, read_merges
from labels.read import read_labels
from labels.tags import letters_of
from labels.text import folded
from labels.vocabulary import count_labels

LABELS = st.from_regex(r"[A-Ca-c1 _=-]{1,8}", fullmatch=True).map(folded).filter(bool)


def vocabulary_of(**counts: int):
    sets = [(label.replace("_", " "),) for label, n in counts.items() for _ in range(n)]
    return count_labels(sets, sorted({s[0] for s in sets}))


def test_misspelt_labels_are_found():
    found = likely_misspellings(
        vocabulary_of(
            person=50,
            persn=1,
            preson=2,
            Person=1,
            peerson=3,
            horse=20,
            house=18,
            cat=9,
            car=1,
            traffic_light=8,
            trafficlight=8,
        )
    )
    assert dict(found) == {
        "persn": "person",
        "preson": "person",
        "Person": "person",
        "peerson": "person",
        "trafficlight": "traffic light",
    }


def test_real_labels_are_not_taken_for_misspelt(shared):
    for file in (
        "coco2014-labels/instances_train2014.json",
        "coco2014-labels/instances_val2014.json",
        "ccp/annotations/train.json",
        "coco-sample/annotations/instances_train2014.json",
    ):
        images = read_labels(shared / file)
        alike = likely_misspellings(count_labels(images.label_sets, images.categories))
        assert alike == [], file


def pairs_of(**counts: int) -> dict[str, str]:
    return dict(likely_misspellings(vocabulary_of(**counts)))


@pytest.mark.parametrize(
    "counts",
    [
        {"label_7": 300, "label_77": 3, "label_17": 200},
        {"part_1_1": 90, "part_11": 2},
        {"2nd_floor": 90, "3rd_floor": 2},
        {"person": 90, "person2": 2},
        {"type_a": 90, "type_b": 2},
        {"grade_ii": 90, "grade_iii": 2},
        {"cat": 90, "hat": 2, "bat": 1},
        {"shirt": 900, "skirt": 100},
        {"cafe": 90, "cave": 1},
        {"shirt": 21, "shorts": 2, "skirt": 4},
        {"beach": 90, "bench": 1},
        {"wheels": 90, "heels": 1},
    ],
)
def test_these_are_no_misspellings(counts):
    assert pairs_of(**counts) == {}


def test_labels_that_are_on_one_image_together_are_two():
    sets = [("statue",)] * 60 + [("statute",)] * 3 + [("glass",)] * 9 + [("glasses",)] * 8
    names = ["glass", "glasses", "statue", "statute"]
    vocabulary = count_labels(sets, names)
    targets = np.array([[label in s for label in vocabulary.labels] for s in sets])
    alone = likely_misspellings(vocabulary, targets)
    assert alone == [("statute", "statue"), ("glasses", "glass")]
    targets[0] = targets[-1] = True
    assert likely_misspellings(vocabulary, targets) == []


def test_a_spelling_belongs_to_its_own_label():
    """Shirt is shirt, though skirt is more frequent and as similar."""
    assert pairs_of(skirt=30, shirt=20, Shirt=2) == {"Shirt": "shirt"}
    assert pairs_of(shoes=60, Shoes=9, shose=3, SHOSE=1) == {
        "Shoes": "shoes",
        "shose": "shoes",
        "SHOSE": "shoes",
    }
    assert pairs_of(bicycle=20, Bicycle=5, bicycles=22) == {
        "bicycles": "bicycle",  # on fewer images than both spellings together
        "Bicycle": "bicycle",
    }
    assert pairs_of(sunglasses=40, sunglosses=2, sunglases=2) == {
        "sunglosses": "sunglasses",
        "sunglases": "sunglasses",
    }


def test_spellings_lead_to_the_most_frequent_one():
    """--labels_to_merge takes no chains, as Preson to preson to person."""
    assert pairs_of(person=90, preson=3, Preson=1) == {"preson": "person", "Preson": "person"}
    assert pairs_of(Traffic_Light=90, trafficlight=80) == {"trafficlight": "Traffic Light"}
    assert pairs_of(label_7=90, Label_7=80, label7=1) == {"Label 7": "label 7", "label7": "label 7"}


def test_labels_of_several():
    labels = ("cat", "dog", "cat dog", "dog;cat", "cat and dog", "hot dog", "cat, hat", "dog-cat")
    assert several_in_one(labels) == ["cat dog", "dog;cat", "cat and dog", "dog-cat"]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(LABELS, st.integers(1, 60), max_size=12))
def test_what_looks_misspelt_can_be_given_back(tmp_path_factory, counts):
    """The file is read as it was written, and after renaming no pair is left that it lists."""
    sets = [(label,) for label, n in counts.items() for _ in range(n)]
    pairs = likely_misspellings(count_labels(sets, list(counts)))
    path = tmp_path_factory.mktemp("merges") / "labels_to_merge.csv"
    path.write_bytes(merges_as_csv(pairs))
    assert read_merges(path) == dict(pairs)
    for rare, usual in pairs:
        assert re.findall(r"\d+", rare) == re.findall(r"\d+", usual)
        assert counts[rare] <= sum(counts[x] for x in counts if letters_of(x) == letters_of(usual))
