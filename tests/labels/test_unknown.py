"""Labels of which the annotations do not say whether they are on an image."""

import math

import numpy as np
import pytest

from labels.annotated import AnnotatedImages
from labels.merge import merge_labels
from labels.tags import merge_tags
from labels.targets import encode_unknown
from labels.vocabulary import Vocabulary, count_labels, load_vocabulary, save_vocabulary
from util.errors import UsageError

VOCABULARY = Vocabulary(("cat", "dog", "hat"), (2, 1, 1), 3, dropped=("fig",))


def annotated(label_sets, unknown, categories=("cat", "dog", "fig", "hat"), **more):
    names = [f"{i}.jpg" for i in range(len(label_sets))]
    return AnnotatedImages("x.csv", names, label_sets, [*categories], unknown=unknown, **more)


def test_the_matrix_of_unknown_labels():
    images = annotated([("cat",), (), ("hat",)], [("hat", "dog"), (), ("fig", "yak")])
    found = encode_unknown(images, VOCABULARY)
    assert found.dtype == bool
    assert found.tolist() == [[False, True, True], [False] * 3, [False] * 3]


@pytest.mark.parametrize("unknown", [None, [(), ()], [("fig",), ("yak",)]])
def test_there_is_no_matrix_if_no_label_of_the_vocabulary_is_unknown(unknown):
    assert encode_unknown(annotated([("cat",), ()], unknown), VOCABULARY) is None


def test_unknown_labels_follow_their_images():
    splits = ["train", "val", "train"]
    unknown = [("dog",), ("hat",), ("cat",)]
    images = annotated([("cat",), ("dog",), ()], unknown, splits=splits)
    assert images.select([2, 0]).unknown == [("cat",), ("dog",)]
    assert images.labelled().unknown == unknown, "the last image may have a cat"
    train = images.of_split("train")
    assert train.unknown == [("dog",), ("cat",)]
    assert "dog" not in train.categories, "it is true on a validation image only"
    assert images.labels() == {"cat", "dog"}, "hat is unknown on one image, and true on none"


def test_true_counts_more_than_unknown_and_unknown_more_than_absent(tmp_path):
    """dog and doggo are one label; the images have each pair of true, unknown and absent."""
    states = ("true", "unknown", "absent")
    pairs = [(a, b) for a in states for b in states]

    def having(state):
        names = ("dog", "doggo")
        return [tuple(x for x, s in zip(names, p, strict=True) if s == state) for p in pairs]

    images = annotated(having("true"), having("unknown"), ["dog", "doggo"])
    (tmp_path / "m.csv").write_text("from,to\ndoggo,dog\n")
    merged = merge_labels(images, tmp_path / "m.csv")
    ranks = [min(states.index(state) for state in pair) for pair in pairs]
    assert merged.label_sets == [("dog",) if rank == 0 else () for rank in ranks]
    assert merged.unknown == [("dog",) if rank == 1 else () for rank in ranks]


def test_spellings_of_tags_are_merged_in_unknown_labels_too():
    images = annotated([("dog",), ("Dogs",), ("cat",)], [("Dogs", "cat"), (), ("Dogs",)])
    images = merge_tags(annotated(images.label_sets, images.unknown, ["cat", "dog", "Dogs"]))
    (label,) = set(images.categories) - {"cat"}
    assert images.label_sets == [(label,), (label,), ("cat",)]
    assert images.unknown == [("cat",), (), (label,)]


def test_a_normalised_vocabulary_knows_other_spellings_of_unknown_labels():
    known = Vocabulary(("cat", "dog"), (2, 1), 3, normalised=True)
    images = annotated([("dog",), ()], [("Dogs",), ("Dogs",)], ["cat", "dog", "Dogs"])
    found = encode_unknown(images, known)
    assert np.argwhere(found).tolist() == [[1, 1]], "0.jpg has a dog, whatever else is unknown"


def test_images_of_which_nothing_is_known_are_not_annotated():
    unknown = [("dog", "hat", "fig"), ("hat", "fig", "dog", "cat"), ("hat",), ()]
    images = annotated([("cat",), (), (), ()], unknown)
    assert images.annotated().file_names == ["0.jpg", "2.jpg", "3.jpg"]
    assert images.labelled().file_names == ["0.jpg", "2.jpg"], "hat may be on the third image"
    assert images.known() == [("cat",), (), ("cat", "dog", "fig"), ("cat", "dog", "fig", "hat")]
    assert annotated([("cat",)], None).known() is None


def test_a_label_is_as_frequent_as_on_the_images_where_it_is_known(tmp_path):
    """cat is on 3 of 8 images, dog on 2 of the 3 that say so."""
    sets = [("cat", "dog"), ("cat", "dog"), ("cat",), *[()] * 5]
    unknown = [*[()] * 3, *[("dog",)] * 5]
    vocabulary = count_labels(sets, ["cat", "dog", "fig"], 0, unknown=unknown)
    assert vocabulary.labels == ("dog", "cat", "fig")
    assert (vocabulary.counts, vocabulary.known) == ((2, 3, 0), (3, 8, 8))
    assert vocabulary.num_images == 8
    expected = [math.log(2.5 / 1.5), math.log(3.5 / 5.5), math.log(0.5 / 8.5)]
    assert vocabulary.prior_logits() == pytest.approx(expected)
    kept = count_labels(sets, ["cat", "dog", "fig"], 3, unknown=unknown)
    assert (kept.labels, kept.known, kept.dropped) == (("cat",), (), ("dog", "fig"))
    for name in ("v.pkl", "v.json"):
        save_vocabulary(vocabulary, tmp_path / name)
        assert load_vocabulary(tmp_path / name) == vocabulary
    whole = count_labels(sets, ["cat", "dog"]).to_dict()
    assert "known" not in whole, "files of older versions have no such field"


@pytest.mark.parametrize("known", [[3], [1, 8, 8], [3, 8, 9], [3, 8, 8.0], None])
def test_damaged_numbers_of_known_images(known):
    vocabulary = Vocabulary(("dog", "cat", "fig"), (2, 3, 0), 8, known=(3, 8, 8))
    with pytest.raises(UsageError, match="damaged"):
        Vocabulary.from_dict(vocabulary.to_dict() | {"known": known}, "v.json")
