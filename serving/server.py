"""The server of serve.py, until SIGTERM or Ctrl-C: requests that it has accepted are answered."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Collection
from types import FrameType

import uvicorn

from inference.predictor import Predictor
from serving.app import make_app
from serving.batcher import Batcher
from serving.gate import Limits, Places
from serving.uploads import Decoders
from util.log import counted, log

LINGER = 1.0  # seconds after a signal in which new connections are accepted
SETTLE = 0.5  # seconds for requests on connections that were accepted last


class Server(uvicorn.Server):
    """Ends in steps, so that no client loses a request.

    At a signal: each answer says that its connection ends, so clients stop sending on it. After
    LINGER no new connection is accepted. After SETTLE uvicorn closes the idle connections, and
    waits for the requests that are not answered yet. A second Ctrl-C waits for nothing.
    """

    def __init__(self, config: uvicorn.Config, places: Places) -> None:
        super().__init__(config)
        self.places, self.signalled_at = places, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at a signal."""
        if not self.places.closing:
            self.places.closing, self.signalled_at = True, time.monotonic()
        elif sig == signal.SIGINT:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called every 0.1 seconds; True ends the server."""
        if self.places.closing:
            passed = time.monotonic() - self.signalled_at
            if passed > LINGER:
                for server in self.servers:
                    server.close()
            self.should_exit |= passed > LINGER + SETTLE
        return await super().on_tick(counter)


def serve(
    listener: socket.socket,
    predictor: Predictor,
    batch_size: int,
    limits: Limits,
    decide: str,
    num_samples: int,
    names: Collection[str] = (),
) -> None:
    """Print the address, and answer until SIGTERM or Ctrl-C. batch_size: pictures, at most.

    decide, num_samples: see `Predictor.describe_batch`. names: see `make_app`. Raises UsageError
    for a promise that cannot be kept.
    """
    places = Places(limits.pictures)
    batcher = Batcher(predictor, batch_size, decide, num_samples, lambda: places.taken)
    decoders = None
    try:
        decoders = Decoders(predictor.transform)
        app = make_app(batcher, decoders, limits, places, names)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, ws="none", lifespan="off", server_header=False
        )
        host, port = listener.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}/", flush=True)
        Server(config, places).run(sockets=[listener])
    finally:
        if decoders:
            decoders.stop()
        batcher.stop()
    accepted = counted(places.accepted, "request was", "requests were")
    log(f"stopped; {accepted} accepted, {places.answered:,} answered")
