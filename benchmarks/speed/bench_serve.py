"""serve.py under load on this machine's loopback address, against the bare encoder.

    python benchmarks/speed/bench_serve.py --checkpoint runs/demo --images data/scenes/images/val
    python benchmarks/speed/bench_serve.py --checkpoint runs/demo runs/photos --images photos

Starts the server and measures it in one run: 16 clients send 2,000 requests of one picture each;
then come 500 damaged requests (pictures, forms and raw bytes with random changes); then the clients
ask again, and the server gets SIGTERM meanwhile. The reference is the bare encoder on ready batches
of 32, with all cores to itself, before and after. The server shares the cores with its clients. A
ratio of processor times says what a request costs, whatever else runs on the machine.

Each checkpoint is a column: the lighter its encoder, the more weighs what all requests need, such
as HTTP, JPEG and label sets. Exit code 1 if a request failed or was lost, or a damaged one had a
5xx.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "benchmarks/robustness")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from clients import (  # noqa: E402
    HEADERS,
    Clients,
    Counts,
    cpu_seconds,
    make_form,
    resident_mb,
    send_damaged,
)
from mutated_inputs import mutate_bytes  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from inference.checkpoint import find_checkpoint  # noqa: E402
from inference.predictor import Predictor, load  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402
from util.errors import RunError, UsageError  # noqa: E402
from util.files import is_picture  # noqa: E402
from util.log import log  # noqa: E402

BATCH, ROUNDS = 32, 5
EARLY = 200  # requests before the first look at the memory
LOOKS = (0.25, 0.5, 0.75)  # of the requests: more looks at the memory
DAMAGED_CLIENTS = 64  # the server waits 30 seconds for the rest of a damaged request
PICTURES = 200  # different ones


@dataclass(frozen=True)
class Encoder:
    """The bare encoder on ready batches."""

    rate: float  # images/s
    cpu: float  # seconds of processor time for an image


@dataclass(frozen=True)
class Load:
    """The server under load."""

    counts: Counts
    rate: float  # requests/s
    cpu: float  # seconds of processor time for a request
    client_cpu: float  # seconds that its client needs
    memory: dict[int, float]  # MB after so many requests


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, nargs="+", default=[None], help="default: the latest run's")
    add("--images", type=Path, default=Path("data/scenes/images/val"), help="pictures to send")
    add("--requests", type=positive_int, default=2000)
    add("--clients", type=positive_int, default=16)
    add("--damaged", type=positive_int, default=500, help="damaged requests")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, print a Markdown table, check."""
    pictures = sorted(p for p in args.images.rglob("*") if is_picture(p.name))[:PICTURES]
    if not pictures:
        raise UsageError(f"there are no pictures in {args.images}: name others with --images")
    columns, wrong = [], []
    for checkpoint in map(find_checkpoint, args.checkpoint):
        rows, failures = measure(checkpoint, pictures, args.requests, args.clients, args.damaged)
        columns.append(rows)
        wrong += [f"{checkpoint}: {failure}" for failure in failures]
    for name in columns[0]:
        print("|", " | ".join([name, *(rows[name] for rows in columns)]), "|")
    if wrong:
        raise RunError("; ".join(wrong))


def measure(
    checkpoint: Path, pictures: list[Path], number: int, clients: int, damaged: int
) -> tuple[dict[str, str], list[str]]:
    """A column of the table, and what must not happen but did."""
    model = load(checkpoint)
    log(describe_machine(model.model.mean.device))
    forms = [make_form(path.name, path.read_bytes()) for path in pictures]
    before = time_encoder(model, pictures)
    with serving(checkpoint) as (server, port):
        log("the server is up; sending requests")
        found = under_load(server.pid, port, forms, number, clients)
        after = time_encoder(model, pictures)
        log(f"{say(found.counts)}; sending damaged requests")
        requests = damaged_requests(pictures, model.labels, damaged)
        statuses = send_damaged(port, requests, DAMAGED_CLIENTS)
        memory = resident_mb(server.pid)
        log("sending requests until SIGTERM")
        ending, said = stop_under_load(server, port, forms, clients)
    rate = (before.rate + after.rate) / 2
    cpu = (before.cpu + after.cpu) / 2
    p50, p99 = np.percentile(found.counts.seconds, [50, 99])
    arch, side = model.flags["arch"], model.transform.side
    milliseconds = [f"{1000 * each:.1f}" for each in (found.cpu, found.client_cpu, cpu)]
    rows = {
        "network": f"{arch}, {side} pixels, {len(model.labels)} labels",
        f"{number:,} requests of {clients} clients": say(found.counts),
        "requests/s, encoder's images/s": f"{found.rate:.1f}, {rate:.1f}",
        "ratio of these": f"{found.rate / rate:.2f}",
        "ms of processor time: a request, its client, an image in the encoder": (
            ", ".join(milliseconds)
        ),
        "encoder : request, of these": f"{cpu / found.cpu:.2f}",
        "p50, p99": f"{1000 * p50:,.0f} ms, {1000 * p99:,.0f} ms",
        "MB of memory after " + ", ".join(f"{n:,}" for n in found.memory) + " requests": (
            ", ".join(f"{megabytes:,.0f}" for megabytes in found.memory.values())
        ),
        f"{damaged:,} damaged requests": ", ".join(
            f"{number} {status or 'without an answer'}" for status, number in statuses.items()
        ),
        "MB of memory after them": f"{memory:,.0f}",
        "SIGTERM under load": f"{say(ending)}; the server: {said}",
    }
    return rows, failures_of(found.counts, ending, statuses, said)


