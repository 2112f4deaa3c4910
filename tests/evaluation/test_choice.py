"""evaluation/choice.py: which images are evaluated, and that no results of others are replaced."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.choice import (
    HOLD_OUT,
    Chosen,
    choose_images,
    choose_output_dir,
    choose_split,
    warn_of_leaks,
)
from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS
from util.errors import UsageError

NAMES = [f"{i}.jpg" for i in range(6)]


def annotated(splits=None, names=NAMES):
    """Images with one label each."""
    label_sets = [("cat",)] * len(names)
    return AnnotatedImages("labels.csv", names, label_sets, ["cat"], splits=splits)


def choose(splits=None, held_out=None, split=None, is_own=True, is_named=False):
    """(part, file names, is_default) that choose_split takes."""
    chosen = choose_split(
        Path("photos"), annotated(splits), split, {"held_out": held_out}, is_own, is_named
    )
    return chosen.part, [NAMES[i] for i in chosen.rows], chosen.is_default


def test_test_comes_before_val_and_val_before_the_hold_out():
    three = ["train", "test", "val", "train", "test", "val"]
    assert choose(three) == ("test", ["1.jpg", "4.jpg"], True)
    assert choose(three, split="val") == ("val", ["2.jpg", "5.jpg"], False)
    assert choose(three, split="test") == ("test", ["1.jpg", "4.jpg"], True)
    assert choose(["train", "val"] * 3)[:2] == ("val", ["1.jpg", "3.jpg", "5.jpg"])
    held = ["3.jpg", "0.jpg"]
    assert choose(held_out=held) == (HOLD_OUT, ["0.jpg", "3.jpg"], True)
    assert choose(held_out=held, split="val")[:2] == (HOLD_OUT, ["0.jpg", "3.jpg"])
    assert choose(held_out=held, split="train")[1] == ["1.jpg", "2.jpg", "4.jpg", "5.jpg"]
    assert choose(held_out=held, split="all") == ("all", NAMES, False)
    with_test = ["train"] * 4 + ["test"] * 2
    assert choose(with_test, held_out=["1.jpg"])[0] == "test"
    assert choose(with_test, held_out=["1.jpg"], split="val")[1] == ["1.jpg"]
    assert choose(with_test, held_out=["1.jpg"], split="train")[1] == ["0.jpg", "2.jpg", "3.jpg"]


def test_no_hold_out_is_invented():
    with pytest.raises(UsageError, match="training kept out no image"):
        choose()
    with pytest.raises(UsageError, match="training kept out no image"):
        choose(["train"] * 6)
    with pytest.raises(UsageError, match="has no split test; --split can be train, all"):
        choose(split="test")
    assert choose(split="train")[1] == NAMES
    # the same names in another folder are other photos
    assert choose(held_out=["1.jpg"], is_own=False, is_named=True) == ("all", NAMES, True)
    assert choose(["train"] * 6, is_named=True, is_own=False)[0] == "train"


def test_a_held_out_image_that_is_gone_is_said(capsys):
    assert choose(held_out=["1.jpg", "gone.jpg"])[1] == ["1.jpg"]
    assert "1 of the 2 held-out images are no longer in labels.csv" in capsys.readouterr().err


@given(
    splits=st.none() | st.lists(st.sampled_from(("train", "val", "test")), min_size=6, max_size=6),
    held=st.sets(st.sampled_from(NAMES)),
)
def test_parts_never_overlap_and_together_are_all(splits, held):
    held = {name for name in held if not splits or splits[NAMES.index(name)] == "train"}
    if splits and "val" in splits:
        held = set()  # training held nothing out then
    found = []
    for part in ("test", "val", "train"):
        try:
            found += choose(splits, sorted(held), part)[1]
        except UsageError:
            continue
    assert sorted(found) == NAMES


def checkpoint(folder: Path, **flags) -> dict:
    return {"flags": {"image_path": str(folder), **flags}, "held_out": ["a.jpg"]}


def test_a_test_split_comes_before_val_annotations(tmp_path):
    own, val = tmp_path / "own.csv", tmp_path / "val.csv"
    own.write_text("file_name,labels,split\na.jpg,cat,train\nb.jpg,dog,test\nc.jpg,cat,train\n")
    val.write_text("file_name,labels\nd.jpg,cat\ne.jpg,dog\n")
    named = {"val_annotations": str(val), "val_image_path": str(tmp_path)}
    about = {**checkpoint(tmp_path, annotations=str(own), **named), "held_out": None}
    chosen = choose_images(None, None, None, about, DEFAULTS)
    assert (chosen.part, chosen.images.file_names, chosen.is_default) == ("test", ["b.jpg"], True)
    chosen = choose_images(None, None, "val", about, DEFAULTS)
    assert (chosen.images.file_names, chosen.is_default) == (["d.jpg", "e.jpg"], False)
    own.write_text("file_name,labels\na.jpg,cat\nb.jpg,dog\n")
    chosen = choose_images(None, None, None, about, DEFAULTS)
    assert (chosen.images.file_names, chosen.is_default) == (["d.jpg", "e.jpg"], True)
    own.unlink()
    assert choose_images(None, None, None, about, DEFAULTS).part == "val"
    with pytest.raises(UsageError, match="which is not there"):
        choose_images(None, None, "train", about, DEFAULTS)


def test_splits_that_training_ignored_are_no_parts():
    """--leave_out trains on the images of val and test, too: they are no test."""
    about = {"held_out": ["1.jpg"], "flags": {"leave_out": "names.txt"}}
    listed = annotated(["train"] * 4 + ["test"] * 2)
    found = choose_split(Path("photos"), listed, None, about, True, False)
    assert (found.part, found.images.file_names) == (HOLD_OUT, ["1.jpg"])
    assert found.listed.splits == listed.splits, "the corrected table keeps them"
    assert choose_split(Path("photos"), listed, None, about, False, True).part == "test"


def test_leaks_are_said_whatever_the_label_file_is_called(tmp_path):
    """A corrected table has the training images; another table of the folder has not."""
    own, corrected, other = (tmp_path / f"{n}.csv" for n in ("labels", "labels.corrected", "other"))
    for path in (own, corrected):
        path.write_text("file_name,labels\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\n")
    other.write_text("file_name,labels\nd.jpg,cat\ne.jpg,dog\n")
    about = checkpoint(tmp_path, annotations=str(own))

    def leak(path: Path, split: str | None) -> str:
        return warn_of_leaks(choose_images(tmp_path, path, split, about, DEFAULTS), about)

    for path in (own, corrected):
        assert "was selected on these images" in leak(path, None)
        assert "was trained on" in leak(path, "all")
        assert "was trained on" in leak(path, "train")
    assert leak(other, None) == ""


def test_the_whole_data_set_stays_at_hand():
    """Corrected labels are written for all images, not only for the judged ones."""
    chosen = choose_split(Path("x"), annotated(["train"] * 5 + ["test"]), None, {}, True, False)
    assert chosen.images.file_names == ["5.jpg"]
    assert chosen.listed.file_names == NAMES


def chosen(annotations="labels.csv", part="test", is_default=True, is_own=True) -> Chosen:
    listed = AnnotatedImages(annotations, NAMES, [()] * 6, [])
    return Chosen(Path("photos"), listed, [0], part, is_own, is_default)


def write_results(folder: Path, **identity) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(identity))


def test_results_of_other_images_are_never_replaced(tmp_path):
    def folder(*args, limit=None, folds=None, **about):
        return choose_output_dir(None, tmp_path, chosen(*args, **about), limit, folds)

    assert folder() == tmp_path
    write_results(tmp_path, annotations="labels.csv", split="test", limit=None, folds=None)
    assert folder() == tmp_path, "the same images again"
    assert folder(limit=5) == tmp_path / "first-5"
    assert folder(part="all", is_default=False, folds=5) == tmp_path / "all-folds-5"
    other = {"part": "all", "is_own": False}
    assert folder("new/labels.csv", **other) == tmp_path / "labels"
    write_results(tmp_path / "labels", annotations="new/labels.csv", split="all")
    assert folder("new/labels.csv", **other) == tmp_path / "labels"
    assert folder("newer/labels.csv", **other) == tmp_path / "labels-2"
    write_results(tmp_path, annotations="older.csv", split="test")
    assert folder() == tmp_path / "labels-2", "labels has other results"


def test_a_quick_look_does_not_replace_a_report(tmp_path):
    out = tmp_path / "out"
    write_results(out, annotations="labels.csv", split="test", limit=None, num_images=9)
    for other, limit in ((chosen(), 5), (chosen(part="train"), None)):
        with pytest.raises(UsageError, match="has results of 9 images"):
            choose_output_dir(out, tmp_path, other, limit, None)
    assert choose_output_dir(out, tmp_path, chosen(), None, None) == out
    write_results(out, annotations="labels.csv", split="test", limit=9)
    assert choose_output_dir(out, tmp_path, chosen(), 5, None) == out
    (out / "metrics.json").write_text("[1]")
    with pytest.raises(UsageError, match="move it away"):
        choose_output_dir(out, tmp_path, chosen(), 5, None)
