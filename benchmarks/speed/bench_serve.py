"""serve.py under load on this machine's loopback address, against the bare encoder.

    python benchmarks/speed/bench_serve.py --checkpoint runs/demo --images data/scenes/images/val

Starts the server and measures it in one run: 16 clients send 2,000 requests of one picture each;
then come 500 damaged requests (pictures, forms and raw bytes with random changes); then the clients
ask again, and the server gets SIGTERM meanwhile. The encoder alone runs on ready batches, before
and after. All share the machine's cores, the clients too. A ratio of processor times says what a
request costs, whatever else runs on the machine.

Exit code 1 if a request failed or was lost, or a damaged one had a 5xx.
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
    memory: list[float]  # MB after EARLY requests, after half of them, after all


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, help="default: the latest run's")
    add("--images", type=Path, default=Path("data/scenes/images/val"), help="pictures to send")
    add("--requests", type=positive_int, default=2000)
    add("--clients", type=positive_int, default=16)
    add("--damaged", type=positive_int, default=500, help="damaged requests")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, print a Markdown table, check."""
    pictures = sorted(p for p in args.images.iterdir() if is_picture(p.name))[:PICTURES]
    if not pictures:
        raise UsageError(f"there are no pictures in {args.images}: name others with --images")
    checkpoint = find_checkpoint(args.checkpoint)
    model = load(checkpoint)
    log(describe_machine(model.model.mean.device))
    forms = [make_form(path.name, path.read_bytes()) for path in pictures]
    before = time_encoder(model, pictures)
    with serving(checkpoint) as (server, port):
        log("the server is up; sending requests")
        found = under_load(server.pid, port, forms, args.requests, args.clients)
        after = time_encoder(model, pictures)
        log(f"{say(found.counts)}; sending damaged requests")
        requests = damaged_requests(pictures, model.labels, args.damaged)
        statuses = send_damaged(port, requests, args.clients)
        memory = resident_mb(server.pid)
        log("sending requests until SIGTERM")
        ending, said = stop_under_load(server, port, forms, args.clients)
    rate = (before.rate + after.rate) / 2
    cpu = (before.cpu + after.cpu) / 2
    p50, p99 = np.percentile(found.counts.seconds, [50, 99])
    rows = {
        f"{args.requests:,} requests of {args.clients} clients": say(found.counts),
        "requests/s, encoder's images/s": f"{found.rate:.1f}, {rate:.1f}",
        "ratio of these": f"{found.rate / rate:.2f}",
        "processor time of a request, of an image in the encoder": (
            f"{1000 * found.cpu:.1f} ms, {1000 * cpu:.1f} ms"
        ),
        "ratio of these, encoder : request": f"{cpu / found.cpu:.2f}",
        "p50, p99": f"{1000 * p50:,.0f} ms, {1000 * p99:,.0f} ms",
        f"memory after {EARLY} requests, half of them, all": ", ".join(
            f"{megabytes:,.0f} MB" for megabytes in found.memory
        ),
        f"{args.damaged:,} damaged requests": ", ".join(
            f"{number} {status or 'without an answer'}" for status, number in statuses.items()
        ),
        "memory after them": f"{memory:,.0f} MB",
        "SIGTERM under load": f"{say(ending)}; the server: {said}",
    }
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    check(found.counts, ending, statuses, said)


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
    used, started = cpu_seconds(pid), time.perf_counter()
    running, memory = Clients(port, forms, clients, number), []
    for answers in (EARLY, number // 2):
        running.wait_for(answers)
        memory.append(resident_mb(pid))
    counts = running.join()
    passed, used = time.perf_counter() - started, cpu_seconds(pid) - used
    return Load(counts, number / passed, used / number, [*memory, resident_mb(pid)])


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


def check(load: Counts, ending: Counts, damaged: Counter, said: str) -> None:
    """Raise RunError for anything that must not happen."""
    if {*load.statuses, *ending.statuses} != {200} or load.lost or ending.lost:
        raise RunError(f"requests failed: {say(load)}; {say(ending)} {load.lost + ending.lost}")
    if wrong := [status for status in damaged if status and status >= 500]:
        raise RunError(f"damaged requests had the statuses {wrong}")
    accepted, answered = re.findall(r"[0-9][0-9,]*", said)
    if accepted != answered:
        raise RunError(f"the server says: {said}")


if __name__ == "__main__":
    run_script(main, get_args_parser())
