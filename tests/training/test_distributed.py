"""Several processes give the results of one: the same images, losses and metrics."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPO, call, load, log_lines, run, write_tiny_set
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing import start_processes

import train
from images import sampler
from images.cache import ImageCache
from images.sampler import EpochBatchSampler
from util import distributed
from util.distributed import GlobalBatchNorm, gather_batches, stand_in, wrap_ddp
from util.errors import RunError, UsageError

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import kills

FLAGS = ("--image_path", "data/images", "--image_size", 48, "--num_epochs", 2, "--amp", "off")
FLAGS += ("--batch_size", 11, "--val_fraction", 0, "--learning_rate", 1e-4)
LOSSES = ("train_loss", "train_set_nll", "train_cnn_bce", "val_set_nll")


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_every_image_is_used_once(length, batch_size, num_processes, repeats, shuffle):
    def batches_of(number: int, of: int) -> list[list[tuple[int, int]]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "rank", lambda: number)
            patch.setattr(sampler, "world_size", lambda: of)
            batches = EpochBatchSampler(length, batch_size, 3 if shuffle else None, repeats)
            batches.epoch = 2
            got = list(batches)
            assert len(got) == len(batches)
            return got

    whole = batches_of(0, 1)
    assert [len(batch) for batch in whole] == EpochBatchSampler(
        length, batch_size, 0, repeats
    ).batch_sizes()
    assert sorted(index for batch in whole for _, index in batch) == sorted(
        list(range(length)) * repeats
    )
    shares = [batches_of(number, num_processes) for number in range(num_processes)]
    if shuffle:  # training: a part of every batch
        for batch, *parts in zip(whole, *shares, strict=True):
            assert sorted(batch) == sorted(item for part in parts for item in part)
    else:  # evaluation: whole batches; gather_batches restores their order
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "all_gather", lambda _: shares)
            assert gather_batches([]) == whole


def _normalise(number: int, folder: str) -> None:
    """One of three processes; the last one has no image."""
    store = torch.distributed.FileStore(f"{folder}/store", 3)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=3)
    x = torch.load(f"{folder}/x.pt")
    mine = [x[:4], x[4:], x[:0]][number].clone().requires_grad_()
    norm = GlobalBatchNorm(5)
    for _ in range(2):
        y = norm(mine)
    (y**3).sum().backward()
    for parameter in norm.parameters():
        torch.distributed.all_reduce(parameter.grad)
    result = {"y": y, "gradient": mine.grad, "scale": norm.weight.grad, **norm.state_dict()}
    torch.save({k: v.detach() for k, v in result.items()}, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_global_batch_norm_is_batch_norm_of_the_whole_batch(tmp_path):
    x = torch.randn(6, 5, 3, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
    torch.save(x, tmp_path / "x.pt")
    start_processes(_normalise, (str(tmp_path),), 3, start_method="fork")
    found = [torch.load(tmp_path / f"{number}.pt") for number in range(3)]
    norm, x = nn.BatchNorm2d(5), x.clone().requires_grad_()
    for _ in range(2):
        y = norm(x)
    (y**3).sum().backward()
    for name, expected in (("y", y), ("gradient", x.grad)):
        torch.testing.assert_close(torch.cat([f[name] for f in found]), expected, atol=1e-4, rtol=0)
    for f in found:
        torch.testing.assert_close(f["scale"], norm.weight.grad, atol=1e-3, rtol=1e-5)
        for name, expected in norm.state_dict().items():
            torch.testing.assert_close(f[name], expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run with one process and with two. The 12 images make steps of 11 and 1."""
    tiny = write_tiny_set(tmp_path_factory.mktemp("distributed"))
    flags = ("--output_dir", "one", "--keep_unlabelled")
    one = run("train.py", *FLAGS, *flags, cwd=tiny.folder)
    assert one.returncode == 0, one.stderr
    flags = (*FLAGS, "--output_dir", "two", "--keep_unlabelled")
    two = run("train.py", *flags, cwd=tiny.folder, processes=2)
    assert two.returncode == 0, two.stderr
    yield tiny.folder, one, two
    for path in tiny.folder.rglob("*.pt"):
        path.unlink()


