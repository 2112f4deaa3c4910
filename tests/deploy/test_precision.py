"""export.py --int8 and --fp16: smaller files, the same answers, and no loss without consent."""

import json
import math
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import call, refusal, write_picture
from enumeration import make_model

import evaluate
import export
from deploy import onnx_export, precision, precision_results
from deploy.precision_results import Comparison, Measured, measure
from evaluation.metrics import SCORE_METRICS
from images.transforms import Preprocessing
from inference.predictions import decode
from report.inputs import list_inputs
from util.errors import RunError, UsageError

SIZE = 32
EXPORTS = {"float32": {"encoder": b"1"}, "int8": {"encoder": b"2"}}
NAMES = {"int8": "int8", "fp16": "float16"}


@pytest.fixture
def ready(export_run, monkeypatch):
    """export.py takes the networks that are already exported: exporting takes seconds."""
    files = {path.stem: path.read_bytes() for path in export_run.folder.glob("*.onnx")}
    monkeypatch.setattr(export, "to_onnx", lambda model, constants: files)
    monkeypatch.setattr(export, "largest_differences", lambda *_: dict.fromkeys(files, 0.0))
    return files


@pytest.fixture
def data(trained):
    """Flags for the tiny run and its images."""
    checkpoint = ("--checkpoint", trained.output / "best.pt")
    images = ("--image_path", trained.images, "--annotations", trained.annotations)
    return (*checkpoint, *images, "--split", "all")


@pytest.mark.parametrize("flag", NAMES)
def test_a_smaller_export(ready, data, trained, tmp_path, capsys, flag):
    """The table has evaluate.py's metrics; inputs and outputs are as before, for any batch."""
    values = (flag, trained.images) if flag == "int8" else (flag,)
    flags = (*data, "--output_dir", tmp_path / "out", "--batch_size", 5, "--accept_loss")
    call(export, *flags, f"--{values[0]}", *values[1:])
    said = capsys.readouterr()
    rows = dict(re.findall(r"^(float32|int8|float16) +(.+)$", said.out, re.MULTILINE))
    assert rows.keys() == {"float32", NAMES[flag]}
    assert "on 11 images of" in said.out  # one of 12 has no labels
    assert "encoder.onnx: " + NAMES[flag] in said.out
    where = ("--output_dir", tmp_path / "evaluated", "--num_workers", 0, "--amp", "off", "--json")
    call(evaluate, *data, *where)
    found = json.loads(capsys.readouterr().out)
    mean_ap, nll, megabytes, _ = map(float, rows["float32"].split())
    assert mean_ap == pytest.approx(found["mAP"], abs=0.006)
    assert nll == pytest.approx(found["set_nll"], abs=0.002)
    assert megabytes == pytest.approx(sum(map(len, ready.values())) / 1e6, abs=0.06)

    out = tmp_path / "out"
    assert (out / "decoder_step.onnx").read_bytes() == ready["decoder_step"]
    smaller = (out / "encoder.onnx").read_bytes()
    assert len(smaller) < {"int8": 0.3, "fp16": 0.55}[flag] * len(ready["encoder"])
    old, new = (onnxruntime.InferenceSession(file) for file in (ready["encoder"], smaller))
    assert new.get_modelmeta().custom_metadata_map == old.get_modelmeta().custom_metadata_map
    view = Preprocessing(SIZE).eval_transform()
    images = np.stack([view.from_file(path) for path in photos_of(trained)])
    for number in (1, 3):
        runs = (network.run(None, {"images": images[:number]}) for network in (old, new))
        for before, after in zip(*runs, strict=True):
            assert after.dtype == np.float32
            spread = np.abs(before).max()
            assert np.abs(before - after).max() < {"int8": 0.2, "fp16": 0.01}[flag] * spread
    kinds = {array.data_type for array in onnx.load_from_string(smaller).graph.initializer}
    low = {"int8": onnx.TensorProto.INT8, "fp16": onnx.TensorProto.FLOAT16}[flag]
    assert {low, onnx.TensorProto.FLOAT} <= kinds  # the heads stay in float32
    if flag == "int8":
        check_weights(smaller)
    card = (out / "MODEL_CARD.md").read_text()
    assert f"computes in {NAMES[flag]}." in card
    assert f"| {mean_ap:.2f} |" in card


def photos_of(trained) -> list:
    return sorted(trained.images.glob("*.jpg"))


def check_weights(encoder: bytes) -> None:
    """A scale for each channel, and seven bits: eight could overflow on a CPU without VNNI."""
    graph = onnx.load_from_string(encoder).graph
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    weights = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim == 4]
    assert len(weights) == 20  # of a ResNet-18
    assert all(np.abs(a.astype(int)).max() in (63, 64) for a in weights)
    scales = [a for name, a in arrays.items() if name.endswith("weight_scale") and a.ndim]
    assert sorted(map(len, scales)) == sorted(len(a) for a in weights)


