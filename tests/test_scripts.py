"""The scripts as a user runs them: commands, files, resumption, and one sentence for a mistake."""

import contextlib
import csv
import io
import json
import pickle
import shutil
from pathlib import Path

import make_scenes
import numpy as np
import pytest
import torch
import torchvision
from conftest import (
    LABEL_SETS,
    QUICK,
    RANKED,
    REPO,
    call,
    coco,
    refusal,
    run,
    write_json,
    write_picture,
    write_tiny_set,
)
from PIL import Image

import build_vocab
import checkpoint as checkpoint_module
import data_loader
import evaluate
import run_setup
import sample
import slides
import train
from utils import RunError, UsageError

TRAIN = ("--image_path", "data/images", *QUICK)
TIMINGS = {"seconds", "images_per_second"}


def load(path) -> dict:
    """A checkpoint, read as anyone may read a stranger's file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def same(a, b) -> bool:
    """Equal to the bit, through all nesting."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def log_lines(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def one_error(result, code: int = 2) -> str:
    """The result of a refused command, end to end; returns its sentence."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == errors[0]
    return errors[0]


# --- command lines ----------------------------------------------------------------------------

SCRIPTS = (build_vocab, data_loader, train, evaluate, sample, make_scenes)


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
    (train, "--hold_out", "1"),
    (train, "--hold_out", "-0.1"),
    (train, "--num_workers", "-1"),
    (train, "--arch", "vgg16"),
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


def test_training_refuses(workdir):
    """Every mistake is told before training starts, and nothing is written for it."""
    assert "does not exist" in refusal(train, "--image_path", "absent.jpg")
    assert "--device nonsense" in refusal(train, *TRAIN, "--device", "nonsense")
    assert "--image_path" in refusal(train, "--annotations", "data/annotations/instances.json")
    assert "no annotation" in refusal(train, "--image_path", "data/images/img_07.jpg")
    assert "cannot read" in refusal(train, *TRAIN, "--annotations", "absent.json")
    empty = write_json([], workdir / "empty.json")
    assert "empty.json" in refusal(train, *TRAIN, "--annotations", empty)
    (workdir / "void.json").write_text("")
    assert "not a json file" in refusal(train, *TRAIN, "--annotations", "void.json")
    (workdir / "v.pkl").write_bytes(pickle.dumps([1]))
    assert "not a HybridNet vocabulary" in refusal(train, *TRAIN, "--vocab_path", "v.pkl")
    assert ".pkl or .json" in refusal(train, *TRAIN, "--vocab_path", "new.txt")
    other = write_json(coco([("cat",)]), workdir / "other.json")
    call(build_vocab, "--annotations", other, "--vocab_path", "cats.pkl", "--min_count", 1)
    data = pickle.loads((workdir / "cats.pkl").read_bytes())
    (workdir / "cats.pkl").write_bytes(pickle.dumps({**data, "dropped": []}))
    assert "which the vocabulary lacks" in refusal(train, *TRAIN, "--vocab_path", "cats.pkl")
    (workdir / "data/images/img_05.jpg").unlink()
    assert "img_05.jpg for one" in refusal(train, *TRAIN)
    assert not (workdir / "runs").exists()


def test_mistakes_end_to_end(workdir):
    """A handful with the interpreter around them: exit code 2, one line, no traceback."""
    (workdir / "bad.json").write_text("[]")
    for command in (
        ("train.py", *TRAIN, "--device", "nonsense"),
        ("build_vocab.py", "--annotations", "bad.json"),
        ("sample.py", "data/images", "--checkpoint", "bad.json"),
    ):
        result = run(*command, cwd=workdir)
        one_error(result)
        assert result.stderr.count("\n") == 1


def test_an_output_folder_that_is_a_file(workdir):
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
def test_a_batch_of_one_image(workdir, flags):
    """10 training images leave one over; BatchNorm at 1x1 has nothing to normalise then."""
    with contextlib.suppress(UsageError, RunError):  # a sentence would do, too
        call(train, *TRAIN, *flags, "--num_epochs", 1)


def test_json_lines_are_json_when_a_figure_is_undefined(workdir, capsys):
    """A hold-out without labels has no mAP; JSON has no NaN."""
    write_json(coco([("cat",), ("dog",)] + [()] * 10), workdir / "few.json")
    val = write_json(coco([()] * 12), workdir / "none.json")
    flags = ("--annotations", "few.json", "--val_annotations", val, "--keep_unlabelled")
    call(train, *TRAIN, *flags, "--num_epochs", 1)

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    for line in capsys.readouterr().out.splitlines():
        json.loads(line, parse_constant=refuse)


# --- training ---------------------------------------------------------------------------------


def test_the_readme_command(tmp_path):
    """One image whose labels the network learns by heart; verbatim but for its size."""
    write_picture(tmp_path / "data/images/img.jpg", ("person", "dog"), side=300)
    content = coco([("person", "dog"), ("cat",)], ["img.jpg", "other.jpg"])
    write_json(content, tmp_path / "data/annotations/instances_train2014.json")
    command = (
        "--image_path data/images/img.jpg --vocab_path data/vocab.pkl --batch_size 256 "
        "--learning_rate 0.001 --num_epochs 10 --num_workers 4"
    )
    small = ("--image_size", 32)  # 224, the default, takes two minutes on two busy cores
    result = run("train.py", *command.split(), *small, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert (tmp_path / "data/vocab.pkl").exists()
    output = tmp_path / "runs/img-chain"
    assert sorted(p.name for p in output.iterdir()) == [
        "best.pt",
        "curves.png",
        "last.pt",
        "log.jsonl",
    ]
    shutil.rmtree(output)


def test_the_smallest_annotations_of_the_data_readme(workdir):
    """data/README.md's json, word for word; and the vocabulary is the whole file's."""
    text = (REPO / "data/README.md").read_text().split("```json")[1].split("```")[0]
    (workdir / "own").mkdir()
    write_picture(workdir / "own/img.jpg")
    (workdir / "own.json").write_text(text)
    call(train, "--image_path", "own/img.jpg", "--annotations", "own.json", *QUICK)
    vocabulary = load(workdir / "runs/img-chain/best.pt")["vocabulary"]
    assert vocabulary["labels"] == ["cat", "couch"]


def test_limit_leaves_the_vocabulary_whole(workdir):
    call(train, *TRAIN, "--limit", 3, "--num_epochs", 1, "--vocab_path", "v.json")
    assert json.loads((workdir / "v.json").read_text())["labels"] == list(RANKED)


@pytest.mark.parametrize("num_steps", range(1, 13))
def test_any_number_of_steps_can_be_scheduled(num_steps):
    args = train.get_args_parser().parse_args([f"--num_epochs={num_steps}"])
    training = train.Training(torch.nn.Linear(2, 2), args, 1, torch.device("cpu"))
    for _ in range(num_steps):
        training.step(training.model(torch.ones(1, 2)).sum())
    assert training.steps == num_steps


def test_the_run_tells_what_it_does(trained):
    result = trained.result
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert "training on 10 images" in result.stderr
    assert "a hold-out of 1 training images" in result.stderr
    assert "epoch 2/2" in result.stderr
    assert lines == [
        json.loads(line) for line in (trained.output / "log.jsonl").read_text().splitlines()
    ]


def test_a_finished_run_stays_as_it_is(trained):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in trained.output.iterdir()}
    result = run(*trained.command, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "after epoch 2 of 2" in result.stderr
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in trained.output.iterdir()}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Three epochs without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    write_tiny_set(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(train, *TRAIN, "--num_epochs", 3)
    output = folder / "runs/instances-chain"
    files = {name: load(output / name) for name in ("best.pt", "last.pt")}
    files["log"] = log_lines(output)
    shutil.rmtree(output)
    return files


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(workdir, monkeypatch, whole_run, at):
    """Stopped after the first best.pt, the first last.pt, and in the second epoch's saving."""
    flags = (*TRAIN, "--num_epochs", 3)
    saves = []

    def save_and_stop(checkpoint, path):
        checkpoint_module.save_checkpoint(checkpoint, path)
        saves.append(path.name)
        if len(saves) == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            call(train, *flags)
    call(train, *flags)
    output = workdir / "runs/instances-chain"
    assert log_lines(output) == whole_run["log"]
    for name in ("best.pt", "last.pt"):
        assert same(load(output / name), whole_run[name]), name


