"""The server of the page, on this machine alone, until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from annotation.app import Site, make_app
from annotation.order import Queue
from annotation.store import Store
from util.errors import UsageError

if TYPE_CHECKING:  # torch takes seconds to import, and is not needed without a network
    from annotation.scorer import Scorer

HOST = "127.0.0.1"


def listen(port: int, host: str = HOST) -> socket.socket:
    """A socket, by default one that only this machine can reach; port 0 is any free one.

    Raises UsageError.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OverflowError:
        raise UsageError(f"--port {port} is above 65535") from None
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used on {host} ({error.strerror}): choose another with --port, "
            "or --port 0 for any free one"
        ) from None
    return listener


def serve(
    listener: socket.socket,
    names: Sequence[str],
    paths: Sequence[Path],
    store: Store,
    queue: Queue,
    scorer: Scorer | None,
    label_list: Sequence[str],
) -> None:
    """Print the address, and serve the page until Ctrl-C or SIGTERM. Raises KeyboardInterrupt."""
    port = listener.getsockname()[1]
    app = make_app(Site(names, paths, store, queue, scorer, label_list), port)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="none", lifespan="off", server_header=False
    )
    config.timeout_graceful_shutdown = 2  # seconds: a browser may keep its connection open
    queue.start()
    print(f"http://{HOST}:{port}/", flush=True)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        queue.stop()
