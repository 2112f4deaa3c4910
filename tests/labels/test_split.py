"""The hold-out: its exact size, and each label in the same proportion."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labels.read import read_labels
from labels.split import split_train_val
from labels.targets import encode_targets
from labels.vocabulary import count_labels


@example(207, 20, 12, 0.1)
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 200), st.integers(1, 12), st.sampled_from([0.1, 0.3]))
def test_the_hold_out_has_its_exact_size(seed, num_images, num_labels, fraction):
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.random(num_labels) * 0.5
    train_part, held = split_train_val(targets, fraction, seed)
    assert sorted([*train_part, *held]) == list(range(num_images))
    assert len(held) == round(fraction * num_images)
    again = split_train_val(targets, fraction, seed)
    assert (again[0] == train_part).all()
    assert (again[1] == held).all()
    alone = targets.sum(0) == 1
    others = int((~targets[:, alone].any(1)).sum())
    assert targets[train_part].any(0)[alone].all() or len(held) > others


def test_rare_labels_are_in_both_parts_and_proportions_are_kept():
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02])
    for seed in range(5):
        targets = np.zeros((1000, 16), bool)
        targets[:, :6] = rng.random((1000, 6)) < rates
        for c in range(6, 16):
            targets[rng.choice(1000, 2, replace=False), c] = True
        train_part, held = split_train_val(targets, 0.1, seed)
        assert targets[train_part].any(0).all()
        assert targets[held].any(0).all()
        assert len(held) == 100
        ours = targets[held].sum(0)[:6] - 0.1 * targets.sum(0)[:6]
        assert np.abs(ours).max() < 4, (
            "of 50 and 30 images; a random split deviates several times more"
        )


def test_too_many_rare_labels_for_the_hold_out(capsys):
    targets = np.repeat(np.eye(30, dtype=bool), 2, axis=0)
    train_part, held = split_train_val(targets, 0.1, 0)
    assert len(held) == 6
    assert targets[held].any(0).sum() == 6
    assert targets[train_part].any(0).all()
    assert (
        "24 labels are on no held-out image (of 6): raise --val_fraction" in capsys.readouterr().err
    )


def test_real_labels_are_held_out_evenly(shared):
    images = read_labels(shared / "coco2014-labels/instances_val2014.json")
    vocabulary = count_labels(images.label_sets, images.categories)
    targets = encode_targets(images, vocabulary)
    held = split_train_val(targets, 0.1, 0)[1]
    share = targets[held].sum(0) / targets.sum(0)
    assert share.min() > 0.09
    assert share.max() < 0.12
