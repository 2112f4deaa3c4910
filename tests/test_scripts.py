"""The command lines of all scripts: help, no input, wrong input, the default data set."""

import contextlib
import json
import pickle
import shutil

import make_scenes
import pytest
from conftest import TRAIN, call, coco, one_error, refusal, run, write_json

import annotate
import build_vocab
import data_loader
import evaluate
import export
import sample
import serve
import train
from training.signals import LOCK
from util.errors import RunError, UsageError

# --- command lines ----------------------------------------------------------------------------

SCRIPTS = (annotate, build_vocab, data_loader, train, evaluate, sample, serve, export)
SCRIPTS += (make_scenes,)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_help_names_every_flag(script, capsys):
    with pytest.raises(SystemExit) as caught:
        call(script, "--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for action in script.get_args_parser()._actions:
        assert all(flag in out for flag in action.option_strings)
        assert action.help
    assert "(default: None)" not in out or script is make_scenes


def test_help_works_from_any_folder(tmp_path):
    script = "train.py"
    result = run(script, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: {script}")
    assert f"python {script}" in result.stdout, "help shows the command to copy"
    assert not list(tmp_path.iterdir())


def test_no_input(tmp_path):
    for script, what in (
        ("sample.py", "IMAGE"),
        ("evaluate.py", "no trained model found"),
        ("export.py", "no trained model found"),
    ):
        result = run(script, cwd=tmp_path)
        assert what in one_error(result)
        assert result.stderr.count("\n") == 1


BAD_FLAGS = [
    (train, "--image_size", "0"),
    (train, "--num_epochs", "-1"),
    (train, "--batch_size", "none"),
    (train, "--learning_rate", "0"),
    (train, "--learning_rate", "nan"),
    (train, "--learning_rate", "inf"),
    (train, "--val_fraction", "1"),
    (train, "--val_fraction", "-0.1"),
    (train, "--num_workers", "-1"),
    (train, "--arch", "vgg61"),
    (train, "--decoder", "rnn"),
    (train, "--no_such_flag", "1"),
    (evaluate, "--limit", "0"),
    (evaluate, "--num_samples", "0"),
    (build_vocab, "--min_count", "0"),
    (data_loader, "--image_size", "1.5"),
]


@pytest.mark.parametrize(("script", "flag", "value"), BAD_FLAGS, ids=lambda v: str(v)[:30])
def test_bad_flags(script, flag, value, capsys):
    with pytest.raises(SystemExit) as caught:
        call(script, flag, value)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert flag in captured.err or "required" in captured.err


# --- wrong input ------------------------------------------------------------------------------


def test_wrong_input_of_training(workdir):
    """Each mistake is reported before training starts, and no file is written."""
    assert "does not exist" in refusal(train, "--image_path", "absent.jpg")
    assert "--device nonsense" in refusal(train, *TRAIN, "--device", "nonsense")
    assert "--image_path" in refusal(train, "--annotations", "data/annotations/instances.json")
    assert "no annotation" in refusal(train, "--image_path", "data/images/img_07.jpg")
    assert "cannot read" in refusal(train, *TRAIN, "--annotations", "absent.json")
    empty = write_json([], workdir / "empty.json")
    assert "empty.json" in refusal(train, *TRAIN, "--annotations", empty)
    (workdir / "void.json").write_text("")
    assert "not COCO instances json" in refusal(train, *TRAIN, "--annotations", "void.json")
    (workdir / "v.pkl").write_bytes(pickle.dumps([1]))
    assert "not a HybridNet vocabulary" in refusal(train, *TRAIN, "--vocab_path", "v.pkl")
    assert ".pkl or .json" in refusal(train, *TRAIN, "--vocab_path", "new.txt")
    other = write_json(coco([("cat",)]), workdir / "other.json")
    call(build_vocab, "--annotations", other, "--vocab_path", "cats.pkl", "--min_count", 1)
    data = pickle.loads((workdir / "cats.pkl").read_bytes())
    (workdir / "cats.pkl").write_bytes(pickle.dumps({**data, "dropped": []}))
    assert "which the vocabulary lacks" in refusal(train, *TRAIN, "--vocab_path", "cats.pkl")
    (workdir / "data/images/img_05.jpg").unlink()
    assert "for example img_05.jpg" in refusal(train, *TRAIN)
    assert not (workdir / "runs").exists()


def test_wrong_input_as_a_command(workdir):
    """Exit code 2, one line on stderr, no traceback."""
    (workdir / "bad.json").write_text("[]")
    for command in (
        ("train.py", *TRAIN, "--device", "nonsense"),
        ("build_vocab.py", "--annotations", "bad.json"),
        ("sample.py", "data/images", "--checkpoint", "bad.json"),
    ):
        result = run(*command, cwd=workdir)
        one_error(result)
        assert result.stderr.count("\n") == 1


def test_output_folder_is_a_file(workdir):
    (workdir / "file").write_text("")
    result = run("train.py", *TRAIN, "--output_dir", "file", cwd=workdir)
    assert result.returncode in (1, 2)
    assert "file" in one_error(result, result.returncode)
    with pytest.raises((UsageError, RunError), match="file"):
        call(
            build_vocab,
            *("--annotations", "data/annotations/instances.json", "--vocab_path", "file/v.pkl"),
        )


@pytest.mark.parametrize(
    "flags", [("--batch_size", "3"), ("--batch_size", "1")], ids=["last batch", "every batch"]
)
def test_batch_of_one_image(workdir, flags):
    """10 training images in batches of 3: the last has one image, too few for a 1×1 BatchNorm."""
    with contextlib.suppress(UsageError, RunError):  # training or one clear sentence: both are fine
        call(train, *TRAIN, *flags, "--num_epochs", 1)


def test_json_lines_without_nan(workdir, capsys):
    """A hold-out without labels has no mAP, and JSON has no nan."""
    write_json(coco([("cat",), ("dog",)] + [()] * 10), workdir / "few.json")
    val = write_json(coco([()] * 12), workdir / "none.json")
    flags = ("--annotations", "few.json", "--val_annotations", val, "--keep_unlabelled")
    call(train, *TRAIN, *flags, "--num_epochs", 1)

    def fail(text):
        raise AssertionError(f"{text} is not JSON")

    for line in capsys.readouterr().out.splitlines():
        json.loads(line, parse_constant=fail)


# --- the default data set ---------------------------------------------------------------------


def test_without_any_flags(tmp_path, monkeypatch, capsys):
    """train.py, evaluate.py and sample.py on data/scenes: each finds the last one's output."""
    monkeypatch.chdir(tmp_path)
    flags = ("--num_train", 12, "--num_val", 4, "--image_size", 32, "--num_workers", 1)
    call(make_scenes, *flags)
    call(train, "--num_epochs", 1, "--num_workers", 0, "--decoder", "none")
    call(evaluate, "--num_workers", 0)
    call(sample, "data/scenes/images/val/scene_val_000001.jpg")
    captured = capsys.readouterr()
    assert "of data/scenes/annotations/instances_val.json" in captured.out
    assert "trained on these" not in captured.err
    output = tmp_path / "runs/scenes-none"
    assert sorted(p.name for p in output.iterdir()) == [
        *(LOCK, "best.pt", "config.json", "curves.png", "evaluate.log", "images.csv", "last.pt"),
        *("log.jsonl", "metrics.json", "predictions.npz"),
    ]
    assert (tmp_path / "samples/slides/scene_val_000001.jpg.png").exists()
    shutil.rmtree(tmp_path / "runs")