def test_which_photos_set_the_ranges(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(precision, "MOST_PHOTOS", 4)
    monkeypatch.setattr(precision, "AT_ONCE", 2)
    view = Preprocessing(SIZE).eval_transform()
    batches = list(precision.read_photos(list_inputs([trained.images]), view))
    assert [batch.shape for batch in batches] == [(2, 3, SIZE, SIZE)] * 2
    expected = [view.from_file(path).numpy() for path in photos_of(trained)[::3]]
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    assert "4 photos of" in capsys.readouterr().err
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("no picture")
    assert len(list(precision.read_photos(list_inputs([tmp_path]), view))) == 1
    assert "b.jpg cannot be read as an image" in capsys.readouterr().err
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UsageError, match="none of the photos"):
        list(precision.read_photos(list_inputs([tmp_path]), view))


def comparison(before: float, after: float) -> Comparison:
    rows = (Measured(*r, 10, 1.0) for r in (("float32", before, 3.0), ("int8", after, 3.1)))
    return Comparison(*rows, "12 images of a.json", "the encoder alone")


def test_half_a_point_is_the_most(data, ready, tmp_path, capsys, monkeypatch):
    for after in (50.0, 49.5, 60.0):
        comparison(50.0, after).check_loss()
    for after in (49.49, math.nan):
        with pytest.raises(RunError, match=f"from 50.00 to {after:.2f}, more than 0.5 points"):
            comparison(50.0, after).check_loss()
    monkeypatch.setattr(export, "to_float16", lambda encoder: encoder)
    monkeypatch.setattr(export, "measure", lambda *_: comparison(50.0, 40.0))
    out = tmp_path / "out"
    with pytest.raises(RunError, match="nothing was written"):
        call(export, *data, "--output_dir", out, "--fp16")
    assert "40.00" in capsys.readouterr().out
    assert not list(out.iterdir())
    call(export, *data, "--output_dir", out, "--fp16", "--accept_loss")
    assert len(list(out.iterdir())) == 6


class InTorch:
    """PyTorch in the place of onnxruntime: exporting takes seconds."""

    def __init__(self, model) -> None:
        self.network = onnx_export.EncoderNetwork(model)

    def run(self, names: None, inputs: dict) -> list[np.ndarray]:
        return [output.numpy() for output in self.network(torch.from_numpy(inputs["images"]))]


@pytest.mark.parametrize("decoder", ["none", "chain"])
def test_decoders_and_unknown_labels(decoder, monkeypatch):
    """What `measure` finds is what PyTorch finds; logits of `none` are calibrated once."""
    model = make_model(decoder).requires_grad_(False)
    monkeypatch.setattr(precision_results, "open_session", lambda data: InTorch(model))
    model.decoder.temperature, model.decoder.prior_weight = 1.7, 0.4
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(256, (8, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    targets = torch.randint(2, (8, 6), generator=generator).float()
    targets[torch.rand(8, 6, generator=generator) < 0.2] = torch.nan
    batches = [(images[:5], targets[:5], None), (images[:0], targets[:0], None)]
    batches.append((images[5:], targets[5:], None))
    found = measure(model, EXPORTS, batches, "here", 5)
    expected = decode(model, model.encode(images), targets, precision_results.NUM_SAMPLES)
    pairs = (expected.targets, expected.marginals)
    mean_ap = SCORE_METRICS["mAP"].compute(*pairs, known=expected.known)
    for each in (found.before, found.after):
        assert each.mean_ap == pytest.approx(mean_ap, abs=1e-3)
        assert each.set_nll == pytest.approx(expected.set_nll.mean(), abs=1e-4)
    assert found.images == "8 images of here"
    with pytest.raises(UsageError, match="none of the images"):
        measure(model, EXPORTS, batches[1:2], "here", 5)


def test_wrong_flags(data, tmp_path, trained):
    """All are found before the networks are exported, which takes seconds."""
    flags = ("--checkpoint", trained.output / "best.pt", "--output_dir", tmp_path / "o")
    assert "--image_path is for a smaller model" in refusal(export, *data)
    assert "--limit is for a smaller model" in refusal(export, *flags, "--limit", 3)
    assert "there is no image" in refusal(export, *data, *flags, "--int8", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no images in the folder" in refusal(export, *data, *flags, "--int8", tmp_path / "empty")
    assert not (tmp_path / "o").exists()
    with pytest.raises(SystemExit) as caught:
        call(export, "--int8", tmp_path, "--fp16")
    assert caught.value.code == 2
