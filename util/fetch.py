"""Fetch files from the internet, or give up within seconds."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

TIMEOUT = 10.0  # seconds to wait for an answer


@contextlib.contextmanager
def short_waits() -> Iterator[None]:
    """Connections made within this context wait TIMEOUT seconds at most for each answer.

    The hub of Hugging Face is asked only if it can be reached, since its own retries take a minute
    without internet. Files in its cache are found in any case.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with _hub_offline():
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _hub_offline() -> Iterator[None]:
    """Switch the hub's offline mode on if there is no way to it."""
    try:
        from huggingface_hub import constants
    except ImportError:  # comes with timm, which is optional
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not can_reach(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def can_reach(url: str) -> bool:
    """Whether a server answers there; with a proxy, which may know the way, always True."""
    if getproxies():
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or 443), TIMEOUT).close()
    except OSError:
        return False
    return True
