"""The scripts on a GPU: they run and give the same results as on a CPU.

Runs only if named: python -m pytest tests/test_gpu.py
"""

import importlib.util
import json

import numpy as np
import pytest
import torch
from conftest import EVALUATE, TRAIN, call, smooth

import evaluate
import sample
import train
from data_loader import LabelledImages, make_loader
from images.transforms import Preprocessing

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU, or the command does not name this file"
)
GPU = ("--device", "cuda")
NEEDS_CODEC = pytest.mark.skipif(
    not importlib.util.find_spec("torchcodec"), reason="torchcodec is not installed"
)


FLAGS = [(), ("--compile",), ("--decoder", "none"), ("--amp", "off")]
FLAGS += [pytest.param(("--decode_on_gpu",), marks=NEEDS_CODEC)]


@pytest.mark.parametrize("flags", FLAGS)
def test_continue_a_run(workdir, flags):
    call(train, *TRAIN, *GPU, *flags)
    call(train, *TRAIN, *GPU, *flags, "--num_epochs", 3, "--accept_changes")
    (log,) = workdir.glob("runs/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["val_set_nll"]) for line in lines)


def test_gpu_and_cpu_agree(workdir):
    """In float32 the marginals agree to 1e-3. The other options run."""
    call(train, *TRAIN, *GPU)
    found, marginals = {}, {}
    for device in ("cuda", "cpu"):
        flags = ("--device", device, "--amp", "off", "--output_dir", device)
        call(evaluate, *EVALUATE, *flags, "--reveal", 1, "--label_issues", 3, "--influence")
        found[device] = json.loads((workdir / device / "metrics.json").read_text())
        marginals[device] = np.load(workdir / device / "predictions.npz")["marginals"]
    assert found["cuda"]["set_nll"] == pytest.approx(found["cpu"]["set_nll"], rel=1e-3)
    np.testing.assert_allclose(marginals["cuda"], marginals["cpu"], atol=1e-3)
    call(sample, "data/images", *GPU, "--known", "dog", "--standard_errors")


@NEEDS_CODEC
def test_decoded_on_the_gpu(tmp_path):
    """Photos have nearly the pixels that a CPU gives them."""
    for number in range(5):
        smooth(640, 480, number).save(tmp_path / f"{number}.jpg", quality=95)
    paths, targets = sorted(tmp_path.iterdir()), np.ones((5, 1), bool)
    for seed in (None, 0):
        found = []
        for encoded in (True, False):
            data = LabelledImages(paths, targets, Preprocessing(448), seed, encoded=encoded)
            images, *_ = next(iter(make_loader(data, 5)))
            found.append(images.to("cuda").float())
        assert (found[0] - found[1]).abs().mean() < 1.5


@NEEDS_CODEC
def test_evaluate_decodes_on_the_gpu(workdir):
    call(train, *TRAIN, *GPU)
    found = []
    for flags in (("--decode_on_gpu",), ()):
        call(evaluate, *EVALUATE, *GPU, *flags, "--output_dir", f"of {len(flags)}")
        found.append(json.loads((workdir / f"of {len(flags)}/metrics.json").read_text()))
    assert found[0]["set_nll"] == pytest.approx(found[1]["set_nll"], rel=1e-2)
