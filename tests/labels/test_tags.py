"""Free tags: spellings of one tag are merged, and evaluation merges them in the same way."""

from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, call, load, refusal

import build_vocab
import evaluate
import train
from labels.annotated import AnnotatedImages
from labels.tags import merge_tags, tag_key
from labels.vocabulary import load_vocabulary


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
    printed = capsys.readouterr().err
    assert "'dog' (3 images) is also 'Dogs' (1)" in printed
    assert "7 spellings, 3 labels" in printed
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


def test_merging_leaves_what_needs_none_alone():
    images = AnnotatedImages("x", ["a.jpg"], [("cat", "dog")], ["cat", "dog"])
    assert merge_tags(images) is images
