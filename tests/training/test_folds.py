"""training/folds.py: how images are divided, and the commands that train without a part of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.vocabulary import count_labels
from training import folds
from training.folds import make_folds, train_folds
from util.errors import RunError, UsageError


@given(st.integers(2, 6), st.integers(6, 60), st.integers(0, 5), st.integers(0, 3))
def test_every_image_is_in_one_fold(num_folds, num_images, num_labels, seed):
    targets = np.random.default_rng(seed).random((num_images, num_labels)) < 0.3
    found = make_folds(targets, num_folds, seed)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(num_images))
    sizes = [len(fold) for fold in found]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(fold) > 0).all() for fold in found)


def test_folds_have_about_the_same_labels():
    targets = np.random.default_rng(0).random((300, 4)) < (0.5, 0.2, 0.1, 0.05)
    counts = np.array([targets[fold].sum(0) for fold in make_folds(targets, 5)])
    assert (np.ptp(counts, axis=0) <= 2).all()


def test_fewer_images_than_folds_are_refused(capsys):
    with pytest.raises(UsageError, match="3 images cannot be divided into 5 folds"):
        make_folds(np.ones((3, 2), bool), 5)
    assert capsys.readouterr().err == ""


def test_commands_and_failures(tmp_path, monkeypatch, capfd):
    """A stand-in for train.py that prints its flags, and fails for the second fold."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nprint(*sys.argv[1:], sep='\\n', file=sys.stderr)\n"
        "sys.exit('error: the disk is full' if 'fold-2' in sys.argv[2] else 0)\n"
    )
    monkeypatch.setattr(folds, "TRAIN", script)
    flags = {"image_path": "my photos", "pretrained": True, "limit": None, "keep_unlabelled": False}
    flags |= {"label_columns": ["a b", "c"], "start_from": "old.pt", "val_annotations": "val.csv"}
    vocabulary = count_labels([("cat",), ("dog",)], ["cat", "dog"])
    out = tmp_path / "out"
    with pytest.raises(RunError, match="the disk is full"):
        train_folds(flags, vocabulary, [["1.jpg"], ["é.jpg"]], out)
    words = (out / "fold-1.log").read_text().splitlines()
    assert words[:6] == [
        *("--output_dir", str(out / "fold-1"), "--vocab_path", str(out / "vocab.json")),
        *("--leave_out", str(out / "fold-1.txt")),
    ]
    assert words[6:] == ["--image_path", "my photos", "--pretrained", "--label_columns", "a b", "c"]
    assert (out / "fold-2.txt").read_text("utf-8") == "é.jpg\n"
    assert "do not --start_from" in capfd.readouterr().err


def test_after_a_failure_no_other_fold_is_trained(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time\nif 'fold-1' in sys.argv[2]:\n    sys.exit('error: no')\n"
        "time.sleep(0.5)\nopen(sys.argv[2] + '-done', 'w').close()\n"
    )
    monkeypatch.setattr(folds, "TRAIN", script)
    vocabulary = count_labels([("cat",), ("dog",)], ["cat", "dog"])
    with pytest.raises(RunError, match=r"fold-1\.log\): no"):
        train_folds({"device": "cuda"}, vocabulary, [["1.jpg"], ["2.jpg"], ["3.jpg"]], tmp_path)
    assert [*tmp_path.glob("*-done")] == []
