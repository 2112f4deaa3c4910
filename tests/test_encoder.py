"""Encoders of timm: their features, train.py to export.py with them, and what is refused."""

import json
import resource
import socket
from pathlib import Path

import pytest
import torch
from conftest import EVALUATE, REPO, call, load, refusal, run, same

import evaluate
import export
import sample
import train
from encoder import build_encoder, choose_stages
from inference.checkpoint import load_checkpoint, restore, save_checkpoint
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from training import saver
from util import compat
from util.errors import UsageError

timm = pytest.importorskip("timm", reason="timm has the networks of this file")

TRAIN = ("--image_path", "data/images", "--image_size", 64, "--num_epochs", 2, "--batch_size", 6)
TRAIN += ("--num_workers", 0)
OUTPUT = Path("runs/instances-chain")
FAMILIES = {  # name -> cells' sizes of its stages, in pixels
    "test_resnet": [4, 8, 16, 32],
    "test_efficientnet": [4, 8, 16, 32],
    "mobilenetv4_conv_small_035": [4, 8, 16, 32],
    "test_convnext": [4, 8, 16, 32],
    "test_vit": [16, 16, 16, 16],
    "swin_s3_tiny_224": [4, 8, 16, 32],
    "regnety_002": [4, 8, 16, 32],
    "poolformer_s12": [4, 8, 16, 32],
    "levit_128s": [16, 32, 64],
}


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_last_stage_is_what_timms_classifier_pools(arch):
    torch.manual_seed(0)
    encoder = build_encoder(arch, image_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps, theirs = encoder(x), encoder.net.forward_features(x)
    assert [64 // m.shape[2] for m in maps] == [64 // m.shape[3] for m in maps] == FAMILIES[arch]
    assert [m.shape[1] for m in maps] == encoder.widths
    if theirs.ndim == 3:  # tokens, those of the class first
        cells = theirs[:, getattr(encoder.net, "num_prefix_tokens", 0) :]
        assert torch.equal(maps[-1].flatten(2).mT, cells)
    else:
        last = theirs.permute(0, 3, 1, 2) if "swin" in arch else theirs
        assert torch.equal(maps[-1], last)
    config = timm.get_pretrained_cfg(arch)
    assert (encoder.mean, encoder.std) == (config.mean, config.std)
    assert all(m.shape[0] == 0 for m in encoder(x[:0]))
    encoder.train()  # no path is dropped at random: a run would depend on the number of processes
    with torch.no_grad():
        assert same(encoder(x), encoder(x))


def test_stages_of_networks_of_one_scale_are_at_equal_distances():
    assert choose_stages([16] * 12) == [2, 5, 8, 11]
    assert choose_stages([2, 4, 4, 8, 16, 32, 32]) == [2, 3, 4, 6]
    assert choose_stages([16, 32, 64]) == [0, 1, 2]


def test_values_computed_from_earlier_weights_are_dropped():
    """LeViT keeps attention biases while it is tested, as the averaged network always is."""
    encoder = build_encoder("levit_128s", image_size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoder(x)
        for name, parameter in encoder.named_parameters():
            if "attention_biases" in name:
                parameter.normal_(0, 9)
        later = encoder.eval()(x)
        other = build_encoder("levit_128s", image_size=64).eval()
        other.load_state_dict(encoder.state_dict())
        assert same(later, other(x))


# --- the scripts ------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["test_efficientnet", "test_vit"])  # more: robustness/encoders.py
def test_from_training_to_export(workdir, monkeypatch, capsys, arch):
    """An interrupted run gives the same bits; its checkpoint serves all scripts."""

    class Stopped(BaseException):
        """Stands for the end of the process."""

    def stop(*args: object) -> None:
        save_last(*args)
        raise Stopped

    flags, save_last = (*TRAIN, "--arch", arch), saver.save_last
    with monkeypatch.context() as patch:
        patch.setattr(saver, "save_last", stop)
        with pytest.raises(Stopped):
            call(train, *flags, "--save_minutes", 1e-9)
    call(train, *flags)
    whole = (*flags, "--output_dir", "whole")
    call(train, *whole)
    for name in ("best.pt", "last.pt"):
        a, b = load(OUTPUT / name), load(f"whole/{name}")
        assert same(a["weights"], b["weights"])
        assert same(a.get("training"), b.get("training"))
        assert same(a["metrics"], b["metrics"])
    best = ("--checkpoint", "whole/best.pt")
    call(evaluate, *best, *EVALUATE)
    assert json.loads(Path("whole/all/metrics.json").read_text())["mAP"] > 0
    capsys.readouterr()
    call(sample, "data/images/img_01.jpg", *best, "--output", "found")
    assert list(Path("found").rglob("*.png"))
    if compat.can_export():
        call(export, *best)
        assert "largest difference" in capsys.readouterr().out
    if arch == "test_vit":
        wrong_sizes(flags)


def wrong_sizes(flags: tuple) -> None:
    """The weights of a ViT are for images of one size: it can neither continue nor start others."""
    sentence = refusal(train, *flags, "--image_size", 96, "--accept_changes", "--num_epochs", 3)
    assert "--image_size was 64, is 96, but the weights of test_vit are for one size" in sentence
    start = ("--start_from", "whole/best.pt", "--output_dir", "other")
    sentence = refusal(train, *flags, *start, "--image_size", 96)
    assert "was trained on images of another size: give --image_size 64" in sentence


def test_a_frozen_encoder_stays_as_it_is(workdir):
    """Its BatchNorm statistics too, and no layer of it is dropped at random."""
    arch = "test_efficientnet"
    torch.manual_seed(0)
    state = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in timm.create_model(arch, num_classes=0).state_dict().items()
    }
    torch.save(state, "weights.pth")
    call(train, *TRAIN, "--arch", arch, "--weights", "weights.pth", "--freeze_encoder")
    for name in ("best.pt", "last.pt"):
        found = load(OUTPUT / name)
        for weights in (found["weights"], found.get("training", found)["weights"]):
            kept = {k.removeprefix("encoder.net."): v for k, v in weights.items() if "encoder" in k}
            assert same(kept, dict(state))
    model, *_ = restore(load_checkpoint(OUTPUT / "best.pt"), OUTPUT)
    assert not any(part.training for part in model.train().encoder.modules())


# --- what is refused --------------------------------------------------------------------------

OLDEST = torch.__version__.startswith("2.5.")
TOO_SMALL = "Given input size: (768x2x2)" if OLDEST else "Calculated padded input size per"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("coat_tiny",),
            "--arch coat_tiny cannot encode images of 64 pixels (it has several final",
        ),
        (("inception_v3",), f"cannot encode images of 64 pixels ({TOO_SMALL}"),
        (("efficientformer_l1",), "--arch efficientformer_l1 cannot encode images of 64 pixels"),
        (("levit_128s", "--stages", 4), "--stages is 4; possible are 1 to 3"),
        (("beit_base_patch16_224", "--image_size", 4096), "(its tables take 412 GB); it was made"),
    ],
)
def test_networks_that_do_not_fit(tmp_path, monkeypatch, flags, said):
    """Before labels are read: the file is empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "labels.csv").touch()
    known = ("--annotations", "labels.csv")
    assert said in refusal(train, *TRAIN, *known, "--arch", *flags)


def test_a_typing_error_is_one_sentence_with_near_names(capsys):
    for typed, near in (
        ("tf_efficentnet_lite0", "near it are tf_efficientnet_lite0"),
        ("resnet18.a1_in1", "near it are resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", "possible are resnet18"),
    ):
        with pytest.raises(SystemExit) as ended:
            train.get_args_parser().parse_args(["--arch", typed])
        assert ended.value.code == 2
        assert near in capsys.readouterr().err.splitlines()[-1]


HOSTILE = ["hf-hub:timm/resnet18.a1_in1k", "local-dir:data", "no_such_net", "coat_tiny"]
HOSTILE += ["vit_gigantic_patch14_224", "resnet18.a1_in1k/../x", "x" * 10**6, ""]


@pytest.fixture(scope="module")
def checkpoint():
    vocabulary = Vocabulary(("a", "b"), (2, 1), 3)
    settings = settings_of({"arch": "test_vit", "embed_size": 4, "hidden_size": 4})
    model = HybridNet(2, image_size=64, **settings)
    return {
        **{"model": settings, "vocabulary": vocabulary.to_dict(), "weights": model.state_dict()},
        **{"preprocessing": {"image_size": 64}, "temperature": 1.0, "prior_weight": 0.0},
        **{"threshold": 0.5, "label_thresholds": [0.5, 0.5], "epoch": 1, "selected_on": "x"},
        **{"flags": {}, "metrics": {}},
    }


def test_hostile_checkpoints(checkpoint, tmp_path, monkeypatch):
    """One sentence: nothing is fetched, no file is read, and memory stays small."""
    path = tmp_path / "best.pt"
    save_checkpoint(checkpoint, path)
    restore(load_checkpoint(path), path)  # only what is changed below is wrong
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("it uses the network"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    changes = [{"model": {**checkpoint["model"], "arch": arch}} for arch in HOSTILE]
    changes.append({"preprocessing": {"image_size": 30}})
    changes.append(
        {
            "model": {**changes[0]["model"], "arch": "beit_base_patch16_224"},
            "preprocessing": {"image_size": 8192},
        }
    )
    for change in changes:
        save_checkpoint({**checkpoint, **change}, path)
        with pytest.raises(UsageError) as caught:
            restore(load_checkpoint(path), path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000, f"{grown / 1000:.0f} MB"


WITHOUT = f"""
import sys
sys.path.insert(0, {str(REPO)!r})
sys.modules["timm"] = None  # importing it fails
import evaluate, sample, train
from pathlib import Path
from inference.checkpoint import load_checkpoint, restore
from util.errors import UsageError

def call(script, *flags):
    script.main(script.get_args_parser().parse_args(flags))

data = "--image_path data/images --annotations data/annotations/instances.json --num_workers 0"
call(train, *data.split(), *"--image_size 32 --num_epochs 1 --output_dir r".split())
call(evaluate, *data.split(), *"--split all --checkpoint r/best.pt".split())
call(sample, "data/images/img_01.jpg", "--checkpoint", "r/best.pt")
checkpoint = load_checkpoint(Path("r/best.pt"))
checkpoint["model"]["arch"] = "convnext_atto"
try:
    restore(checkpoint, Path("x.pt"))
except UsageError as error:
    print(error)
train.get_args_parser().parse_args(["--arch", "convnext_atto"])
"""


def test_without_timm(workdir):
    """ResNets work. Another arch is one sentence, on the command line and in a checkpoint."""
    (workdir / "without.py").write_text(WITHOUT)
    result = run(workdir / "without.py", cwd=workdir)
    assert result.returncode == 2, result.stderr
    said = "arch is 'convnext_atto'; possible are resnet18, resnet34, resnet50, resnet101, "
    said += "resnet152, and more with the package timm: "
    assert said in result.stdout.splitlines()[-1]
    assert said in result.stderr.splitlines()[-1]
