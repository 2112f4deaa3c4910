"""What makes training fast: bfloat16, torch.compile, memory that is kept, losses checked late."""

import ctypes
import functools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import QUICK, REPO, call, refusal, run

import train
from training import saver
from training.state import TrainState
from util import device
from util.errors import RunError

sys.path.insert(0, str(REPO / "benchmarks/speed"))
import bench
import classic_loop
from timing import Ratio

from model import HybridNet

CPU = torch.device("cpu")
TRAIN = ("--image_path", "data/images", *QUICK)


@pytest.mark.parametrize("pays", [False, True])
def test_amp_auto_is_the_precision_of_the_run_or_the_faster_one(monkeypatch, pays):
    monkeypatch.setattr(device, "bf16_pays", lambda device: pays)
    faster = "on" if pays else "off"
    for then in ("on", "off"):
        assert device.resolve_amp("auto", CPU, {"device": "cpu", "amp": then}) == then
        assert device.resolve_amp("auto", CPU, {"device": "cuda", "amp": then}) == faster
        assert device.resolve_amp(then, CPU, {"device": "cpu", "amp": "on"}) == then
    assert device.resolve_amp("auto", CPU, {}) == faster
    assert device.resolve_amp("auto", CPU, {"device": "auto", "amp": "auto"}) == faster


def test_timing_bfloat16_does_not_change_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert device._bf16_gain() > 0
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:1", 1), ("auto", 2), ("cuda", 2)]
)
def test_pick_device_chooses_a_gpu_by_number(monkeypatch, name, number):
    """torch.cuda.set_device needs a device with a number. Works without a GPU."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # set back after the test
    if number == 2:
        monkeypatch.setenv("LOCAL_RANK", "2")
        monkeypatch.setenv("WORLD_SIZE", "4")
    assert device.pick_device(name) == chosen[0] == torch.device("cuda", number)


def test_a_compiled_encoder_learns_the_same_weights(monkeypatch):
    """With backend "eager": one graph of the whole encoder, but no compiled kernels."""
    graphs = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", graphs)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    weights, averages = {}, {}
    for compiled in (False, True):
        torch.manual_seed(0)
        model = HybridNet(2, "resnet18", stages=3)
        state = TrainState(model, CPU, 2, 1, 2e-3, 1e-2, compiled=compiled)
        steps = [(images[:n], targets[:n], torch.arange(n), 1) for n in (4, 3)]
        train.train_one_epoch(state, steps, device.autocast(CPU, "off"), "chain", 1.0, 0)
        weights[compiled], averages[compiled] = model.state_dict(), state.ema.state_dict()
    for states in (weights, averages):
        plain, compiled = states.values()
        assert plain.keys() == compiled.keys()
        torch.testing.assert_close([*compiled.values()], [*plain.values()], rtol=1e-3, atol=1e-5)


def test_compile_on_a_cpu_is_an_error(workdir):
    assert "--compile gains nothing on a CPU" in refusal(train, *TRAIN, "--compile")


GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_freed_memory_is_reused(tmp_path):
    """Page faults of the same sum, repeated, as in the steps of an epoch; the minimum of them.

    With torch 2.5 the heap grows for the first six steps, by the gaps that its alignment leaves.
    """
    script = """
import resource, sys, torch
sys.path.insert(0, sys.argv[1])
from util.device import pick_device
for way, rounds in (("returned", 2), ("kept", 12)):
    if way == "kept":
        pick_device("cpu")
    faults = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        x = torch.ones(1 << 24)
        y = 2 * x + 1
        del x, y
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(min(faults))
"""
    path = tmp_path / "faults.py"
    path.write_text(script)
    result = subprocess.run(
        [sys.executable, path, REPO], capture_output=True, text=True, check=True
    )
    returned, kept = map(int, result.stdout.split())
    assert kept < returned / 10


@pytest.mark.parametrize("has", ["", "avx512_bf16"])
def test_a_run_from_a_machine_with_bfloat16(monkeypatch, capsys, has):
    """It keeps its precision on a CPU that emulates it, and says what that costs."""
    monkeypatch.setattr(device, "cpu_capabilities", lambda: frozenset([has]))
    cpu = torch.device("cpu")
    assert device.resolve_amp("auto", cpu, {"device": "cpu", "amp": "on"}) == "on"
    assert ("--amp off is faster" in capsys.readouterr().err) == (not has)
    assert device.resolve_amp("auto", cpu, {"device": "cpu", "amp": "off"}) == "off"
    assert capsys.readouterr().err == ""


def test_a_continued_run_keeps_its_precision(workdir, monkeypatch, capsys):
    """Even if a second measurement has another result."""
    monkeypatch.setattr(device, "bf16_pays", lambda device: True)
    save = saver.save_last

    def save_and_stop(checkpoint, folder):
        save(checkpoint, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saver, "save_last", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            call(train, *TRAIN)
    monkeypatch.setattr(device, "bf16_pays", lambda device: False)
    capsys.readouterr()
    call(train, *TRAIN)
    assert "cpu, bfloat16" in capsys.readouterr().err
    flags = torch.load(workdir / "runs/instances-chain/last.pt", weights_only=True)["flags"]
    assert (flags["device"], flags["amp"]) == ("cpu", "on")


def test_the_first_loss_that_is_not_finite_is_named(tmp_path):
    training = TrainState(torch.nn.Linear(2, 2), CPU, 10, 10, 2e-3)
    loader = SimpleNamespace(dataset=SimpleNamespace(paths=[Path(f"{i}.jpg") for i in range(8)]))

    def after(*losses):
        training.steps += len(losses)
        for i, loss in enumerate(losses):
            terms = torch.tensor([loss, 2.0, 3.0])
            training.pending.append((terms, torch.tensor([2 * i, 2 * i + 1])))
        saver.check_finite_and_add(training, loader, tmp_path)

    after(1.0, 1.0, 1.0)
    after(1.0)
    assert training.sums.tolist() == [4, 8, 12]
    with pytest.raises(RunError, match=r"the loss is nan at step 7, on the images .*batch.json;"):
        after(1.0, 1.0, float("nan"), float("nan"))
    assert json.loads((tmp_path / "nonfinite_batch.json").read_text()) == {
        "epoch": 1,
        "step": 7,
        "losses": ["nan", "2.0", "3.0"],
        "images": ["4.jpg", "5.jpg"],
    }


def test_the_classic_loop_has_the_same_loss():
    torch.manual_seed(0)
    model = HybridNet(6, "resnet18", "chain", 8, 8, stages=3)
    for parameter in [*model.stage_heads.parameters(), *model.decoder.parameters()]:
        torch.nn.init.normal_(parameter)
    targets = torch.tensor([[1.0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]])
    classic_loop.check_classic_loss(model, targets)


def test_rows_of_the_table():
    row = bench.format_row(Ratio("a : b", 2.0, 3.0, 0.1, at_least=1.5, note="fast"))
    assert row == "| a : b | 1.50 ± 0.10 | at least 1.5 | met | fast |"
    row = bench.format_row(Ratio("a : b", 9.0, 3.0, 0.1, at_most=2))
    assert row == "| a : b | 3.00 ± 0.10 | at most 2 | missed |  |"
    assert "|  |  |" in bench.format_row(Ratio("a : b", 9.0, 3.0, 0.1))


def test_an_unknown_topic_is_an_error(tmp_path):
    result = run("benchmarks/speed/bench.py", "nonsense", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "no topic nonsense" in result.stderr
