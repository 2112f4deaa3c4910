"""export.py: ONNX against PyTorch and enumeration, exact weights, a card without injected HTML."""

import html
import itertools
import json
import re
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import RANKED, call, load, need_export, refusal, same
from enumeration import NUM_LABELS, make_model

import export
from deploy import model_card, onnx_export, predict_onnx, safetensors_io
from deploy.safetensors_io import load_export
from evaluation.metrics import SET_METRICS
from images.transforms import Preprocessing
from inference.checkpoint import restore
from inference.predictions import DECISIONS
from labels.rules import parse_rules
from labels.vocabulary import Vocabulary
from model import DECODERS
from training import weights
from util.errors import RunError, UsageError

SIZE = 32


@pytest.fixture(scope="module", params=DECODERS)
def exported(request):
    """A model with random weights, its ONNX files and their metadata."""
    need_export()
    model = make_model(request.param).requires_grad_(False)
    for part in ("layer1", "layer2", "layer3", "layer4"):  # half a ResNet exports in half the time
        setattr(model.encoder, part, getattr(model.encoder, part)[:1])
    vocabulary = Vocabulary(tuple("abcdef"), (6, 5, 4, 3, 2, 1), 9)
    constants = onnx_export.metadata(
        {"decoder": request.param}, vocabulary, Preprocessing(SIZE), 0.25
    )
    return model, onnx_export.to_onnx(model, constants), constants


@pytest.fixture
def folder(export_run):
    return export_run.folder


@pytest.fixture
def ready(folder, monkeypatch):
    """export.py takes the networks that are already exported: exporting takes seconds."""
    files = {path.stem: path.read_bytes() for path in folder.glob("*.onnx")}
    monkeypatch.setattr(export, "to_onnx", lambda model, constants: files)


