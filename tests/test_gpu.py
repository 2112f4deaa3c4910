"""The scripts on a GPU: they work, and say what they say on a CPU.

It has to be asked for by name: python -m pytest tests/test_gpu.py
"""

import json

import numpy as np
import pytest
import torch
from conftest import EVALUATE, TRAIN, call

import evaluate
import sample
import train

WHY = "there is no GPU here, or this file was not named"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason=WHY)
GPU = ("--device", "cuda")


@pytest.mark.parametrize("flags", [(), ("--compile",), ("--decoder", "none"), ("--amp", "off")])
def test_a_run_is_continued(workdir, flags):
    call(train, *TRAIN, *GPU, *flags)
    call(train, *TRAIN, *GPU, *flags, "--num_epochs", 3, "--accept_changes")
    (log,) = workdir.glob("runs/*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["val_set_nll"]) for line in lines)


def test_what_is_said_is_said_on_the_cpu_too(workdir):
    """In float32, labels' probabilities to 1e-3; whatever else can be asked is answered."""
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
