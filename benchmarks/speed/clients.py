"""Clients of serve.py: threads that ask, and count what they get."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BOUNDARY = "boundary-of-the-parts"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
PATIENCE = 300.0  # seconds until an answer; to an incomplete request the server answers after 30


def make_form(name: str, picture: bytes, **labels: str) -> bytes:
    """The body of a request with a picture and labels."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'
    texts = "".join(f'{part}{kind}"\r\n\r\n{label}\r\n' for kind, label in labels.items())
    head = f'{texts}{part}images"; filename="{name}"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass
class Counts:
    """What all clients got. lost: why requests that were sent have no answer."""

    seconds: list[float] = field(default_factory=list)  # of each answered request
    statuses: Counter = field(default_factory=Counter)
    lost: Counter = field(default_factory=Counter)


class Clients:
    """Threads that send requests, each one after the other, until they have sent `number`."""

    def __init__(self, port: int, forms: Sequence[bytes], clients: int, number: int) -> None:
        self.port, self.forms, self.number = port, forms, number
        self.counts, self._next, self._lock = Counts(), 0, threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def join(self) -> Counts:
        """Wait for all clients to end."""
        for thread in self._threads:
            thread.join()
        return self.counts

    def wait_for(self, answers: int) -> None:
        """Wait until so many requests are answered, or all clients have ended."""
        while len(self.counts.seconds) < answers and any(t.is_alive() for t in self._threads):
            time.sleep(0.02)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while (number := self._take()) < self.number:
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                return  # the server accepts nothing any more
            started = time.perf_counter()
            try:
                form = self.forms[number % len(self.forms)]
                connection.request("POST", "/predict", form, HEADERS)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.counts.lost[repr(error)] += 1
                continue
            self.counts.seconds.append(time.perf_counter() - started)
            self.counts.statuses[response.status] += 1
        connection.close()

    def _take(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1


def send_damaged(port: int, requests: Sequence[bytes], clients: int) -> Counter:
    """Send raw bytes, each on a new connection; returns statuses, None where there is no answer."""
    statuses: Counter = Counter()

    def send(part: Sequence[bytes]) -> None:
        for request in part:
            statuses[status_of(port, request)] += 1

    parts = [requests[first::clients] for first in range(clients)]
    threads = [threading.Thread(target=send, args=[part]) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def status_of(port: int, request: bytes) -> int | None:
    """The status of the answer to raw bytes."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status
    except (OSError, http.client.HTTPException):
        return None


def resident_mb(pid: int) -> float:
    """The memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
