"""Every file that a command reads may come from a stranger: refused in one sentence, in time."""

import ast
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import EVALUATE, REPO, TRAIN, call, refusal, write_picture
from test_imports import ALONE, floor, source_files

import annotate
import build_vocab
import data_loader
import evaluate
import export
import sample
import serve
import train
from deploy.model_card import write_card
from images.bad_images import BadImages
from inference.checkpoint import find_checkpoint, load_checkpoint
from labels.read import read_labels
from labels.vocabulary import Vocabulary
from report.marked import PROGRAM
from report.prediction_files import PredictionFiles
from util.errors import UsageError
from util.reading import open_file

IMAGES = ("--image_path", "data/images")
COCO = ("--annotations", "data/annotations/instances.json")
PIPE = "pipe"


@pytest.fixture(autouse=True)
def _in_time():
    """A test fails if a command waits. Not by an OSError: commands make sentences of those."""

    def end(number, frame):
        pytest.fail("the command hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(100)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the tiny data set and its run; `evaluated` once, without intervals."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return find_checkpoint().parent


# --- pipes ------------------------------------------------------------------------------------

BEST = ("--checkpoint", "runs/instances-chain/best.pt")
PIPES = {
    build_vocab: (
        ("--annotations", PIPE),
        (*COCO, "--labels_to_merge", PIPE),
        ("--annotations", "numbers.csv", "--label_names", PIPE),
    ),
    data_loader: ((*IMAGES, "--annotations", PIPE),),
    train: (
        (*TRAIN, "--annotations", PIPE),
        (*TRAIN, "--vocab_path", PIPE),
        (*TRAIN, "--weights", PIPE),
        (*TRAIN, "--start_from", PIPE),
        (*TRAIN, "--leave_out", PIPE),
        (*TRAIN, "--cache", PIPE),
        ("--config", PIPE),
        (*TRAIN, "--val_image_path", "data/images", "--val_annotations", PIPE),
    ),
    evaluate: (
        ("--checkpoint", PIPE),
        (*BEST, *IMAGES, "--annotations", PIPE),
        (*BEST, "--rules", PIPE),
        (*BEST, *EVALUATE, "--cache", PIPE),
        ("--compare", PIPE, PIPE),
    ),
    sample: (
        (PIPE, *BEST),
        ("data/images/img_00.jpg", "--checkpoint", PIPE),
        ("data/images/img_00.jpg", *BEST, "--annotations", PIPE),
        ("data/images/img_00.jpg", *BEST, "--rules", PIPE),
    ),
    annotate: (
        ("data/images", "--checkpoint", PIPE),
        ("data/images", "--annotations", PIPE),
        ("data/images", "--label_list", PIPE),
        ("data/images", "--output", PIPE),
        ("data/images", *COCO, "--issues", PIPE),
        ("data/images", *BEST, "--rules", PIPE, "--port", 0),
    ),
    serve: (("--checkpoint", PIPE, "--port", 0), (*BEST, "--rules", PIPE, "--port", 0)),
    export: (
        ("--checkpoint", PIPE),
        (*BEST, "--verify", PIPE),
        (*BEST, "--int8", PIPE),
        (*BEST, "--fp16", *IMAGES, "--annotations", PIPE),
    ),
}


def test_pipes(run, tmp_path):
    """Opening one blocks until someone writes to it, which may be never."""
    os.mkfifo(PIPE)
    (tmp_path / "numbers.csv").write_text("file_name,labels\na.jpg,3\nb.jpg,5\n")
    for module, commands in PIPES.items():
        for command in commands:
            assert PIPE in refusal(module, *command), (module.__name__, command)


def test_pipes_beside_what_is_named(run):
    for name in ("metrics.json", "log.jsonl"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    evaluated = (*BEST, *EVALUATE, "--output_dir", "out", "--report")
    call(evaluate, *evaluated)  # no log: the report has no curves
    os.replace("out/metrics.json", "kept")
    os.mkfifo("out/metrics.json")
    assert "move it away" in refusal(evaluate, *evaluated)
    call(sample, "data/images", *BEST, "--output", "piped")
    for name in ("sample.json", "predictions.jsonl", "predictions.csv"):
        os.rename(f"piped/{name}", "kept")
        os.mkfifo(f"piped/{name}")
        assert name in refusal(sample, "data/images", *BEST, "--output", "piped")
        os.replace("kept", f"piped/{name}")


# --- JSON and arrays that commands find beside a checkpoint -----------------------------------


def changed(good: dict, *keys: object, to: object = "nothing") -> str:
    """A copy as JSON, with one value replaced, or left out."""
    copy = json.loads(json.dumps(good))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    if to == "nothing":
        del place[keys[-1]]
    return json.dumps(copy)


def hostile_metrics(good: dict) -> list[str]:
    changes = [
        *((("per_label",), value) for value in (None, [], {}, "abc", [1], [{"label": "a"}])),
        *((("threshold",), value) for value in (None, "0.5", [], float("nan"), 10**400, True)),
        *((("label_thresholds",), value) for value in (None, "x", [0.5], [None] * 5, {})),
        *((("predicted_sets",), value) for value in ([], {}, {"threshold": 1}, "nothing")),
        *((("predicted_sets", "map", "EM"), value) for value in ("nothing", "high", 1e308, [])),
        *((("per_label", 0, "AP"), value) for value in ("nothing", "x", -1e308, [], float("inf"))),
        *((("set_nll",), value) for value in (None, [], "1", float("-inf"))),
        *((("epoch",), value) for value in ("nothing", None, "3", 2.5)),
        *((("given_rules",), value) for value in (1, [1], ["dog"], ["a -> b"])),
        *((("intervals",), value) for value in (None, [], {"mAP": 1}, {"predicted_sets": []})),
        *((("protocol",), value) for value in ("nothing", 5)),
        *((("decoder",), value) for value in ("nothing", "\x1b[2J")),
    ]
    texts = [changed(good, *keys, to=to) for keys, to in changes]
    return [*texts, "", "[]", "null", "[" * 10**5, "{", '{"a": 1}', "\x00", "1e999"]


@pytest.fixture
def evaluated(run):
    """The metrics.json of a tiny run, with its predictions.npz beside it."""
    call(evaluate, *BEST, *EVALUATE, "--num_samples", 8, "--output_dir", run)
    shutil.copytree(run, "other")
    return run / "metrics.json"


def test_compare_refuses_hostile_metrics(evaluated, capsys):
    good = json.loads(evaluated.read_text())
    call(evaluate, "--compare", evaluated, "other/metrics.json")
    for text in hostile_metrics(good):
        evaluated.write_text(text)
        assert "metrics.json" in refusal(evaluate, "--compare", "other/metrics.json", evaluated)


def test_compare_refuses_hostile_arrays(evaluated):
    path = evaluated.with_name("predictions.npz")
    with np.load(path) as file:
        good = dict(file)
    bad = {
        "marginals": (
            *(good["marginals"] * np.nan, good["marginals"] + 1, good["marginals"][:-1]),
            *(good["marginals"].T, good["marginals"] > 0, good["marginals"].astype(complex)),
        ),
        "targets": (good["targets"] * 0.5, good["targets"][:, :-1], np.array(True)),
        "set_nll": (good["set_nll"][:-1], good["set_nll"] + 1, good["set_nll"] * np.inf),
        "labels": (good["labels"][:-1], np.arange(5), good["labels"][::-1], np.array("a")),
        "file_names": (good["file_names"][:-1], good["file_names"].astype(bytes)),
        "f1_sets": (good["f1_sets"][:0], np.zeros((0, 10**9), bool), good["f1_sets"] * 1.0),
        "certain": (good["f1_sets"],),
    }
    for name, arrays in bad.items():
        for array in arrays:
            np.savez_compressed(path, **{**good, name: array})
            assert "run evaluate.py again" in refusal(
                evaluate, "--compare", "other/metrics.json", evaluated
            ), name
    np.savez(path, **{**good, "extra": np.array([{}], object)})
    assert "damaged" in refusal(evaluate, "--compare", "other/metrics.json", evaluated)


def test_the_card_leaves_hostile_metrics_out(evaluated, capsys):
    good = json.loads(evaluated.read_text())
    best = evaluated.with_name("best.pt")
    checkpoint = load_checkpoint(best)
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], "best.pt")
    assert b"python evaluate.py" in write_card(checkpoint, best, vocabulary, 1, best.parent)
    left_out = 0
    for text in hostile_metrics(good):
        evaluated.write_text(text)
        card = write_card(checkpoint, best, vocabulary, 1, best.parent)
        assert b"## Labels" in card
        is_out = "metrics are left out" in capsys.readouterr().err
        assert is_out == (b"There is no evaluation" in card)
        left_out += is_out
    assert left_out > 40  # the card does not show rules, for example


