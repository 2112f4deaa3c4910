"""Only pages of this very server may ask it: no other site, and no name that leads here.

A page of any site can send requests to 127.0.0.1, and by DNS rebinding under its own name. A
browser says truthfully under which name it asks (Host) and for which page (Origin).
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1 << 18  # of a request
ANSWER_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def refuse(method: str, headers: Headers, port: int) -> str:
    """Why a request is refused; empty if it is not."""
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    if headers.getlist("host") not in [[host] for host in hosts]:
        return f"open http://{hosts[0]}/ instead"
    origin = headers.get("origin")
    if origin is None and method not in ("GET", "HEAD"):
        return "the request does not say which page sent it"
    if origin is not None and origin not in [f"http://{host}" for host in hosts]:
        return "another site sent this request"
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return f"another site sent this request: type the address http://{hosts[0]}/ instead"
    if method == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
        return "JSON is needed"
    return ""


class Guard:
    """Refuses foreign requests before the app sees them; adds ANSWER_HEADERS.

    reason_against: method and headers -> why such a request is refused; empty if it is not.
    """

    def __init__(self, app: ASGIApp, reason_against: Callable[[str, Headers], str]) -> None:
        self.app, self.reason_against = app, reason_against

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a web socket: nothing here uses them
            return
        reason = self.reason_against(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(reason, 403) if reason else self.app

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in ANSWER_HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await app(scope, receive, with_headers)


class BodyLimit:
    """Reading more than MOST_BYTES of a request raises ValueError."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise ValueError("the request is too large")
            return message

        left = MOST_BYTES
        await self.app(scope, limited, send)
