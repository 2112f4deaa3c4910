"""--labels_to_merge: the file that data_loader.py writes and a user corrects."""

from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK, call, load, refusal

import build_vocab
import data_loader
import evaluate
import train
from labels.merge import merges_as_csv, read_merges
from labels.vocabulary import load_vocabulary
from util.errors import UsageError


@pytest.mark.parametrize(
    "content",
    [
        b"from,to\r\nK\xc3\xb6ter,Hund\r\n=x,y\r\n",
        b"\xef\xbb\xbffrom;to\nK\xc3\xb6ter;Hund\n'=x;y\n",
        b"From\tTo\nK\xf6ter\tHund\n\t\n=x\ty\n",
        "from,to\nKo\u0308ter , Hund\n=x,y".encode(),
        "from\tto\nKöter\tHund\n=x\ty\n".encode("utf-16"),
    ],
    ids=["plain", "semicolons", "tabs in cp1252", "NFD", "UTF-16"],
)
def test_files_as_spreadsheets_save_them(tmp_path, content):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    assert read_merges(path) == {"Köter": "Hund", "=x": "y"}


def test_what_is_written_is_read(tmp_path):
    pairs = [("a,b", 'say "cat"'), ("-x", "x"), ("Köter;Hund", "Hund"), ("@me", "'me")]
    path = tmp_path / "m.csv"
    path.write_bytes(merges_as_csv(pairs))
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "or Excel shows no umlauts"
    assert read_merges(path) == dict(pairs)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "must begin with the row from,to"),
        ("Dog,dog\n", "must begin with the row from,to"),
        ("from,to\nDog\n", "row 2"),
        ("from,to\nDog,dog,hund\n", "row 2"),
        ("from,to\nDog,dog\nDog,hund\n", "a second time"),
        ("from,to\na,b\nb,c\n", "renames 'b'"),
    ],
)
def test_wrong_files(tmp_path, content, what):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=what):
        read_merges(path)


def test_build_vocab_train_and_evaluate_merge_the_same_labels(workdir, capsys):
    """data_loader.py's file works as it is, and corrected, in all scripts."""
    rows = [f"img_{i:02d}.jpg,{x}" for i, x in enumerate(["dog|cat", "Dog", "dog", "cats", "cat"])]
    Path("labels.csv").write_text("\n".join(["file_name,labels", *rows, "img_05.jpg,hat"]))
    data = ("--image_path", "data/images", "--annotations", "labels.csv")
    call(data_loader, *data, "--num_workers", 0)
    merges = Path("labels_to_merge.csv")
    assert read_merges(merges) == {"Dog": "dog", "cats": "cat"}
    merges.write_text("from;to\nDog;dog\ncats;dog\nunicorn;dog\n")  # Excel's, corrected
    capsys.readouterr()
    merge = ("--labels_to_merge", merges)
    call(build_vocab, "--annotations", "labels.csv", "--vocab_path", "v.json", *merge)
    err = capsys.readouterr().err
    assert "labels_to_merge.csv: 2 labels renamed, on 2 images" in err
    assert "renames labels that labels.csv lacks: 'unicorn'" in err
    vocabulary = load_vocabulary(Path("v.json"))
    assert dict(zip(vocabulary.labels, vocabulary.counts, strict=True)) == {
        **{"dog": 4, "cat": 2},
        "hat": 1,
    }
    flags = ("--val_fraction", 0, "--num_epochs", 1, "--batch_size", 6, "--output_dir", "out")
    call(train, *data, *QUICK, *flags, *merge)
    assert load("out/best.pt")["vocabulary"] == vocabulary.to_dict()
    call(evaluate, "--checkpoint", "out", *data, "--num_workers", 0)
    assert np.load("out/predictions.npz")["targets"].sum(0).tolist() == [4, 2, 1]
    merges.unlink()
    sentence = refusal(evaluate, "--checkpoint", "out", *data, "--num_workers", 0)
    assert "cannot read --labels_to_merge labels_to_merge.csv" in sentence
