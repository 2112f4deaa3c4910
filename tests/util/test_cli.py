"""Command lines: other spellings of flags are understood, or answered with the flag's name."""

import os
import subprocess
import sys

import pytest
from conftest import REPO, call

import build_vocab
import data_loader
import evaluate
import export
import sample
import train
from util.cli import OTHER_NAMES, ArgumentParser, did_you_mean


def complaint(script, capsys, *flags) -> str:
    with pytest.raises(SystemExit) as caught:
        call(script, *flags)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("script", "given", "meant"),
    [
        (train, "--epochs", "--num_epochs"),
        (train, "--max-epochs", "--num_epochs"),
        (train, "--lr", "--learning_rate"),
        (train, "-lr", "--learning_rate"),
        (train, "--wd", "--weight_decay"),
        (train, "--workers", "--num_workers"),
        (train, "--img-size", "--image_size"),
        (train, "--epocs", "--num_epochs"),
        (train, "--learningrate", "--learning_rate"),
        (train, "--Num-Epochs", "--num_epochs"),
        (data_loader, "--images", "--image_path"),  # although --image_path is required
        (evaluate, "--model", "--checkpoint"),
        (evaluate, "--checkpont", "--checkpoint"),
        (sample, "--output_dir", "--output"),
        (export, "--weights", "--checkpoint"),
        (build_vocab, "--delimiter", "--separator"),
        (train, "--labels", "--annotations"),  # although --labels_to_merge begins so
    ],
)
def test_an_unknown_flag_names_the_flag_that_is_meant(script, given, meant, capsys):
    for flags in ([given, "5"], [f"{given}=5"]):
        sentence = complaint(script, capsys, *flags)
        assert sentence.startswith(f"error: unknown flag {given}: did you mean {meant}")


def test_a_flag_that_is_like_no_other(capsys):
    assert complaint(train, capsys, "--frobnicate").startswith("error: unknown flag --frobnicate (")


@pytest.mark.parametrize("flags", [["--batch-size", "5"], ["--batch-size=5"], ["--batch_s", "5"]])
def test_dashes_are_understood(flags):
    assert train.get_args_parser().parse_args(flags).batch_size == 5


def test_values_are_left_as_they_are():
    parser = ArgumentParser("about")
    parser.add_argument("--low_score", type=float)
    parser.add_argument("--known", nargs="+")
    parser.add_argument("images", nargs="*")
    flags = ["--low-score", "-1.5", "--known", "t-shirt", "a=b-c", "- x", "--", "--low-score", "-y"]
    parsed = parser.parse_args(flags)
    assert parsed.low_score == -1.5
    assert parsed.known == ["t-shirt", "a=b-c", "- x"]
    assert parsed.images == ["--low-score", "-y"]


def test_every_other_name_leads_to_a_flag():
    scripts = (build_vocab, data_loader, train, evaluate, sample, export)
    flags = {f for s in scripts for a in s.get_args_parser()._actions for f in a.option_strings}
    for name, meant in OTHER_NAMES.items():
        assert {f"--{flag}" for flag in meant} <= flags, name
        assert did_you_mean(name, [meant[-1]]) == [meant[-1]]


def test_a_full_disk_under_the_output_is_one_error(tiny):
    """As in `build_vocab.py … > FILE`."""
    if not os.path.exists("/dev/full"):
        pytest.skip("the system has no /dev/full")
    command = [sys.executable, REPO / "build_vocab.py", "--annotations", tiny.annotations]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*command, "--vocab_path", tiny.folder / "v.json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: cannot write the output (No space")
    assert "Traceback" not in result.stderr
    assert "ignored" not in result.stderr