HOSTILE_LOGS = (
    *("[]", "1", "{", "null", '{"epoch": "1"}', '{"epoch": 1e400}', '{"epoch": [1]}', "[" * 10**5),
    *('{"epoch": 1, "val_mAP": "x"}', '{"epoch": 1, "val_mAP": 1e999}', '{"epoch": -1}'),
    *('{"epoch": 1, "val_mAP": []}', '{"epoch": 1, "train_set_nll": 1e308}', '{"epoch": true}'),
    '{"epoch": 3, "val_mAP": 1}\n{"epoch": 2, "val_mAP": 1}',
    '{"epoch": 1, "val_mAP": 1' + "0" * 400 + "}",
)


def test_a_hostile_log_is_left_out_of_the_report(evaluated, monkeypatch, capsys):
    from report.page_charts import draw_training
    from report.training_log import draw_curves, read_log

    log = evaluated.with_name("log.jsonl")
    assert draw_training(read_log(log), 1)
    for text in HOSTILE_LOGS:
        log.write_text(text)
        assert read_log(log) == []
        assert "is damaged and ignored" in capsys.readouterr().err
        assert draw_training(read_log(log), 1) == []
    draw_curves(log, log.with_name("a.png"))


# --- files that never end ---------------------------------------------------------------------


def test_files_of_10_terabytes(tmp_path):
    """Sparse ones, which take no room. None is read to its end, or a line of it."""

    def empty(name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with open(tmp_path / name, "wb") as file:
            file.truncate(10**13)
        return tmp_path / name

    def refused(read, *args) -> str:
        with pytest.raises(UsageError) as caught:
            read(*args)
        return str(caught.value)

    write_picture(tmp_path / "yolo/images/train/a.jpg")
    empty("yolo/labels/train/a.txt")
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\nnames: [dog, cat]\n")
    assert "without labels" in refused(read_labels, tmp_path / "yolo")
    assert "zeros at its end" in refused(read_labels, empty("tars/a.tar").parent)
    for name in ("labels.csv", "coco.json", "labels.jsonl", "a.xml", "a.txt", "a.yaml", "a.xlsx"):
        assert name in refused(read_labels, empty(name))
    about = {"program": PROGRAM, "root": "", "checkpoint": "", "checkpoint_sha256": "", "flags": {}}
    with PredictionFiles(tmp_path / "tagged", about, ["dog"]):
        pass
    empty("tagged/predictions.jsonl")
    files = PredictionFiles(tmp_path / "tagged", about, ["dog"])
    assert "a line of more than 64 MiB" in refused(files.__enter__)
    assert "damaged: remove it" in refused(BadImages(empty("bad.jsonl")).read)
    assert "larger than" in refused(open_file, empty("a"), 10**12)


# --- one door ---------------------------------------------------------------------------------

READS = {"read_text", "read_bytes", "fromfile", "memmap", "load_file"}
# calls that open a file without util/reading.py, and why they may
CHECKED_BEFORE = {
    "deploy/safetensors_io.py": {"load_file"},
    "training/weights.py": {"load_file"},
    "inference/torch_file.py": {"open", "ZipFile"},
    "labels/spreadsheet.py": {"read_table", "load_workbook", "ZipFile"},
    "labels/tar_index.py": {"tarfile.open"},
    "images/cache.py": {"fromfile", "memmap"},  # of a file whose header was read
    "images/decode.py": {"open"},  # of a ShardMember, which uses util/reading.py
    "report/prediction_files.py": {"open"},
}
OUR_OWN = {  # files of this program or of this moment
    "data/make_shards.py": {"tarfile.open"},
    "export.py": {"read_bytes"},
    "report/page.py": {"read_text"},
    "training/folds.py": {"read_text"},
    "util/compat.py": {"read_text"},
    "util/files.py": {"open", "os.open", "read_bytes"},
    "util/streams.py": {"os.open"},
    "util/reading.py": {"os.open", "ZipFile"},
}


def opens(call: ast.Call) -> str | None:
    """How a call opens a file for reading by its path; None if it does not."""
    function = call.func
    if isinstance(function, ast.Name):
        name, owner = function.id, ""
        if name in ("read_text", "read_bytes"):  # ours, from util/reading.py and labels/text.py
            return None
    elif isinstance(function, ast.Attribute):
        name, owner = function.attr, ast.unparse(function.value)
    else:
        return None
    if name == "open" and owner in ("Image", "gzip", "self", "archive"):
        return None  # what is opened is open already
    if name == "open":
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        if any(isinstance(m, str) and m[:1] in ("w", "a", "x") and len(m) < 4 for m in modes):
            return None if "a+b" not in modes else "open"
        return f"{owner}.open" if owner in ("os", "tarfile") else "open"
    known = READS | {"load_workbook", "ZipFile"}
    return name if name in known or (owner == "parquet" and name == "read_table") else None


def test_all_files_come_in_by_one_door():
    """A new reader uses util/reading.py, or says here why it need not."""
    found = {}
    for name in source_files(REPO):
        if floor(name) and name != ALONE:
            tree = ast.parse((REPO / name).read_text(encoding="utf-8"))
            calls = {opens(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            if calls := calls - {None}:
                found[name] = calls
    assert found == {**CHECKED_BEFORE, **OUR_OWN}
