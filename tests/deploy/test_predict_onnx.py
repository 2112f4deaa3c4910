"""predict_onnx.py: it stands alone, and files from strangers end it with one sentence."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import RANKED, REPO, call, write_picture

import sample
from deploy import predict_onnx
from images.transforms import Preprocessing

SIZE = 32


@pytest.fixture
def folder(export_run):
    return export_run.folder


def test_the_example_needs_no_other_file_of_the_project(folder, trained, tmp_path, capsys):
    """A copy, alone in a folder and without torch, prints what sample.py prints."""
    alone = tmp_path / "elsewhere"
    shutil.copytree(folder, alone)
    photo = write_picture(tmp_path / "photo.png", RANKED[:2], side=SIZE)  # nothing to resize
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__'); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, alone / "predict_onnx.py", alone, photo]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *lines, modules = result.stdout.splitlines()
    files = (*REPO.glob("*.py"), *REPO.glob("[!.]*/**/*.py"))  # not those of .venv
    own = {path.stem for path in files} - {"predict_onnx"}
    assert not own & set(modules.split())
    said = {line[4:].split()[0]: float(line.split()[-1].rstrip("%")) for line in lines[1:]}
    call(sample, photo, "--checkpoint", trained.output / "best.pt", "--json", "--device", "cpu")
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert said == {name: pytest.approx(100 * p, abs=2) for name, p in labels.items()}


def test_the_example_sees_the_pixels_the_model_sees(tmp_path):
    """Up to rounding after a resize: upright, on white, large JPEGs decoded at a smaller size."""
    for name, side in (("a.jpg", 40), ("b.jpg", 300), ("c.png", SIZE)):
        path = write_picture(tmp_path / name, ("person", "dog"), side)
        ours = Preprocessing(SIZE).eval_transform().from_file(path).numpy()[None].astype(int)
        assert np.abs(predict_onnx.load_image(path, SIZE) - ours).max() <= (side != SIZE)


def ends_with(capsys, function, *args) -> str:
    """The sentence with which predict_onnx.py ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        function(*args)
    sentence = capsys.readouterr().err
    assert caught.value.code == 2
    assert sentence.startswith("error: ")
    assert sentence.count("\n") == 1
    assert sentence[:-1].isprintable()
    return sentence


def test_the_example_reports_bad_files_in_one_sentence(tmp_path, capsys):
    (tmp_path / "encoder.onnx").write_text("no network")
    os.mkfifo(tmp_path / "pipe\x1b")  # opening it would block
    for name, what in (
        ("absent.onnx", "cannot read"),
        ("x" * 300, "cannot read"),  # pathlib's `exists` raises an error for it
        ("encoder.onnx", "is damaged"),
        ("pipe\x1b", "is not an ordinary file"),
    ):
        assert what in ends_with(capsys, predict_onnx.open_network, tmp_path / name)
    for name in ("absent.onnx", "x" * 300, "encoder.onnx", "pipe\x1b"):
        ends_with(capsys, predict_onnx.load_image, tmp_path / name, SIZE)


def with_metadata(folder, other, both=False, **changes):
    """A copy of an export with other metadata in the encoder, or in both networks."""
    shutil.copytree(folder, other, dirs_exist_ok=True)
    for name in ("encoder.onnx", "decoder_step.onnx")[: 1 + both]:
        network = onnx.load(folder / name)
        for entry in network.metadata_props:
            entry.value = changes.get(entry.key, entry.value)
        onnx.save(network, other / name)
    return other


def test_the_example_refuses_metadata_that_does_not_fit(folder, tmp_path, capsys):
    for key, values in {
        "labels": ("{", "[]", "{}", "[1, 2]", '["a"]', json.dumps(["a"] * 5), "[" * 9999, "null"),
        "threshold": ("", "nan", "inf", "x"),
        "image_size": ("", "0", "-1", "64", "5000000", "1e3", "9" * 5000),
        "decoder": ("", "other", "none", "softmax"),
        "format": ("", "hybridnet-onnx-2"),
        "rules": (
            "",
            "{}x",
            "[1]",
            '[["x", [0, 1]]]',
            '[["implies", [0, 99]]]',
            '[["implies", 1]]',
        ),
    }.items():
        for value in values:
            other = with_metadata(folder, tmp_path / "other", **{key: value})
            ends_with(capsys, predict_onnx.open_networks, other)


def test_the_example_shows_labels_as_text(folder, tmp_path, capsys):
    labels = ["\x1b[2J", "\u202e", "a\nb", "\ud800", "Übergröße"]
    other = with_metadata(folder, tmp_path / "other", both=True, labels=json.dumps(labels))
    photo = write_picture(tmp_path / os.fsdecode(b"caf\xe9\x1b.png"), RANKED[:1])
    predict_onnx.main(other, [photo])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith("caf\\udce9\\x1b.png")
    shown = {line[4:].split()[0] for line in lines}
    assert shown == {"\\x1b[2J", "\\u202e", "a\\nb", "\\ud800", "Übergröße"}


def test_the_example_keeps_rules(folder, tmp_path, capsys):
    """* marks one label of a group, also where none is probable; a contradiction is said."""
    photo = write_picture(tmp_path / "photo.png", RANKED[:2], side=SIZE)
    one_of = [["one of", [0, 1, 2]]]
    other = with_metadata(folder, tmp_path / "other", both=True, rules=json.dumps(one_of))
    predict_onnx.main(other, [photo])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert sum(line[2] == "*" and line[4:].split()[0] in RANKED[:3] for line in lines) == 1
    never = [*one_of, *(["exclusive", [i, j]] for i in range(3) for j in range(3, len(RANKED)))]
    never.append(["one of", list(range(3, len(RANKED)))])
    other = with_metadata(folder, tmp_path / "third", both=True, rules=json.dumps(never))
    predict_onnx.main(other, [photo])
    assert "none of 4,096 sampled label sets keeps the rules" in capsys.readouterr().out
