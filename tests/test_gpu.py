"""The scripts on a GPU: they run and give the same results as on a CPU.

Runs only if named: python -m pytest tests/test_gpu.py
"""

import json

import numpy as np
import pytest
import torch
from conftest import EVALUATE, TRAIN, call

import evaluate
import sample
import train

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU, or the command does not name this file"
)
GPU = ("--device", "cuda")


@pytest.mark.parametrize("flags", [(), ("--compile",), ("--decoder", "none"), ("--amp", "off")])
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