def test_a_loss_that_is_not_finite_stops_the_run(workdir):
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step"):
        call(train, *TRAIN, "--learning_rate", "1e30")
    assert not list(workdir.rglob("best.pt"))


def test_changed_flags_are_refused_by_name(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    flags = trained.command[1:]
    for flag, value in (
        ("--num_epochs", 3),
        ("--learning_rate", 0.01),
        ("--image_size", 48),
        ("--seed", 1),
        ("--limit", 5),
        ("--keep_unlabelled", None),
    ):
        changed = (*flags, flag) if value is None else (*flags, flag, value)
        sentence = refusal(train, *changed)
        assert f"{flag} was" in sentence
        assert "last.pt" in sentence
    vocab_path = trained.output / "vocab.pkl"
    before = vocab_path.read_bytes()
    call(build_vocab, *VOCAB, "--vocab_path", vocab_path, "--min_count", 4)
    try:
        assert "another vocabulary" in refusal(train, *flags)
    finally:
        vocab_path.write_bytes(before)


VOCAB = ("--annotations", "data/annotations/instances.json")


def test_checkpoints_hold_plain_types(trained):
    """weights_only=True refuses everything that could run code."""
    plain = (str, int, float, bool, type(None), torch.Tensor)

    def check(value, where=""):
        if isinstance(value, dict):
            for k, v in value.items():
                assert type(k) in plain
                check(v, f"{where}/{k}")
        elif type(value) in (list, tuple):
            for v in value:
                check(v, where)
        else:
            assert type(value) in plain, where

    best, last = load(trained.output / "best.pt"), load(trained.output / "last.pt")
    check(best)
    check(last)
    assert best["vocabulary"]["labels"] == list(RANKED)
    assert best.keys() | {"training"} == last.keys()
    assert "training" not in best
    assert best["preprocessing"]["image_size"] == 32
    assert 0 < best["threshold"] < 1


def test_checkpoints_that_cannot_be_continued(trained, workdir):
    """best.pt in last.pt's place, and a file of another kind."""
    output = workdir / "runs/instances-chain"
    output.mkdir(parents=True)
    shutil.copy(trained.output / "best.pt", output / "last.pt")
    assert "no optimizer state" in refusal(train, *TRAIN)
    (output / "last.pt").write_bytes(b"PK\x03\x04 garbage")
    assert "last.pt is damaged" in refusal(train, *TRAIN)


# --- encoder weights --------------------------------------------------------------------------


@pytest.fixture
def partial_weights(workdir):
    """A ResNet-18 state dict without its last stage, as ../shared/weights has it."""
    torch.manual_seed(5)
    state = torchvision.models.resnet18().state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    state = {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}
    torch.save(state, workdir / "part.pth")
    return state


def test_a_frozen_encoder_keeps_what_it_was_given(workdir, partial_weights, capsys):
    flags = (*TRAIN, "--weights", "part.pth", "--freeze_encoder", "--num_epochs", 1)
    call(train, *flags)
    err = capsys.readouterr().err
    loaded = next(line for line in err.splitlines() if "tensors from part.pth" in line)
    missing = next(line for line in err.splitlines() if "tensors at random" in line)
    assert f"{len(partial_weights)} tensors" in loaded
    assert all(name in loaded for name in partial_weights)
    assert "layer4.0.conv1.weight" in missing
    assert "layer3" not in missing
    last = load(workdir / "runs/instances-chain/last.pt")
    for weights in (last["weights"], last["training"]["weights"]):
        for name, tensor in partial_weights.items():
            assert torch.equal(weights[f"encoder.{name}"], tensor), name
    ema, live = last["weights"], last["training"]["weights"]
    for name in (n for n in ema if n.startswith("encoder.")):
        assert torch.equal(ema[name], live[name]), name
    assert not torch.equal(ema["classifier.weight"], live["classifier.weight"])


def test_encoder_weights_that_do_not_fit(workdir, partial_weights):
    torch.save({"conv1.weight": torch.zeros(64, 1, 7, 7)}, "shape.pth")
    assert "conv1.weight has shape (64, 1, 7, 7)" in refusal(
        train, *TRAIN, "--weights", "shape.pth"
    )
    torch.save({"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}, "names.pth")
    assert "none of its tensors" in refusal(train, *TRAIN, "--weights", "names.pth")
    assert "needs" in refusal(train, *TRAIN, "--weights", "part.pth", "--arch", "resnet50")
    torch.save([1, 2], "list.pth")
    torch.save({"conv1.weight": 3}, "number.pth")
    (workdir / "text.pth").write_text("hello")
    (workdir / "class.pth").write_bytes(pickle.dumps(io.BytesIO()))
    for name in ("list.pth", "number.pth", "text.pth", "class.pth"):
        assert "is not a state dict" in refusal(train, *TRAIN, "--weights", name)
    for name in ("absent.pth", "data"):
        assert "cannot read --weights" in refusal(train, *TRAIN, "--weights", name)


def test_the_shared_weights_say_what_is_missing(shared, workdir, capsys):
    path = shared / "weights/resnet18-conv1-layer3.pth"
    model, _ = run_setup.build_model(
        train.get_args_parser().parse_args(["--weights", str(path), "--decoder", "none"]),
        run_setup.Vocabulary(("person",), (1,), 2),
        fresh=True,
    )
    missing = capsys.readouterr().err.splitlines()[-1]
    assert missing.count("layer4") == missing.split("tensors")[1].count(",") + 1
    assert torch.equal(model.encoder.conv1.weight, load(path)["conv1.weight"])


# --- evaluation -------------------------------------------------------------------------------

EVALUATE = (
    *("--image_path", "data/images", "--annotations", "data/annotations/instances.json"),
    *("--num_workers", "0"),
)


def test_evaluate_end_to_end(trained):
    """Numbers on the console, in the log and in the JSON are the same numbers."""
    result = run("evaluate.py", *EVALUATE, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert "using runs/instances-chain/best.pt" in result.stderr
    assert "trained on these very annotations" in result.stderr
    assert result.stdout == (trained.output / "evaluate.log").read_text()
    results = json.loads((trained.output / "metrics.json").read_text())
    assert results["num_images"] == 11
    assert f"mAP {results['mAP']:.2f} over {results['mAP_labels']} labels" in result.stdout
    assert f"set NLL {results['set_nll']:.3f}" in result.stdout
    for rule, figures in results["predicted_sets"].items():
        row = next(x for x in result.stdout.splitlines() if x.startswith(f"{rule} "))
        assert row.split()[1:10] == [f"{value:.1f}" for value in figures.values()]
    for row in results["per_label"]:
        line = next(x for x in result.stdout.splitlines() if x.startswith(row["label"]))
        cells = [f"{row[k]:.1f}" for k in ("AP", "precision", "recall", "f1")]
        assert line.split() == [row["label"], str(row["support"]), *cells]
    assert [row["support"] for row in results["per_label"]] == [7, 4, 4, 2, 2]


def test_evaluate_json_without_nan(trained, workdir, capsys):
    """Zebra and apple are on none of these images: undefined figures are null, not NaN."""
    val = write_json(coco([("person",), ("dog",), ("cat", "person"), ()]), workdir / "val.json")
    best = trained.output / "best.pt"
    flags = ("--checkpoint", best, "--image_path", "data/images", "--annotations", val)
    call(evaluate, *flags, "--num_workers", 0, "--output_dir", "out", "--json", "--keep_unlabelled")
    captured = capsys.readouterr()
    assert "NaN" not in captured.out
    results = json.loads(captured.out)
    assert captured.out == (workdir / "out/metrics.json").read_text()
    assert (workdir / "out/evaluate.log").exists()
    by_label = {row["label"]: row for row in results["per_label"]}
    assert by_label["zebra"]["AP"] is None
    assert by_label["zebra"]["support"] == 0
    assert by_label["person"]["support"] == 2
    assert results["num_images"] == 4
    assert results["mAP_labels"] == 3
    assert results["protocol"] == "all images"


def test_evaluation_is_repeatable(trained, workdir, capsys):
    """Neither batch size nor workers may change a figure."""
    found = []
    for flags in (("--batch_size", 4), ("--batch_size", 4, "--num_workers", 2)):
        best = trained.output / "best.pt"
        call(evaluate, *EVALUATE, "--checkpoint", best, "--output_dir", "o", "--json", *flags)
        results = json.loads(capsys.readouterr().out)
        del results["images_per_second"]
        found.append(results)
    assert found[0] == found[1]


def test_what_evaluate_can_be_asked_beside_the_figures(trained, workdir, capsys):
    best = ("--checkpoint", trained.output / "best.pt", "--output_dir", "o")
    asked = ("--reveal", 1, "--suspects", 4, "--influence", "--decide", "map", "--num_workers", 0)
    call(evaluate, *EVALUATE, *best, *asked)
    out = capsys.readouterr().out
    assert out == (workdir / "o/evaluate.log").read_text()
    found = json.loads((workdir / "o/metrics.json").read_text())
    rows = found["suspects"]
    assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows)
    for row in rows:
        labels = LABEL_SETS[int(Path(row["image"]).stem.removeprefix("img_"))]
        assert row["annotation"] == ("surplus" if row["label"] in labels else "missing")
        assert any(row["image"] in line and row["label"] in line for line in out.splitlines())
    assert set(found["revealed"]["before"]) == set(found["revealed"]["after"])
    assert "before mAP" in out
    with (workdir / "o/label_influence.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["label", *RANKED]
    matrix = np.array([line[1:] for line in lines], float)
    assert np.array_equal(matrix, matrix.T)
    with Image.open(workdir / "o/label_influence.png") as picture:
        picture.verify()
    recall = {row["label"]: row["recall"] for row in found["per_label"]}
    call(evaluate, *EVALUATE, *best, "--num_workers", 0, "--json")
    by_threshold = json.loads(capsys.readouterr().out)
    assert "suspects" not in by_threshold
    sets = by_threshold["predicted_sets"]
    assert sets["map"]["CR"] == pytest.approx(sum(recall.values()) / len(RANKED))


def test_checkpoints_of_another_kind(trained, workdir):
    torch.save([1, 2], "list.pt")
    torch.save(torchvision.models.resnet18().state_dict(), "resnet.pt")
    torch.save({"format": "hybridnet-checkpoint-1"}, "empty.pt")
    (workdir / "zip.pt").write_bytes(b"PK\x03\x04" + bytes(200))
    (workdir / "none.pt").write_bytes(b"")
    whole = (trained.output / "best.pt").read_bytes()
    (workdir / "half.pt").write_bytes(whole[: len(whole) // 2])
    checkpoint = load(trained.output / "best.pt")
    del checkpoint["weights"]["classifier.bias"]
    torch.save(checkpoint, "lacking.pt")
    for name in ("list.pt", "resnet.pt", "empty.pt", "zip.pt", "none.pt", "half.pt", "lacking.pt"):
        sentence = refusal(evaluate, *EVALUATE, "--checkpoint", name)
        assert name in sentence
        assert "damaged" in sentence
        assert name in refusal(sample, "data/images", "--checkpoint", name)
    assert "there is no checkpoint" in refusal(evaluate, *EVALUATE, "--checkpoint", "absent.pt")
    assert "there is no checkpoint" in refusal(evaluate, *EVALUATE, "--checkpoint", "data")


class Hostile:
    """Unpickled carelessly, makes a file."""

    def __reduce__(self):
        return (open, ("hacked", "w"))


def test_a_hostile_checkpoint_does_not_run(workdir):
    torch.save({"format": "hybridnet-checkpoint-1", "weights": Hostile()}, "bad.pt")
    assert "damaged" in refusal(sample, "data/images", "--checkpoint", "bad.pt")
    assert "is not a state dict" in refusal(train, *TRAIN, "--weights", "bad.pt")
    assert not (workdir / "hacked").exists()


def test_last_pt_can_be_evaluated_too(trained, workdir, capsys):
    last = trained.output / "last.pt"
    call(evaluate, *EVALUATE, "--checkpoint", last, "--output_dir", "o", "--json", "--limit", 3)
    assert json.loads(capsys.readouterr().out)["num_images"] == 3


def test_evaluate_refuses(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt")
    assert "go together" in refusal(evaluate, *best, "--image_path", "data/images")
    assert "name the data" in refusal(evaluate, *best)
    other = {**{"unicorn": 77}, "cat": 17}
    write_json(coco([("unicorn",)], categories=other), workdir / "other.json")
    assert "'unicorn', which the vocabulary lacks" in refusal(
        evaluate, *best, "--image_path", "data/images", "--annotations", "other.json"
    )
    assert "no trained model found" in refusal(evaluate, *EVALUATE)


# --- tagging ----------------------------------------------------------------------------------


def test_sample_end_to_end(trained):
    command = ("sample.py", "data/images/img_02.jpg", "data/images", "--output", "tagged")
    result = run(*command, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("most probable set:") == 13
    assert result.stdout.startswith("data/images/img_02.jpg\n")
    for line in result.stdout.splitlines():
        if "picture: " in line:
            with Image.open(trained.folder / line.split("picture: ")[1]) as picture:
                picture.verify()
    tagged = trained.folder / "tagged"
    assert len(list(tagged.glob("*_labels.png"))) == 13, "img_02 twice, kept apart"
    with Image.open(tagged / "contact_sheet.png") as sheet:
        assert sheet.size == (5 * 240, 3 * 296)
    with (tagged / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tagged / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 13
    for row, line in zip(rows, lines, strict=True):
        assert row["image"] == line["image"]
        assert row["predicted"] == "; ".join(line["predicted"])
        assert all(float(row[k]) == pytest.approx(p, abs=1e-4) for k, p in line["labels"].items())


def test_sample_json(trained, workdir, capsys):
    call(sample, "data/images", "--checkpoint", trained.output / "best.pt", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [
        f"data/images/img_{i:02d}.jpg" for i in range(len(LABEL_SETS))
    ]
    threshold = load(trained.output / "best.pt")["threshold"]
    for line in lines:
        assert set(line["labels"]) == set(RANKED)
        assert list(line["labels"].values()) == sorted(line["labels"].values(), reverse=True)
        assert set(line["predicted"]) == {k for k, p in line["labels"].items() if p >= threshold}
        (best,) = line["most_probable_sets"]
        assert 0 < best["probability"] <= 1
    assert not (workdir / "samples").exists()


def test_sample_refuses(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt")
    (workdir / "text.txt").write_text("hello")
    (workdir / "void").mkdir()
    assert "cannot be read as an image" in refusal(sample, "text.txt", *best)
    assert "there is no image absent.jpg" in refusal(sample, "absent.jpg", *best)
    assert "holds no pictures" in refusal(sample, "void", *best)
    with pytest.raises((UsageError, RunError), match=r"text\.txt"):
        call(sample, "data/images/img_00.jpg", *best, "--output", "text.txt")


def test_sample_with_known_labels(trained, workdir, capsys):
    flags = ("data/images/img_02.jpg", "--checkpoint", trained.output / "best.pt")
    call(sample, *flags, "--known", "dog", "--absent", "cat", "--absent", "person", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["labels"]["dog"] == pytest.approx(1)
    assert result["labels"]["cat"] == result["labels"]["person"] == 0
    assert "dog" in result["most_probable_sets"][0]["labels"]
    assert not {"cat", "person"} & set(result["most_probable_sets"][0]["labels"])
    assert 1 <= result["effective_sample_size"] <= 256
    assert "did you mean 'person'" in refusal(sample, *flags, "--known", "persn")
    assert "'dog' is given as --known and as --absent" in refusal(
        sample, *flags, "--known", "dog", "--absent", "dog"
    )


def test_a_damaged_picture_in_a_folder_is_left_out(trained, workdir, capsys):
    (workdir / "data/images/bad.jpg").write_text("no picture")
    (workdir / "data/images/._img_00.jpg").write_text("what macOS leaves")
    best = ("--checkpoint", trained.output / "best.pt", "--output", "o")
    call(sample, "data/images", *best)
    assert "bad.jpg cannot be read as an image" in capsys.readouterr().err
    assert len((workdir / "o/labels.jsonl").read_text().splitlines()) == len(LABEL_SETS)
    assert "cannot be read as an image" in refusal(sample, "data/images/bad.jpg", *best)


def test_a_damaged_log_does_not_stop_training(workdir, capsys):
    (workdir / "runs").mkdir()
    (workdir / "runs/log.jsonl").write_text("no json\n")
    call(train, *TRAIN, "--output_dir", "runs")
    assert "log.jsonl is damaged and not used" in capsys.readouterr().err
    assert len((workdir / "runs/log.jsonl").read_text().splitlines()) == 2


def test_sample_decides_by_the_rule_asked_for(trained, workdir, capsys):
    flags = ("data/images/img_02.jpg", "--checkpoint", trained.output / "best.pt", "--json")
    results = {}
    for rule in ("threshold", "map", "f1"):
        call(sample, *flags, "--decide", rule, "--num_sets", 40, "--standard_errors")
        results[rule] = json.loads(capsys.readouterr().out)
    r = results["map"]
    sets = r["most_probable_sets"]
    assert len(sets) == 2 ** len(RANKED), "all there are"
    assert r["sets_are_certain"]
    assert sum(s["probability"] for s in sets) == pytest.approx(1, abs=1e-4)
    assert r["covered"] == pytest.approx(1, abs=1e-4)
    assert set(r["predicted"]) == set(sets[0]["labels"])
    threshold = load(trained.output / "best.pt")["threshold"]
    probable = {label for label, p in r["labels"].items() if p >= threshold}
    assert set(results["threshold"]["predicted"]) == probable
    expected_f1 = {}
    for chosen in (frozenset(s["labels"]) for s in sets):
        sizes = [(len(chosen) + len(s["labels"]), s) for s in sets]
        expected_f1[chosen] = sum(
            s["probability"] * (2 * len(chosen & set(s["labels"])) / n if n else 1)
            for n, s in sizes
        )
    best = max(expected_f1.values())
    assert expected_f1[frozenset(results["f1"]["predicted"])] == pytest.approx(best, abs=0.02)
    for label, p in r["labels"].items():
        lower, upper = r["bounds"][label]
        exact = sum(s["probability"] for s in sets if label in s["labels"])
        assert lower - 1e-4 <= exact <= upper + 1e-4
        assert abs(p - exact) <= 4 * r["standard_errors"][label] + 1e-4


def test_drawings_of_files_never_overwrite_each_other(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "x_2.jpg", "c/x.png", "x_2_2.jpg"]
    drawings = sample.name_drawings([tmp_path / name for name in names], tmp_path)
    assert len(set(drawings)) == len(names)


ODD = (
    "$x^2$",
    "$\\frac$",
    "50% off",
    "<script>",
    "it's",
    "a\nb",
    "_hidden",
    "",
    "日本",
    "\\n{}",
    "7",
)


def test_odd_labels_and_file_names_do_no_harm(trained, workdir, capsys):
    """Matplotlib reads formulas between dollar signs, and stops at those it does not know."""
    checkpoint = load(trained.output / "best.pt")
    for start in range(0, len(ODD), 5):
        labels = [*ODD[start : start + 5], *"abcde"][:5]
        checkpoint["vocabulary"]["labels"] = labels
        torch.save(checkpoint, "odd.pt")
        files = [
            workdir / f"data/images/{name}.jpg" for name in ("$\\q$", "a'b", "<b>", "50%d", "a\nb")
        ]
        for file in files:
            shutil.copy(workdir / "data/images/img_00.jpg", file)
        call(sample, files[start // 5], "--checkpoint", "odd.pt", "--output", f"out{start}")
        (drawn,) = (workdir / f"out{start}").iterdir()
        assert drawn.name == f"{files[start // 5].stem}_labels.png"
        out = capsys.readouterr().out
        assert all(label in out for label in labels)


def test_labels_are_drawn_as_they_are_written(tmp_path, monkeypatch):
    """Not "x squared" where the label says $x^2$: no text of the picture is read as a formula."""
    from matplotlib import text

    read = []
    original = text.Text._preprocess_math
    monkeypatch.setattr(
        text.Text, "_preprocess_math", lambda self, s: read.append(original(self, s)) or read[-1]
    )
    result = {
        "labels": {"$x^2$": 0.9, "b": 0.2},
        "predicted": ["$x^2$"],
        "decided_by": "threshold",
        "most_probable_sets": [{"labels": ["$x^2$"], "probability": 0.5}],
    }
    maps = {"$x^2$": np.zeros((2, 2)), "b": np.ones((1, 3))}
    slides.draw_slide(Image.new("RGB", (30, 20)), result, maps, 0.5, 8, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert [s for s, math in read if math] == []


# --- the default set --------------------------------------------------------------------------


def test_without_any_flags(tmp_path, monkeypatch, capsys):
    """train.py, evaluate.py, sample.py on data/scenes, each finding what the last one left."""
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
        *("best.pt", "curves.png", "evaluate.log", "last.pt", "log.jsonl", "metrics.json"),
        "predictions.npz",
    ]
    assert (tmp_path / "samples/scene_val_000001_labels.png").exists()
    shutil.rmtree(tmp_path / "runs")