def random_images(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (number, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def exact_marginals(model, image: torch.Tensor, rules=()) -> np.ndarray:
    """Marginals from the probabilities of all 2^C sets, with teacher forcing in PyTorch.

    rules: only the sets that break none of them count.
    """
    sets = torch.tensor(list(itertools.product([0, 1], repeat=NUM_LABELS)), dtype=torch.float32)
    with torch.no_grad():
        nll = model(image.expand(len(sets), -1, -1, -1), sets)["set_nll"]
    p = (-nll.double()).exp().numpy()
    for rule in rules:
        p = p * ~rule.is_broken(sets.bool().numpy())
    return p @ sets.double().numpy() / p.sum()


def test_both_runtimes_agree_for_any_number_of_rows(exported):
    model, files, constants = exported
    has_decoder = constants["decoder"] != "none"
    assert set(files) == ({"encoder", "decoder_step"} if has_decoder else {"encoder"})
    for number in (1, 3):
        differences = onnx_export.largest_differences(model, files, random_images(number))
        assert set(differences) == set(files)
        assert max(differences.values()) < 1e-4
    for data in files.values():
        assert onnxruntime.InferenceSession(data).get_modelmeta().custom_metadata_map == constants


@pytest.mark.parametrize("text", ["", "a -> b\nc x d", "one of: a, b, c\ne -> a, f"])
def test_example_agrees_with_enumeration(exported, text, monkeypatch):
    """On the same pixels, sampled marginals are within sampling error of the exact ones."""
    model, files, _ = exported
    for name in ("NUM_SAMPLES", "NUM_FOR_RULES"):
        monkeypatch.setattr(predict_onnx, name, 20_000)
    networks = [
        onnxruntime.InferenceSession(files[name]) if name in files else None
        for name in ("encoder", "decoder_step")
    ]
    image, rules = random_images(1), parse_rules(text, "abcdef", "made")
    plain = [[rule.kind, list(rule.labels)] for rule in rules]
    ((p, predicted),) = predict_onnx.predict(networks, image.numpy(), 0.25, plain)
    np.testing.assert_allclose(p, exact_marginals(model, image, rules), atol=0.03)
    assert not any(rule.is_broken(predicted[None]).any() for rule in rules)
    if not rules:
        assert (predicted == (p >= 0.25)).all()


def test_rules_are_exported_and_kept(trained, tmp_path, folder, ready, capsys, monkeypatch):
    rules = tmp_path / "rules.txt"
    rules.write_text(f"one of: {RANKED[1]}, {RANKED[2]}\n{RANKED[0]} x {RANKED[1]}")
    kept = {}
    monkeypatch.setattr(export, "to_onnx", lambda model, constants: kept.update(constants) or {})
    monkeypatch.setattr(export, "largest_differences", lambda *_: {})
    flags = ("--checkpoint", trained.output / "best.pt", "--output_dir", tmp_path / "out")
    call(export, *flags, "--rules", rules)
    assert json.loads(kept["rules"]) == [["one of", [1, 2]], ["exclusive", [0, 1]]]
    rules.write_text(f"{RANKED[0]} -> unheard")
    assert "does not know the label 'unheard'" in refusal(export, *flags, "--rules", rules)


def test_a_different_model_is_detected(exported):
    """Also if only the decoder differs."""
    model, files, constants = exported
    other = make_model(constants["decoder"], seed=1)
    if constants["decoder"] != "none":
        other.encoder, other.classifier = model.encoder, model.classifier
        other.decoder.project_image = model.decoder.project_image
    broken = "decoder_step" if "decoder_step" in files else "encoder"
    with pytest.raises(RunError, match=rf"{broken}\.onnx does not agree"):
        onnx_export.largest_differences(other, files, random_images(2))


def test_a_mismatch_leaves_no_file(trained, tmp_path, ready):
    checkpoint = load(trained.output / "best.pt")
    checkpoint["weights"]["decoder.label_embedding"] += 0.1
    torch.save(checkpoint, tmp_path / "other.pt")
    flags = ("--checkpoint", tmp_path / "other.pt", "--output_dir", tmp_path / "o")
    with pytest.raises(RunError, match="nothing was written"):
        call(export, *flags)
    assert not list((tmp_path / "o").iterdir())
    (tmp_path / "other.pt").unlink()


def test_export_prints_a_line_for_each_file(trained, export_run):
    names = [line.split(": ")[0] for line in export_run.out.splitlines()]
    assert sorted(names) == sorted(str(path) for path in export_run.folder.iterdir())
    assert len(names) == 6
    assert export_run.err == f"exporting {trained.output / 'best.pt'}\n"


def test_export_verifies_on_real_photos(trained, tmp_path, capsys, shared, ready):
    photos = sorted((shared / "coco-sample/images/val2014").glob("COCO_*.jpg"))[:3]
    flags = ("--checkpoint", trained.output / "best.pt", "--output_dir", tmp_path)
    call(export, *flags, "--verify", *photos)
    out = capsys.readouterr().out
    assert out.count(", on 2 random images and 3 given") == 2
    for path in tmp_path.iterdir():
        path.unlink()


def test_weights_can_be_read_back_exactly(trained, folder):
    checkpoint = load(trained.output / "best.pt")
    back = load_export(folder)
    assert same(dict(back["weights"]), dict(checkpoint["weights"]))
    assert back.keys() == checkpoint.keys()
    assert all(same(back[k], checkpoint[k]) for k in back if k not in ("weights", "metrics"))
    assert restore(back, folder)[1].labels == RANKED


def test_weights_larger_than_the_memory_are_refused(folder, monkeypatch):
    def map_file(path):
        raise MemoryError

    for module in (safetensors_io, weights):
        monkeypatch.setattr(module, "load_file", map_file)
    with pytest.raises(UsageError, match="is larger than the free memory"):
        load_export(folder)
    with pytest.raises(ValueError, match="it is larger than the free memory"):
        weights.read_weights(folder / "model.safetensors")


def test_damaged_files_are_rejected(folder, tmp_path):
    def refused(name: str, content: str | None) -> str:
        other = tmp_path / "copy"
        shutil.copytree(folder, other)
        (other / name).unlink() if content is None else (other / name).write_text(content)
        with pytest.raises(UsageError) as caught:
            load_export(other)
        shutil.rmtree(other)
        return str(caught.value)

    assert "cannot read" in refused("config.json", None)
    assert "cannot read" in refused("model.safetensors", None)
    assert "damaged" in refused("config.json", "{")
    assert "damaged" in refused("model.safetensors", "no tensors here")
    assert "was not written by export.py" in refused("config.json", "[]")
    assert "lacks" in refused("config.json", json.dumps({"format": "hybridnet-checkpoint-1"}))


def test_export_rejects_bad_input(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt")
    (workdir / "text.txt").write_text("hello")
    assert "no trained model found" in refusal(export)
    assert "there is no checkpoint" in refusal(export, "--checkpoint", "absent.pt")
    assert "damaged" in refusal(export, "--checkpoint", "text.txt")
    assert "cannot make the folder text.txt" in refusal(export, *best, "--output_dir", "text.txt")
    own = refusal(export, *best, "--output_dir", trained.output)
    assert "has a config.json or best.pt of its own" in own
    flags = (*best, "--output_dir", "o", "--verify")
    assert "text.txt cannot be read as an image" in refusal(export, *flags, "text.txt")
    assert "there is no image absent.jpg" in refusal(export, *flags, "absent.jpg")
    assert not (workdir / "o").exists()


# --- the model card ---------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "a\\|<img src=x>|`b",
    "**bold** _it_ ~s~ $m$ www.evil.com http://evil.com",
    "line\n\n# heading\n    code",
)


def card_of(checkpoint: dict, path) -> str:
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], "test")
    return model_card.write_card(checkpoint, path, vocabulary, 1000, path.parent).decode()


