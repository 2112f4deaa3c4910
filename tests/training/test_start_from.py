"""--start_from: weights of an earlier run, those of a label go with its name."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import RESNET, TRAIN, call, coco, load, refusal, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import model as model_module
import train
from encoder import MEAN, STD
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, save_checkpoint
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from training.setup import build_model
from training.start_from import parameters_by_label

OLD = ("cat", "dog", "apple", "zebra")
SIZES = {"embed_size": 6, "hidden_size": 5, "arch": "resnet18"}


class TinyEncoder(nn.Sequential):
    """Convolutions in the place of a ResNet's stages."""

    widths, mean, std = [2, 3, 4, 5], MEAN, STD

    def __init__(self, arch: str, pretrained: bool = False, image_size: int = 224) -> None:
        sides = zip([3, *self.widths], self.widths, strict=False)
        convs = [nn.Sequential(nn.Conv2d(i, o, 3, 2), nn.BatchNorm2d(o)) for i, o in sides]
        super().__init__(*convs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images -> feature maps of the stages."""
        stages = []
        for part in self:
            x = part(x)
            stages.append(x)
        return stages


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "workdir" not in request.fixturenames:
        monkeypatch.setattr(model_module, "build_encoder", TinyEncoder)


def vocabulary_of(labels: tuple[str, ...]) -> Vocabulary:
    counts = tuple(range(len(labels) + 1, 1, -1))
    return Vocabulary(labels, counts, 20)


def save_old(path: Path, **changed: object) -> HybridNet:
    """A checkpoint with random weights; returns its model."""
    old, vocabulary = settings_of({**SIZES, **changed}), vocabulary_of(OLD)
    torch.manual_seed(7)
    model = HybridNet(len(OLD), label_logits=vocabulary.prior_logits(), **old)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    checkpoint = {
        "model": old,
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": Preprocessing(64).to_dict(),
        "weights": model.state_dict(),
        "temperature": 1.7,
        "prior_weight": 0.2,
        "threshold": 0.4,
        "label_thresholds": [0.3] * len(OLD),
        "epoch": 3,
        "metrics": {},
        "selected_on": "a hold-out",
        "flags": {},
    }
    save_checkpoint(checkpoint, path)
    return model.eval()


def rows_of(model: HybridNet, label: int) -> dict[str, Tensor]:
    """The rows of one label."""
    own = {"classifier.weight", "classifier.bias", "decoder.label_embedding"}
    own |= {f"stage_heads.{i}.weight" for i in range(len(model.stage_heads))}
    return {name: w[label] for name, w in model.state_dict().items() if name in own}


@pytest.mark.parametrize("decoder", model_module.DECODERS)
def test_the_same_labels_give_the_same_logits(tmp_path, decoder):
    old = save_old(tmp_path / "old.pt", decoder=decoder)
    new = build_model(old_settings(decoder), vocabulary_of(OLD), start_from=tmp_path / "old.pt")
    new.eval()
    assert (new.decoder.temperature, new.decoder.prior_weight) == (1.0, 0.0)
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.float)
    with torch.no_grad():
        z = [m.set_logits(m.encode(images), targets) for m in (old, new)]
    assert torch.equal(*z)
    assert z[0].std() > 0


def old_settings(decoder: str) -> dict[str, object]:
    return settings_of({**SIZES, "decoder": decoder})


labels = st.lists(st.sampled_from([*OLD, "fig", "kiwi", "Cat"]), min_size=1, unique=True)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=labels, decoder=st.sampled_from(model_module.DECODERS))
def test_the_weights_of_a_label_go_with_its_name(tmp_path, labels, decoder):
    """Labels may be added, removed, or change their rank."""
    old = save_old(tmp_path / "old.pt", decoder=decoder)
    vocabulary = vocabulary_of(tuple(labels))
    torch.manual_seed(1)
    fresh = build_model(old_settings(decoder), vocabulary)
    torch.manual_seed(1)
    new = build_model(old_settings(decoder), vocabulary, start_from=tmp_path / "old.pt")
    by_label = parameters_by_label(old_settings(decoder))
    assert by_label == rows_of(old, 0).keys()
    for rank, label in enumerate(labels):
        source = rows_of(old, OLD.index(label)) if label in OLD else rows_of(fresh, rank)
        for name, row in rows_of(new, rank).items():
            assert torch.equal(row, source[name]), (label, name)
    weights = old.state_dict()
    for name, tensor in new.state_dict().items():
        if name not in by_label:
            assert torch.equal(tensor, weights[name]), name
    if decoder == "softmax":
        assert torch.equal(new.decoder.label_embedding[-1], old.decoder.label_embedding[-1])
    assert torch.equal(new.decoder.prior, fresh.decoder.prior)


def test_what_is_said(tmp_path, capsys):
    save_old(tmp_path / "old.pt")
    new = vocabulary_of(("dog", "fig", "cat"))
    build_model(old_settings("chain"), new, start_from=tmp_path / "old.pt")
    said = capsys.readouterr().err
    assert "(epoch 3): the weights of 2 labels; new: fig; gone: apple, zebra" in said


# --- train.py ---------------------------------------------------------------------------------


def test_a_run_that_starts_from_another(trained, workdir, capsys):
    """With a new label; what was held out then is held out again."""
    categories = {"person": 1, "cat": 2, "dog": 3, "apple": 4, "zebra": 5, "giraffe": 6}
    names = [f"img_{i:02d}.jpg" for i in range(12)]
    sets = [("giraffe",), ("giraffe", "person"), ("cat",), ("cat", "dog"), *[("dog",)] * 8]
    write_json(coco(sets, names, categories), Path("data/annotations/instances.json"))
    shutil.copy(trained.output / "best.pt", "old.pt")
    flags = (*TRAIN, *RESNET, "--num_epochs", 1, "--start_from", "old.pt", "--val_fraction", 0.3)
    call(train, *flags)
    said = capsys.readouterr().err
    assert "the hold-out is the earlier one again" in said
    assert "new: giraffe" in said
    assert "starts at random" not in said
    best = load("runs/instances-chain/best.pt")
    assert best["held_out"] == load("old.pt")["held_out"]
    assert best["flags"]["start_from"] == "old.pt"
    call(train, *flags)
    assert "is finished" in capsys.readouterr().err
    call(train, *flags, "--accept_changes", "--num_epochs", 2)
    assert "starting from" not in capsys.readouterr().err


def test_images_that_were_trained_on_are_not_held_out_later(workdir, capsys):
    """Metrics, thresholds and promises of such a hold-out would be too good."""
    flags = (*TRAIN, "--output_dir", "o")
    call(train, *flags, "--num_epochs", 1, "--val_fraction", 0.3)
    before = load("o/best.pt")["held_out"]
    assert before
    call(train, *flags, "--num_epochs", 2, "--val_fraction", 0.5, "--accept_changes")
    assert "the hold-out is the earlier one again" in capsys.readouterr().err
    assert load("o/last.pt")["held_out"] == before


def test_what_does_not_fit(trained, workdir):
    best = trained.output / "best.pt"
    start = (*TRAIN, *RESNET, "--start_from", best)
    for flag, value, then in (
        ("arch", "resnet34", "resnet18"),
        ("decoder", "softmax", "chain"),
        ("embed_size", 8, 256),
        ("hidden_size", 8, 256),
        ("stages", 1, 3),
    ):
        sentence = refusal(train, *start, f"--{flag}", value)
        assert f"has {flag} {then}, this run has {value}: give --{flag} {then}" in sentence
    torch.save(torchvision.models.resnet18().state_dict(), "weights.pth")
    for other in (("--weights", "weights.pth"), ("--pretrained",)):
        sentence = refusal(train, *start, *other)
        assert f"{other[0]} and --start_from both set the first weights" in sentence
    assert "is damaged or not a checkpoint" in refusal(
        train, *TRAIN, *RESNET, "--start_from", "weights.pth"
    )
    assert "there is no checkpoint x.pt" in refusal(train, *TRAIN, *RESNET, "--start_from", "x.pt")
    assert "has no best.pt" in refusal(train, *TRAIN, *RESNET, "--start_from", "data")
    hostile = load_checkpoint(best)
    hostile["weights"] = {**hostile["weights"], "classifier.bias": torch.zeros(3)}
    save_checkpoint(hostile, Path("hostile.pt"))
    assert "its weights do not fit its model" in refusal(
        train, *TRAIN, *RESNET, "--start_from", "hostile.pt"
    )
    assert not list(Path("runs").glob("*/*.pt"))
