"""train.py: the files of a run, how it continues, and the weights it starts from."""

import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import (
    QUICK,
    RANKED,
    REPO,
    RESNET,
    TRAIN,
    call,
    coco,
    load,
    refusal,
    run,
    write_json,
    write_picture,
)
from processes import run_cold

import build_vocab
import train
from inference.checkpoint import load_checkpoint, restore
from labels import vocabulary
from training import setup
from training.setup import name_data_set
from training.signals import LOCK
from training.state import TrainState
from util.errors import RunError

# --- training ---------------------------------------------------------------------------------


def test_the_readme_command(tmp_path):
    """The README's command for one image, word for word, with a smaller network and image size."""
    write_picture(tmp_path / "data/images/img.jpg", ("person", "dog"), side=300)
    content = coco([("person", "dog"), ("cat",)], ["img.jpg", "other.jpg"])
    write_json(content, tmp_path / "data/annotations/instances_train2014.json")
    command = (
        "--image_path data/images/img.jpg --vocab_path data/vocab.pkl --batch_size 256 "
        "--learning_rate 0.001 --num_epochs 10 --num_workers 4"
    )
    small = ("--image_size", 32, "--arch", "test_resnet")  # else it takes two minutes
    result = run_cold("train.py", *command.split(), *small, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert (tmp_path / "data/vocab.pkl").exists()
    output = tmp_path / "runs/img-chain"
    left = {"best.pt", "curves.png", "last.pt", "log.jsonl", "images.csv", "config.json", LOCK}
    assert {p.name for p in output.iterdir()} == left
    shutil.rmtree(output)


def test_the_example_json_of_the_data_readme(workdir):
    """data/README.md's JSON, word for word. The vocabulary has all labels of the file."""
    text = (REPO / "data/README.md").read_text().split("```json")[1].split("```")[0]
    (workdir / "own").mkdir()
    write_picture(workdir / "own/img.jpg")
    (workdir / "own.json").write_text(text)
    call(train, "--image_path", "own/img.jpg", "--annotations", "own.json", *QUICK)
    vocabulary = load(workdir / "runs/img-chain/best.pt")["vocabulary"]
    assert vocabulary["labels"] == ["cat", "couch"]


def test_limit_does_not_change_the_vocabulary(workdir):
    call(train, *TRAIN, "--limit", 3, "--num_epochs", 1, "--vocab_path", "v.json")
    assert json.loads((workdir / "v.json").read_text())["labels"] == list(RANKED)


@pytest.mark.parametrize("num_steps", range(1, 13))
def test_schedule_of_any_number_of_steps(num_steps):
    args = train.get_args_parser().parse_args([])
    state = TrainState(torch.nn.Linear(2, 2), torch.device("cpu"), 1, num_steps, args.learning_rate)
    for _ in range(num_steps):
        state.model(torch.ones(1, 2)).sum().backward()
        state.optimizer.step()
        state.scheduler.step()
        state.end_step(torch.zeros(3), torch.zeros(1))
    assert state.steps == num_steps


def test_output_of_a_run(trained):
    result = trained.result
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert "training on 10 images" in result.stderr
    assert "a hold-out of 1 training image:" in result.stderr
    assert "epoch 2/2" in result.stderr
    assert lines == [
        json.loads(line) for line in (trained.output / "log.jsonl").read_text().splitlines()
    ]


def test_a_finished_run_does_not_change(trained):
    def files():
        found = [path for path in trained.output.iterdir() if path.is_file()]
        # older versions of filelock write to the lock
        return {p: (p.read_bytes(), p.name == LOCK or p.stat().st_mtime_ns) for p in found}

    before = files()
    result = run(*trained.command, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "runs/instances-chain is finished (2 epochs)" in result.stderr
    best = load(trained.output / "best.pt")
    assert f"the best is epoch {best['epoch']}: validation set NLL" in result.stderr
    assert "--num_epochs 4 --accept_changes" in result.stderr
    assert before == files()


def test_a_loss_that_is_not_finite_stops_the_run(workdir):
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step"):
        call(train, *TRAIN, "--learning_rate", "1e30")
    assert not list(workdir.rglob("*.pt"))
    batch = json.loads((workdir / "runs/instances-chain/nonfinite_batch.json").read_text())
    assert 1 <= len(batch["images"]) <= 4
    assert all((workdir / name).is_file() for name in batch["images"])


def test_changed_flags_are_named_in_the_error(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    flags = (*trained.command[1:], "--output_dir", "runs/instances-chain")
    for flag, value in (
        ("--num_epochs", 3),
        ("--learning_rate", 0.01),
        ("--image_size", 48),
        ("--seed", 1),
        ("--limit", 7),
        ("--keep_unlabelled", None),
    ):
        changed = (*flags, flag) if value is None else (*flags, flag, value)
        sentence = refusal(train, *changed)
        assert f"{flag} was" in sentence
        assert "--accept_changes" in sentence
    vocab_path = trained.output / "vocab.pkl"
    before = vocab_path.read_bytes()
    call(build_vocab, *VOCAB, "--vocab_path", vocab_path, "--min_count", 4)
    try:
        assert "vocab.pkl is not the vocabulary of these labels" in refusal(train, *flags)
        given = (*flags, "--vocab_path", vocab_path)
        assert "the vocabulary cannot change" in refusal(train, *given, "--accept_changes")
    finally:
        vocab_path.write_bytes(before)


VOCAB = ("--annotations", "data/annotations/instances.json")


def test_checkpoints_hold_plain_types(trained):
    """weights_only=True rejects everything that could run code."""
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


def test_calibration_is_saved_and_used(trained):
    checkpoint = load_checkpoint(trained.output / "best.pt")
    model, vocabulary, _ = restore(checkpoint, trained.output)
    assert model.decoder.temperature == checkpoint["temperature"] != 1
    assert model.decoder.prior_weight == checkpoint["prior_weight"] != 0
    assert model.decoder.prior.tolist() == pytest.approx(vocabulary.prior_logits())


def test_checkpoints_that_cannot_be_continued(trained, workdir):
    """last.pt is a copy of best.pt, or not a checkpoint at all."""
    output = workdir / "runs/instances-chain"
    output.mkdir(parents=True)
    shutil.copy(trained.output / "best.pt", output / "last.pt")
    assert "no optimizer state" in refusal(train, *TRAIN)
    (output / "last.pt").write_bytes(b"PK\x03\x04 garbage")
    assert "last.pt is damaged" in refusal(train, *TRAIN)


def test_a_flag_newer_than_the_run_had_its_default(workdir, capsys):
    call(train, *TRAIN, "--num_epochs", 1)
    last = workdir / "runs/instances-chain/last.pt"
    checkpoint = load(last)
    del checkpoint["flags"]["ema_decay"]
    torch.save(checkpoint, last)
    call(train, *TRAIN, "--num_epochs", 1)
    assert "is finished (1 epoch)" in capsys.readouterr().err
    changed = ("--num_epochs", 1, "--ema_decay", 0.5, "--output_dir", last.parent)
    assert "--ema_decay was 0.998, is 0.5" in refusal(train, *TRAIN, *changed)


@pytest.mark.parametrize(
    ("images", "labels", "name"),
    [
        ("photos", "photos/labels.csv", "photos"),
        ("shop/images", "shop/labels.csv", "shop"),
        ("shop/images", "shop/spring.csv", "spring"),
        ("data/train2014", "data/annotations/instances_train2014.json", "instances_train2014"),
        ("shards/train", "shards/train/shards.json", "train"),
        ("photos", "labels.corrected.csv", "photos"),
        ("holiday", "samples/holiday/predictions.csv", "holiday"),
        ("photos", "train.v2.csv", "train.v2"),
    ],
)
def test_a_run_has_the_name_of_its_data(images, labels, name):
    assert name_data_set(Path(images), Path(labels)) == name


def test_a_damaged_log_does_not_stop_training(workdir, capsys):
    call(train, *TRAIN, "--output_dir", "runs", "--num_epochs", 1)
    (workdir / "runs/log.jsonl").write_text("no json\n")
    call(train, *TRAIN, "--output_dir", "runs", "--num_epochs", 2, "--accept_changes")
    assert "log.jsonl is damaged and ignored" in capsys.readouterr().err
    assert len((workdir / "runs/log.jsonl").read_text().splitlines()) == 1
    assert (workdir / "runs/log.jsonl.damaged").read_text() == "no json\n"


# --- encoder weights --------------------------------------------------------------------------


@pytest.fixture
def partial_weights(workdir):
    """A ResNet-18 state dict without its last stage, like the one in ../shared/weights."""
    torch.manual_seed(5)
    state = torchvision.models.resnet18().state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    state = {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}
    torch.save(state, workdir / "part.pth")
    return state


def test_a_frozen_encoder_keeps_its_weights(workdir, partial_weights, capsys):
    flags = (*TRAIN, *RESNET, "--weights", "part.pth", "--freeze_encoder", "--num_epochs", 1)
    call(train, *flags)
    said = "encoder: 90 of 120 tensors from part.pth; at random: layer4 (30 tensors)\n"
    assert said in capsys.readouterr().err
    assert len(partial_weights) == 90
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
        train, *TRAIN, *RESNET, "--weights", "shape.pth"
    )
    torch.save({"stem.weight": torch.zeros(64, 3, 7, 7)}, "names.pth")
    assert "none of its tensors" in refusal(train, *TRAIN, *RESNET, "--weights", "names.pth")
    assert "the encoder's has" in refusal(
        train, *TRAIN, "--weights", "part.pth", "--arch", "resnet50"
    )
    torch.save([1, 2], "list.pth")
    torch.save({"conv1.weight": 3}, "number.pth")
    (workdir / "text.pth").write_text("hello")
    (workdir / "class.pth").write_bytes(pickle.dumps(io.BytesIO()))
    for name, reason in (
        *(("list.pth", "it holds no state dict"), ("number.pth", "it holds no state dict")),
        *(("text.pth", "not written by torch.save"), ("class.pth", "not written by torch.save")),
        *(("absent.pth", "No such file"), ("data", "not an ordinary file")),
    ):
        sentence = refusal(train, *TRAIN, *RESNET, "--weights", name)
        assert sentence.startswith(f"cannot read --weights {name}")
        assert reason in sentence


def test_the_shared_weights_of_three_stages(shared, workdir, capsys):
    path = shared / "weights/resnet18-conv1-layer3.pth"
    labels = vocabulary.Vocabulary(("person",), (1,), 2)
    model = setup.build_model({"decoder": "none"}, labels, pretrained=False, weights=path)
    said = f"encoder: 90 of 120 tensors from {path}; at random: layer4 (30 tensors)\n"
    assert capsys.readouterr().err == said
    assert torch.equal(model.encoder.conv1.weight, load(path)["conv1.weight"])


def test_the_encoder_of_an_earlier_run(trained, workdir, capsys):
    """Its other weights are not used: the labels may be others."""
    best = trained.output / "best.pt"
    flags = (*TRAIN, *RESNET, "--num_epochs", 1, "--decoder", "none", "--freeze_encoder")
    call(train, *flags, "--weights", best)
    said = f"encoder: all 120 tensors from {best} (its averaged weights)\n"
    assert said in capsys.readouterr().err
    ours = load(workdir / "runs/instances-none/best.pt")["weights"]
    theirs = load(best)["weights"]
    names = [name for name in ours if name.startswith("encoder.")]
    assert len(names) == 120
    assert all(torch.equal(ours[name], theirs[name]) for name in names)