def test_hostile_labels_are_only_text(trained):
    checkpoint = load(trained.output / "best.pt")
    checkpoint["vocabulary"]["labels"] = list(HOSTILE)
    card = card_of(checkpoint, trained.output / "best.pt")
    rows = card[card.index("## Labels") :].splitlines()[6:]
    assert len(rows) == len(HOSTILE)
    for row, label in zip(rows, HOSTILE, strict=True):
        _, rank, shown, *_ = row.split("|")
        assert row.count("|") == 6, rank
        assert not re.search(r"[<>\[\]\\`*_~$:.!]", shown)
        assert not re.search(r"&(?!#\d+;)", shown)
        assert html.unescape(shown).split() == label.split(), "it must read as the label"


def test_the_card_has_the_evaluation_of_this_checkpoint_only(trained, tmp_path, capsys):
    best = trained.output / "best.pt"
    checkpoint, metrics = load(best), tmp_path / "metrics.json"
    path = tmp_path / "best.pt"  # need not exist: only its folder is read
    assert f"python evaluate.py --checkpoint {path}" in card_of(checkpoint, path)
    results = {
        **{"epoch": checkpoint["epoch"], "threshold": checkpoint["threshold"]},
        **{"checkpoint": "best.pt", "decoder": "chain", "label_thresholds": 0.5},
        **{"command": "python evaluate.py --limit 3", "num_images": 1234, "num_samples": 128},
        **{"protocol": "images with labels", "annotations": "a_b.json", "mAP_labels": 5},
        **{"mAP": 41.237, "mAP@10": 50.0, "set_nll": 3.25, "ECE": 1.5},
        "predicted_sets": {rule: dict.fromkeys(SET_METRICS, 12.5) for rule in DECISIONS},
        "per_label": [{"label": x, "AP": 10.0, "support": 7} for x in RANKED],
    }
    metrics.write_text(json.dumps(results))
    card = card_of(checkpoint, path)
    assert "On 1,234 images with labels" in card
    assert "| 41.24 |" in card
    assert "    python evaluate.py --limit 3\n" in card
    assert "There are no intervals; `python evaluate.py --report` adds them." in card
    assert "pairs are known" not in card
    spans = {"mAP": [40, 42.5], "set_nll": [3, 3.5]}
    spans["predicted_sets"] = {"map": {name: [11, 14] for name in SET_METRICS}}
    metrics.write_text(json.dumps({**results, "intervals": spans}))
    assert "| 41.24 | 40.00 to 42.50 |" in card_of(checkpoint, path)
    metrics.write_text(json.dumps({**results, "pairs": {"known": 2000, "all": 6170}}))
    assert "Only 2,000 of 6,170 image-label pairs are known" in card_of(checkpoint, path)
    for other in (
        {**results, "epoch": 99},
        {**results, "predicted_sets": {**results["predicted_sets"], "map": {}}},
        [],
        {**results, "per_label": []},
    ):
        metrics.write_text(json.dumps(other))
        assert "41.24" not in card_of(checkpoint, path)
        assert "metrics are left out" in capsys.readouterr().err


def test_the_licence_of_the_first_weights(trained):
    checkpoint = load(trained.output / "best.pt")

    def licence(arch: str = "resnet18", **flags: object) -> str:
        changed = {**checkpoint, "flags": {**checkpoint["flags"], **flags}}
        changed["model"] = {**checkpoint["model"], "arch": arch}
        card = html.unescape(card_of(changed, trained.output / "best.pt"))
        return " ".join(card.split("before you share the model.")[1].split("## Labels")[0].split())

    assert licence() == "The encoder started from random weights."
    assert licence(pretrained=True).endswith("torchvision states no licence for them.")
    timm, nc = "tf_efficientnet_lite0", "convnextv2_tiny"
    assert licence(timm, pretrained=True) == (
        f"The encoder started from the weights of {timm} that timm offers. timm states this "
        "licence for them: apache-2.0."
    )
    assert licence(timm, weights="files/my<b>lite0.pth") == (
        "The encoder started from weights in the file my<b>lite0.pth. Their licence is not known "
        f"here. For its own weights of {timm}, timm states this licence: apache-2.0."
    )
    assert licence(weights="a.pth").endswith("Their licence is not known here.")
    assert licence(start_from="runs/a/best.pt").endswith("Its licence is not known here.")
    for flags in ({"pretrained": True}, {"weights": "a.pth"}):
        assert licence(nc, **flags).endswith("cc-by-nc-4.0. This licence forbids commercial use.")


def test_a_torch_that_is_too_old_is_named(monkeypatch):
    """The exporter of torch 2.5 fails on these networks, in terms that help nobody."""

    class Same(torch.nn.Module):
        outputs = ("y",)

        def forward(self, x):
            return (x,)

    monkeypatch.setattr(torch.onnx, "export", None)
    for can, hint in ((True, r"\)$"), (False, r"; use torch 2\.11 or newer, not ")):
        monkeypatch.setattr(onnx_export, "can_export", lambda can=can: can)
        with pytest.raises(RunError, match=rf"exporter failed .*{hint}"):
            onnx_export._export(Same(), {"x": torch.zeros(2, 1)}, {})
