"""Labels that no training image has: left out of the targets, counted and named."""

from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, call, load, refusal

import evaluate
import train
from labels.annotated import AnnotatedImages
from labels.targets import encode_difficult, encode_targets, left_out
from labels.vocabulary import Vocabulary
from training.data import choose_train_and_val
from util.errors import UsageError

TRAIN_ROWS = ["img_00.jpg,cat|dog", "img_01.jpg,dog", "img_02.jpg,cat"]
VAL_ROWS = ["img_03.jpg,cat|hat", "img_04.jpg,shoe|hat", "img_05.jpg,dog"]
FLAGS = "file_name,cat,dog,hat,shoe,split"
ONE_HOT = ["00.jpg,1,1,0,0", "01.jpg,0,1,0,0", "02.jpg,1,0,0,0"]
ONE_HOT += ["03.jpg,1,0,1,0", "04.jpg,0,0,1,1", "05.jpg,0,1,0,0"]


def one_table(name: str = "all.csv") -> Path:
    rows = [f"{row},train" for row in TRAIN_ROWS] + [f"{row},val" for row in VAL_ROWS]
    Path(name).write_text("\n".join(["file_name,labels,split", *rows]))
    return Path(name)


def two_tables() -> tuple[Path, Path]:
    for name, rows in (("train.csv", TRAIN_ROWS), ("val.csv", VAL_ROWS)):
        Path(name).write_text("\n".join(["file_name,labels", *rows]))
    return Path("train.csv"), Path("val.csv")


def one_hot_table() -> Path:
    splits = ["train"] * 3 + ["val"] * 3
    rows = [f"img_{row},{split}" for row, split in zip(ONE_HOT, splits, strict=True)]
    Path("flags.csv").write_text("\n".join([FLAGS, *rows]))
    return Path("flags.csv")


@pytest.mark.parametrize("layout", ["one table", "two tables", "0/1 columns"])
def test_a_label_only_in_validation_is_left_out_and_named(workdir, layout, capsys):
    val, annotations = None, Path()
    if layout == "two tables":
        annotations, val = two_tables()
    else:
        annotations = one_table() if layout == "one table" else one_hot_table()
    folder = Path("data/images")
    extra = {"val_annotations": val, "val_image_path": folder} if val else {}
    found = choose_train_and_val(folder, annotations, Path("v.json"), **extra)
    assert found.vocabulary.labels == ("cat", "dog")
    assert found.vocabulary.counts == (2, 2)
    assert found.vocabulary.dropped == ()
    assert found.val.targets.tolist() == [[True, False], [False, False], [False, True]]
    assert "2 labels are left out, not in the vocabulary: hat (2), shoe (1)" in (
        capsys.readouterr().err
    )


def test_training_and_evaluation_count_the_same(workdir, capsys):
    train_csv, val_csv = two_tables()
    data = ("--image_path", "data/images")
    quick = (*data, *QUICK, "--num_epochs", 1, "--batch_size", 3)
    call(train, *quick, "--annotations", train_csv, "--val_annotations", val_csv)
    call(train, *quick, "--annotations", one_table())
    two, one = (load(f"runs/{name}-chain/best.pt") for name in ("train", "all"))
    assert one["vocabulary"] == two["vocabulary"]
    assert one["metrics"] == two["metrics"]
    capsys.readouterr()
    call(
        evaluate,
        *data,
        "--annotations",
        val_csv,
        "--num_workers",
        0,
        "--checkpoint",
        "runs/all-chain",
    )
    assert "not in the vocabulary: hat (2), shoe (1)" in capsys.readouterr().err
    targets = np.load("runs/all-chain/predictions.npz")["targets"]
    assert targets.tolist() == [[True, False], [False, False], [False, True]]
    Path("other.csv").write_text("file_name,labels\nimg_03.jpg,Cat\nimg_04.jpg,dog\n")
    sentence = refusal(
        evaluate, *data, "--annotations", "other.csv", "--checkpoint", "runs/all-chain"
    )
    assert "'Cat', but the training images have 'cat'" in sentence
    assert "--labels_to_merge" in sentence


def annotated(*label_sets: tuple[str, ...], **more) -> AnnotatedImages:
    names = [f"{i}.jpg" for i in range(len(label_sets))]
    categories = sorted({label for labels in label_sets for label in labels})
    return AnnotatedImages("x.csv", names, list(label_sets), categories, **more)


def test_training_images_have_no_unknown_label():
    known = Vocabulary(("cat",), (1,), 1)
    images = annotated(("cat",), ("hat",))
    with pytest.raises(UsageError, match="'hat', which the vocabulary lacks; build"):
        encode_targets(images, known)
    assert encode_targets(images, known, training=False).tolist() == [[True], [False]]
    with pytest.raises(UsageError, match="no label that it knows: cat"):
        encode_targets(annotated(("hat",)), known, training=False)


def test_difficult_labels_that_are_unknown_are_ignored():
    images = annotated(("cat", "hat"), (), difficult=[("hat", "cat"), ()])
    targets = encode_difficult(images, Vocabulary(("cat",), (1,), 1))
    assert targets.tolist() == [[True], [False]]


def test_other_spellings_stop():
    known = Vocabulary(("traffic light",), (1,), 1)
    images = annotated(("traffic light", "Traffic_Light"))
    with pytest.raises(UsageError, match="Traffic_Light,traffic light with --labels_to_merge"):
        encode_targets(images, known, training=False)


def test_the_labels_that_are_left_out_are_counted():
    vocabulary = Vocabulary(("Cat", "dog"), (3, 2), 5, ("fig", "kiwi"), normalised=True)
    sets = [("cats", "yak"), ("yak", "Kiwi"), ("dog", "emu"), ()]
    categories = sorted({label for labels in sets for label in labels})
    names = [f"{i}.jpg" for i in range(4)]
    images = AnnotatedImages("a.csv", names, sets, categories)
    found = left_out(images, vocabulary)
    assert found == {"rare": {"kiwi": 1, "fig": 0}, "unknown": {"yak": 2, "emu": 1}}
    assert [list(counts) for counts in found.values()] == [["kiwi", "fig"], ["yak", "emu"]]
