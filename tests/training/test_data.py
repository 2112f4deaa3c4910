"""Which images train and validate a model: the hold-out and --leave_out."""

from pathlib import Path

import numpy as np
import pytest
from conftest import LABEL_SETS, QUICK, call, load, refusal, write_picture, write_table

import train
from labels.read import read_labels
from labels.vocabulary import save_vocabulary
from training.data import TrainAndVal, choose_train_and_val
from util.errors import UsageError

ANNOTATIONS = Path("data/annotations/instances.json")


def choose(**options: object) -> TrainAndVal:
    return choose_train_and_val(Path("data/images"), ANNOTATIONS, Path("new.pkl"), **options)


def names(images: TrainAndVal) -> set[str]:
    return {*images.train.images.file_names, *images.val.images.file_names}


def leave(*names: str) -> Path:
    path = Path("names.txt")
    path.write_text("\n".join(names) + "\n", "utf-8")
    return path


def test_held_out_names(workdir):
    images = choose(val_fraction=0.3)
    assert images.held_out == images.val.images.file_names == [p.name for p in images.val.paths]
    assert len(images.held_out) == 3
    assert not set(images.held_out) & set(images.train.images.file_names)
    for part in (images.train, images.val):
        for name, row in zip(part.images.file_names, part.targets, strict=True):
            labels = {images.vocabulary.labels[j] for j in np.flatnonzero(row)}
            assert labels == set(LABEL_SETS[int(name[4:6])])
    assert choose(val_fraction=0.0).held_out is None
    assert choose(limit=4).held_out is None
    named = {"val_annotations": ANNOTATIONS, "val_image_path": Path("data/images")}
    assert choose(**named).held_out is None


def test_left_out_images(workdir):
    """All labelled images but these are used; labels that only these have are unknown."""
    out = [f"img_{i:02d}.jpg" for i in (4, 7, 10)]  # all zebras, and an image without labels
    images = choose(leave_out=leave(*out), val_fraction=0.25)
    assert len(images.val.images.file_names) == 2
    used = {f"img_{i:02d}.jpg" for i in range(12)} - set(out)
    assert names(images) == used
    assert images.held_out == images.val.images.file_names
    assert images.vocabulary.labels == ("person", "cat", "dog", "apple")


def test_left_out_images_of_a_set_with_splits(workdir, capsys):
    """The splits are ignored: an image of val or test is trained on, if it is not left out."""
    rows = [(f"{i}.jpg", "ab"[i % 2], ("train", "val", "test")[i % 3]) for i in range(9)]
    for name, _, _ in rows:
        write_picture(workdir / "own" / name)
    table = write_table(workdir / "own", ("file", "label", "split"), rows)
    listed = read_labels(table, Path("own"))
    assert set(listed.splits) == {"train", "val", "test"}
    images = choose_train_and_val(
        Path("own"), table, Path("new.pkl"), leave_out=leave("0.jpg", "1.jpg"), val_fraction=0.3
    )
    assert names(images) == {f"{i}.jpg" for i in range(2, 9)}
    assert len(images.held_out) == 2
    assert "2 images left out; the splits are ignored" in capsys.readouterr().err


def test_a_vocabulary_that_lacks_labels_of_the_other_splits(workdir, capsys):
    """evaluate.py --folds gives the vocabulary of the split train."""
    rows = [(f"{i}.jpg", "ab"[i % 2], "train") for i in range(6)]
    rows += [("6.jpg", "a|new", "test"), ("7.jpg", "b", "test")]
    for name, _, _ in rows:
        write_picture(workdir / "own" / name)
    table = write_table(workdir / "own", ("file", "label", "split"), rows)
    vocabulary = choose_train_and_val(Path("own"), table).vocabulary
    save_vocabulary(vocabulary, Path("v.json"))
    images = choose_train_and_val(Path("own"), table, Path("v.json"), leave_out=leave("0.jpg"))
    assert images.vocabulary.labels == vocabulary.labels
    assert "6.jpg" in names(images)
    assert "1 label is left out, not in the vocabulary: new (1)" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_list_from_any_editor(workdir, ending):
    Path("names.txt").write_bytes(
        b"\xef\xbb\xbf" + f"img_00.jpg{ending}{ending}img_01.jpg".encode()
    )
    images = choose(leave_out=Path("names.txt"))
    assert not {"img_00.jpg", "img_01.jpg"} & {
        *images.train.images.file_names,
        *images.val.images.file_names,
    }


def test_lists_that_cannot_be_used(workdir):
    def sentence() -> str:
        with pytest.raises(UsageError) as caught:
            choose(leave_out=Path("names.txt"))
        return str(caught.value)

    assert "cannot read --leave_out names.txt (No such file" in sentence()
    leave()
    assert "names no image" in sentence()
    leave("img_00.jpg", "IMG_01.jpg")
    assert "'IMG_01.jpg', which is not an image of data/annotations/instances.json" in sentence()
    leave(*(f"img_{i:02d}.jpg" for i in range(12)))
    assert "leaves no labelled image" in sentence()
    Path("names.txt").write_bytes(b"\xff")
    assert "which is not an image" in sentence()


def test_flags_and_checkpoint(workdir):
    flags = ("--image_path", "data/images", *QUICK, "--num_epochs", 1, "--leave_out", leave())
    sentence = refusal(train, *flags, "--val_annotations", ANNOTATIONS)
    assert "--val_annotations names validation images" in sentence
    assert "--val_image_path names" in refusal(train, *flags, "--val_image_path", "data/images")
    leave("img_00.jpg")
    call(train, *flags, "--val_fraction", 0.2)
    found = load(next(workdir.glob("runs/*/best.pt")))
    assert found["flags"]["leave_out"] == "names.txt"
    assert len(found["held_out"]) == 2
    assert "img_00.jpg" not in found["held_out"]