def test_two_processes_train_as_one(runs):
    folder, one, two = runs
    lines = [[json.loads(line) for line in r.stdout.splitlines()] for r in (one, two)]
    assert len(lines[0]) == len(lines[1]) == 2, "one line per epoch, for any number of processes"
    for a, b in zip(*lines, strict=True):
        assert all(b[name] == pytest.approx(a[name], rel=1e-4) for name in LOSSES)
    assert two.stderr.count("epochs of") == 1
    assert "2 processes" in two.stderr
    assert "find_unused_parameters" not in two.stderr
    a, b = (torch.load(folder / name / "last.pt")["training"]["weights"] for name in ("one", "two"))
    assert list(a) == list(b)


def test_the_losses_of_each_step_agree(tmp_path):
    """With one step per epoch, the log has the loss of each step; three processes share it."""
    tiny = write_tiny_set(tmp_path)
    # Adam's first steps are as long for a rounding error as for a gradient: use a small rate
    flags = (*FLAGS, "--limit", 11, "--num_epochs", 4, "--learning_rate", 1e-5)
    flags += ("--arch", "test_resnet")
    losses = []
    for number in (1, 2, 3):
        command = ("train.py", *flags, "--output_dir", number)
        result = run(*command, cwd=tiny.folder, processes=number)
        assert result.returncode == 0, result.stderr
        losses.append([json.loads(line)["train_loss"] for line in result.stdout.splitlines()])
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
    for path in tmp_path.rglob("*.pt"):
        path.unlink()


