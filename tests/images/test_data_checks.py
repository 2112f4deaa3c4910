"""Free tags, the stratified hold-out, and what is told before training."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, call, load, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

import build_vocab
import data_loader
import evaluate
import images.duplicates
import train
from images.duplicates import duplicates
from labels.annotated import AnnotatedImages
from labels.checks import likely_misspellings
from labels.read import read_labels
from labels.split import split_train_val
from labels.tags import merge_tags, tag_key
from labels.targets import encode_targets
from labels.vocabulary import count_labels, load_vocabulary

# --- tags -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spellings",
    [
        "Sky sky SKY skies",
        "traffic_light Traffic-Lights trafficlight",
        "glass Glasses",
        "box boxes",
    ],
)
def test_spellings_of_one_tag(spellings):
    assert len({tag_key(tag) for tag in spellings.split()}) == 1


@pytest.mark.parametrize("pair", ["news new", "bus bu", "cat car", "universe university", "c c++"])
def test_different_tags(pair):
    a, b = pair.split()
    assert tag_key(a) != tag_key(b)


def test_tags_are_merged_and_evaluation_repeats_it(workdir, capsys):
    tags = ["Dogs|sky", "dog|sky", "dog", "traffic light", "trafficlight|Sky", "dog|traffic-lights"]
    rows = [f"img_{i:02d}.jpg,{t}\n" for i, t in enumerate(tags)]
    Path("tags.csv").write_text("file_name,labels\n" + "".join(rows))
    call(build_vocab, "--annotations", "tags.csv", "--vocab_path", "v.json", "--normalise_tags")
    told = capsys.readouterr().err
    assert "'dog' (3 images) is also 'Dogs' (1)" in told
    assert "7 spellings, 3 labels" in told
    vocabulary = load_vocabulary(Path("v.json"))
    assert dict(zip(vocabulary.labels, vocabulary.counts, strict=True)) == {
        "dog": 4,
        "sky": 3,
        "traffic light": 3,
    }
    flags = ["--image_path", "data/images", "--annotations", "tags.csv", *QUICK]
    flags += ["--val_fraction", 0, "--batch_size", 6]
    call(train, *flags, "--normalise_tags", "--output_dir", "out")
    assert load("out/best.pt")["vocabulary"] == vocabulary.to_dict()
    Path("other.csv").write_text("file_name,labels\nimg_00.jpg,DOG|Traffic_Light\n")
    where = ("--image_path", "data/images", "--annotations", "other.csv", "--num_workers", 0)
    call(evaluate, "--checkpoint", "out/best.pt", *where)
    assert np.load("out/predictions.npz")["targets"].tolist() == [[True, False, True]]
    call(build_vocab, "--annotations", "tags.csv", "--vocab_path", "plain.json")
    sentence = refusal(train, *flags, "--normalise_tags", "--vocab_path", "plain.json")
    assert "was built without --normalise_tags" in sentence


# --- hold-out ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 200), st.integers(1, 12), st.sampled_from([0.1, 0.3]))
def test_a_hold_out_is_a_division_of_its_size(seed, num_images, num_labels, fraction):
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.random(num_labels) * 0.5
    train_part, held = split_train_val(targets, fraction, seed)
    assert sorted([*train_part, *held]) == list(range(num_images))
    assert len(held) == round(fraction * num_images)
    again = split_train_val(targets, fraction, seed)
    assert (again[0] == train_part).all()
    assert (again[1] == held).all()
    alone = targets.sum(0) == 1
    assert targets[train_part].any(0)[alone].all() or len(held) > num_images - num_labels


def test_rare_labels_are_on_both_sides_and_shares_are_even():
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
        assert np.abs(ours).max() < 4, "of 50 and 30 images; random division: several times that"


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


# --- checks -----------------------------------------------------------------------------------


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


def test_duplicates_are_found_by_content_and_few_files_are_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = []
    for name, sizes in (("train", range(100, 160)), ("val", range(150, 170))):
        (tmp_path / name).mkdir()
        parts.append([tmp_path / name / f"{size}.jpg" for size in sizes])
        for path in parts[-1]:
            path.write_bytes(rng.bytes(int(path.stem)))
    shutil.copy(parts[0][3], parts[1][5])
    shutil.copy(parts[0][3], parts[0][4])  # within a split it is no concern
    read = []
    digest = images.duplicates._content_hash
    monkeypatch.setattr(images.duplicates, "_content_hash", lambda p: read.append(p) or digest(p))
    assert duplicates(*parts) == [(parts[0][3], parts[1][5])]
    assert sorted(read) == sorted([parts[0][3], parts[0][4], parts[1][5]])
    by_hash = [{hashlib.sha256(p.read_bytes()).digest() for p in part} for part in parts]
    assert len(by_hash[0] & by_hash[1]) == 1


def test_all_is_told_before_training_and_by_the_data_loader(workdir, capsys):
    shutil.copy("data/images/img_00.jpg", "data/images/img_01.jpg")
    rows = ["img_00.jpg,person,train", "img_01.jpg,person,val", "img_02.jpg,Person,train"]
    rows += [f"img_{i:02d}.jpg,person,train" for i in range(3, 11)] + ["img_11.jpg,,train"]
    Path("data/images/labels.csv").write_text("\n".join(["file_name,labels,split", *rows]))
    call(data_loader, "--image_path", "data/images", "--num_workers", 0)
    first = capsys.readouterr().err
    flags = ["--keep_unlabelled", "--num_epochs", "1", "--batch_size", 6]
    call(train, "--image_path", "data/images", *QUICK, *flags)
    second = capsys.readouterr().err
    for told in (first, second):
        assert "labels are on fewer than 10 images: " in told
        assert "Person (1)" in told
        assert "1 labels look misspelt: 'Person' for 'person'" in told
        assert "1 images are in two splits: data/images/img_00.jpg = data/images/img_01.jpg" in told
    assert "12 images, 11 with labels" in first
    assert "1 images have no label" in second


def test_merging_leaves_what_needs_none_alone():
    images = AnnotatedImages("x", ["a.jpg"], [("cat", "dog")], ["cat", "dog"])
    assert merge_tags(images) is images