def say(counts: Counts) -> str:
    """Statuses and losses in words."""
    statuses = [f"{number:,} × {status}" for status, number in counts.statuses.items()]
    return ", ".join([*statuses, f"{counts.lost.total()} lost"])


def time_encoder(model: Predictor, pictures: list[Path]) -> Encoder:
    """The median of ROUNDS rounds of a few batches, after a first one."""
    files = itertools.islice(itertools.cycle(pictures), BATCH)
    batch = torch.stack([model.transform.from_file(path) for path in files])
    wall, cpu = [], []
    for _ in range(ROUNDS + 1):
        started, used = time.perf_counter(), time.process_time()
        model.encode_batch(batch).cnn_logits.cpu()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return Encoder(BATCH / statistics.median(wall[1:]), statistics.median(cpu[1:]) / BATCH)


@contextlib.contextmanager
def serving(checkpoint: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """A running server and its port."""
    command = [sys.executable, REPO / "serve.py", "--checkpoint", checkpoint, "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), **pipes) as server:
        try:
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", server.stdout.readline())
            if not found:
                raise RunError(f"the server does not start: {server.stderr.read()}")
            yield server, int(found[1])
        finally:
            server.kill()


def under_load(pid: int, port: int, forms: list[bytes], number: int, clients: int) -> Load:
    """Send the requests, and watch the server."""
    used, ours, started = cpu_seconds(pid), time.process_time(), time.perf_counter()
    running, memory = Clients(port, forms, clients, number), {}
    for answers in sorted({EARLY, *(int(number * part) for part in LOOKS)}):
        running.wait_for(answers)
        memory[answers] = resident_mb(pid)
    counts = running.join()
    passed, used = time.perf_counter() - started, cpu_seconds(pid) - used
    ours = time.process_time() - ours
    memory[number] = resident_mb(pid)
    return Load(counts, number / passed, used / number, ours / number, memory)


def damaged_requests(pictures: list[Path], labels: tuple[str, ...], number: int) -> list[bytes]:
    """Raw requests: the picture, the form or all bytes have random changes, in turn."""
    requests = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        kind = seed % 3
        picture = pictures[seed % len(pictures)].read_bytes()
        picture = mutate_bytes(picture, rng) if kind == 0 else picture
        label = {("known", "absent")[seed % 2]: labels[seed % len(labels)]}
        form = make_form("a.jpg", picture, **label)
        form = mutate_bytes(form, rng) if kind == 1 else form
        lines = {"Host": "localhost", **HEADERS, "Content-Length": len(form)}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"POST /predict HTTP/1.1\r\n{head}\r\n".encode()
        requests.append((mutate_bytes(head, rng) if kind == 2 else head) + form)
    return requests


def stop_under_load(
    server: subprocess.Popen, port: int, forms: list[bytes], clients: int
) -> tuple[Counts, str]:
    """SIGTERM while all clients ask; what they got, and the last line that the server printed."""
    running = Clients(port, forms, clients, sys.maxsize)
    running.wait_for(10 * clients)
    server.send_signal(signal.SIGTERM)
    counts = running.join()
    said = server.communicate(timeout=120)[1].splitlines()[-1]
    if server.returncode:
        raise RunError(f"the server ended with {server.returncode}: {said}")
    return counts, said


def failures_of(load: Counts, ending: Counts, damaged: Counter, said: str) -> list[str]:
    """What must not happen but did: sentences."""
    failures = []
    if {*load.statuses, *ending.statuses} != {200} or load.lost or ending.lost:
        failures.append(f"requests failed: {say(load)}; {say(ending)} {load.lost + ending.lost}")
    if wrong := sorted(status for status in damaged if status and status >= 500):
        failures.append(f"damaged requests had the statuses {wrong}")
    accepted, answered = re.findall(r"[0-9][0-9,]*", said)
    if accepted != answered:
        failures.append(f"the server says: {said}")
    return failures


if __name__ == "__main__":
    run_script(main, get_args_parser())
