"""What is let in: how many requests at once, how large, how slow, and under which name.

A request that is refused is read to its end first, if it is not far too large: a connection that is
closed while the client still sends loses the answer, too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")
RETRY = {"retry-after": "1"}  # second
CLOSING = ("connection", "close")
CLOSE = (b"connection", b"close")
THROWN_AWAY = 1 << 27  # bytes of a refused request that are read, at most


def refuse(method: str, headers: Headers, names: Collection[str]) -> str:
    """Why a request is refused; empty if it is not.

    By DNS rebinding a page of another site can ask this server under a name of its own, so a name
    must be localhost or one of `names`. An IP address is no such name. A browser also says which
    page sends a request; other programs do not, and are let in.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_ours(hosts[0], names):
        return (
            "this server is not asked under this name: use its IP address, or start it with "
            "--server_name NAME"
        )
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
        return "another site sent this request"
    from_page = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
    if method not in ("GET", "HEAD") and not from_page:
        return "another site sent this request"
    return ""


def _is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header has an IP address or one of our names, and any port."""
    found = HOST.fullmatch(host)
    if not found:
        return False
    try:
        ipaddress.ip_address(found[1].strip("[]"))
    except ValueError:
        return found[1].lower() in {"localhost", *(name.lower() for name in names)}
    return True


@dataclass(frozen=True)
class Limits:
    """What is let in."""

    pictures: int  # of all requests that are not answered yet
    request_bytes: int
    body_seconds: float = 30.0  # from the first byte of a request until all of it is here


@dataclass
class Places:
    """Places for pictures: a request has one when it arrives, and one for each picture later."""

    limit: int
    taken: int = 0
    accepted: int = 0  # requests so far
    answered: int = 0
    closing: bool = False  # the server ends soon: each answer ends its connection


class Place:
    """The places of one request."""

    def __init__(self, places: Places) -> None:
        """Raises HTTPException if all are taken."""
        self._places, self._number = places, 0
        self.widen(1)
        places.accepted += 1

    def widen(self, number: int) -> None:
        """Have this many places instead. Raises HTTPException if there are not enough."""
        if number > self._places.limit:
            raise HTTPException(413, f"send at most {self._places.limit} pictures in a request")
        if self._places.taken + number - self._number > self._places.limit:
            raise HTTPException(503, "too many pictures wait; try again", RETRY)
        self._places.taken += number - self._number
        self._number = number

    def leave(self) -> None:
        """The request is answered."""
        self._places.taken -= self._number
        self._number = 0


class Gate:
    """Gives each request to POST `path` a Place, in scope["place"], and a body with limits.

    Reading the body raises HTTPException: 413 if it is too large, 408 if it comes too slowly, and
    503 if there is no place.
    """

    def __init__(self, app: ASGIApp, path: str, limits: Limits, places: Places) -> None:
        self.app, self.path, self.limits, self.places = app, path, limits, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def ending(message: Message) -> None:
            if message["type"] == "http.response.start" and self.places.closing:
                message["headers"] = [*message["headers"], CLOSE]
            await send(message)

        if (scope["method"], scope["path"]) != ("POST", self.path):
            await self.app(scope, receive, ending)
            return
        body = _Body(receive, Headers(scope=scope), self.limits)
        try:
            place = scope["place"] = Place(self.places)
        except HTTPException as error:
            body.refusal = error
            await self.app(scope, body.receive, ending)
            return
        try:
            await self.app(scope, body.receive, ending)
            self.places.answered += 1
        finally:
            place.leave()


class _Body:
    """`receive` for an app, with limits. Raises HTTPException."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._until = time.monotonic() + limits.body_seconds
        self._size, self._is_whole = 0, False
        length = headers.get("content-length", "")
        is_long = length.isdecimal() and int(length[:20]) > limits.request_bytes
        self.refusal = self._too_large() if is_long else None

    def _too_large(self) -> HTTPException:
        most = self._limits.request_bytes / 1e6
        return HTTPException(413, f"a request has at most {most:g} MB", dict([CLOSING]))

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        message = None if self.refusal else await self._next()
        if self._size > self._limits.request_bytes:
            self.refusal = self.refusal or self._too_large()
        if not self.refusal:
            return message
        while not self._is_whole and self._size < THROWN_AWAY:
            await self._next()
        raise self.refusal

    async def _next(self) -> Message:
        try:
            left = max(self._until - time.monotonic(), 0)
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the request came too slowly", dict([CLOSING])) from None
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message