def test_sigterm_to_all_processes_loses_nothing(runs, monkeypatch):
    """Each gets it twice, because torchrun passes on its own. One process goes on for the two.

    Started by torchrun itself, as a user does.
    """
    folder, *_ = runs
    monkeypatch.chdir(folder)
    flags = (*FLAGS, "--output_dir", "three", "--keep_unlabelled")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    command = [*torchrun, REPO / "train.py", *map(str, flags), "--save_minutes", "1e-9"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not Path("three/last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    for pid in [process.pid, *kills.children(process.pid)]:
        os.kill(pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode, err
    assert "stopped by SIGTERM; everything is saved" in err
    assert f'{REPO / "train.py"}", line' not in err, "torchrun has a traceback of its own"
    assert 1 <= load("three/last.pt")["training"]["progress"][2] < 4, "of 2 epochs of 2 steps"
    call(train, *flags)
    for a, b in zip(log_lines(Path("one")), log_lines(Path("three")), strict=True):
        assert all(b[name] == pytest.approx(a[name], rel=1e-4) for name in LOSSES)


def _stand_in(number: int, folder: str) -> None:
    """One of two processes; the second has no image and lets one stand in."""
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
    net = make_net()
    ddp, x = wrap_ddp(net), torch.load(f"{folder}/x.pt")
    if number == 0:
        y = ddp(x)
    else:
        with stand_in():
            y = ddp(torch.ones_like(x[:1]))[:0]
    (2 * (y**3).sum()).backward()  # DDP takes the mean over processes
    gradients = {f"gradient of {n}": p.grad for n, p in net.named_parameters()}
    torch.save({**net.state_dict(), **gradients}, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def make_net() -> nn.Module:
    """BatchNorm of all kinds that timm's networks have."""
    norm_act = pytest.importorskip("timm.layers", reason="timm has it").BatchNormAct2d
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3), norm_act(4, act_layer=nn.SiLU), nn.Conv2d(4, 5, 2)
    return nn.Sequential(
        *first, nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(45, 6), nn.BatchNorm1d(6)
    )


def test_an_image_that_stands_in_changes_nothing(tmp_path):
    """All kinds of BatchNorm have the statistics of the whole batch."""
    net = make_net()
    x = torch.randn(7, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.save(x, tmp_path / "x.pt")
    start_processes(_stand_in, (str(tmp_path),), 2, start_method="fork")
    (net(x) ** 3).sum().backward()
    expected = net.state_dict() | {f"gradient of {n}": p.grad for n, p in net.named_parameters()}
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-4)


def test_several_processes_evaluate_as_one(runs):
    folder, *_ = runs
    flags = ("evaluate.py", "--checkpoint", "one/best.pt", "--image_path", "data/images")
    flags += ("--annotations", "data/annotations/instances.json", "--batch_size", 3, "--amp", "off")
    flags += ("--reveal", 1, "--label_issues", 5, "--num_workers", 0, "--json")
    found = []
    for number in (1, 2, 5):  # 12 images are 4 batches
        result = run(*flags, cwd=folder, processes=number)
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout))
        found[-1].pop("images_per_second")
    commands = [each.pop("command") for each in found]
    assert commands[1] == commands[0].replace("python", "torchrun --nproc_per_node=2", 1)
    assert found[0] == found[1] == found[2]


def _on_two_machines(number: int, folder: str, full: int | None) -> None:
    """One of four processes, two on each machine, which has a disk of its own; one may be full."""
    machine = Path(folder, f"machine {number // 2}")
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number % 2), WORLD_SIZE="4")
    store = torch.distributed.FileStore(f"{folder}/store", 4)
    cache = ImageCache(machine / "cache", sorted(Path(folder, "data/images").iterdir()), 32)
    write, connect = cache._write, torch.distributed.init_process_group

    def count(path: Path, num_workers: int) -> None:
        Path(folder, f"written by {number}").touch()
        write(path, num_workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_write", count)
        at = {"store": store, "rank": number, "world_size": 4}
        join = lambda backend, timeout: connect(backend, timeout=timeout, **at)  # noqa: E731
        patch.setattr(torch.distributed, "init_process_group", join)
        if number // 2 == full:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        end = "ready"
        try:
            with distributed.process_group(torch.device("cpu")):
                distributed.rank_zero_first(lambda: cache.prepare(0))
        except (UsageError, RunError) as error:
            end = str(error)
    Path(folder, f"{number}.txt").write_text(end)


@pytest.mark.parametrize("full", [None, 0, 1])
def test_each_machine_has_a_cache_of_its_own(tmp_path, full):
    """One process of each machine fills it. If a disk is full there, no process goes on."""
    write_tiny_set(tmp_path)
    start_processes(_on_two_machines, (str(tmp_path), full), 4, start_method="fork")
    ends = [(tmp_path / f"{number}.txt").read_text() for number in range(4)]
    writers = [number for number in range(4) if (tmp_path / f"written by {number}").exists()]
    if full is None:
        assert ends == ["ready"] * 4
        assert writers == [0, 2]
    else:
        needs = [number for number in range(4) if "GB are free" in ends[number]]
        ended = sum("another process of this run has ended" in end for end in ends)
        assert needs == [2 * full]
        assert ended == 3
        assert writers == [0] * full  # machine 1 waits for machine 0, which has a cache then


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] "


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"{GLOO}Read error [127.0.0.1]:2: Connection reset by peer. This is typical"),
        RuntimeError(f"{GLOO}Connection closed by peer [127.0.0.1]:2. Check the logs"),
        RuntimeError(f"{GLOO}writev [127.0.0.1]:2: Broken pipe"),
        torch.distributed.DistNetworkError("failed to recv, got 0 bytes"),
    ],
    ids=["reset", "closed", "pipe", "store"],
)
@pytest.mark.parametrize("early", [False, True], ids=["connected", "connecting"])
def test_the_end_of_another_process_is_one_sentence(tmp_path, monkeypatch, error, early):
    """These are gloo's and torch's errors when a process is killed at different moments."""
    for name, value in (("LOCAL_RANK", "0"), ("RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)

    def connect(backend, timeout):
        if early:
            raise error
        original(backend, timeout=timeout, rank=0, world_size=1, init_method=f"file://{store}")

    original, store = torch.distributed.init_process_group, tmp_path / "store"
    monkeypatch.setattr(torch.distributed, "init_process_group", connect)
    with (
        pytest.raises(RunError, match=r"^another process of this run has ended.*same command"),
        distributed.process_group(torch.device("cpu")),
    ):
        raise error
    assert not torch.distributed.is_initialized()


def test_other_errors_stay_as_they_are():
    with (
        pytest.raises(RuntimeError, match="shapes"),
        distributed.process_group(torch.device("cpu")),
    ):
        raise RuntimeError("shapes do not fit")


def test_one_process_needs_no_communication():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.all_gather(5) == [5]
    assert distributed.rank_zero_first(lambda: 7) == 7
    model = nn.Linear(1, 1)
    assert distributed.wrap_ddp(model) is model
    assert np.array_equal(distributed.sum_over_processes(torch.ones(2)), [1, 1])
