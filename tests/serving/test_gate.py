"""Who is let in, and how much: names, places, sizes, slow requests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="Starlette is part of the server")
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from serving import gate
from serving.gate import Gate, Limits, Place, Places, refuse


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *((host, True) for host in ("127.0.0.1:8000", "127.0.0.1", "[::1]:80", "localhost:9")),
        *((host, True) for host in ("10.0.0.7:8000", "LOCALHOST", "photos.example:1")),
        *((host, False) for host in ("evil.example", "127.0.0.1.evil.example", "127.1", "")),
        *((host, False) for host in ("localhost.evil.example", "localhost:8000:1", "2130706433")),
        *((host, False) for host in ("127.0.0.1@evil.example", "[localhost]", "localhost:x")),
    ],
)
def test_names(host, is_ours):
    assert bool(refuse("GET", Headers({"host": host}), ["Photos.example"])) != is_ours


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "https://localhost:8000"}, False),
        ({"origin": "http://localhost:9000"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
    ],
)
def test_pages_of_other_sites(headers, is_refused):
    given = Headers({"host": "localhost:8000", **headers})
    assert bool(refuse("POST", given, [])) == is_refused
    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"localhost")])
    assert refuse("POST", twice, [])


def test_places():
    """A request has one place, later one for each picture; afterwards all are free."""
    places = Places(limit=4)
    first, second = Place(places), Place(places)
    first.widen(3)
    assert places.taken == 4
    for refused in (lambda: Place(places), lambda: second.widen(2)):
        with pytest.raises(HTTPException) as error:
            refused()
        assert (error.value.status_code, error.value.headers) == (503, {"retry-after": "1"})
    with pytest.raises(HTTPException) as error:
        second.widen(5)
    assert error.value.status_code == 413
    assert places.taken == 4, "a refusal takes nothing"
    first.leave()
    second.widen(4)
    second.leave()
    assert (places.taken, places.accepted) == (0, 2)


def run_loop(coroutine):
    """Run it in a thread of its own: in this one, tests with a browser leave an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def ask(chunks, headers=(), places=None, limits=None, path="/predict"):
    """What an app behind the gate reads: all bytes, or the status of the error; what is unread."""
    places, limits = places or Places(9), limits or Limits(9, 10, 0.05)
    chunks = list(chunks)

    async def receive():
        if not chunks:
            await asyncio.sleep(9)
        body = chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": body != b""}

    async def app(scope, receive, send):
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        await send({"type": "http.response.start", "headers": [], "body": body})

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    try:
        run_loop(Gate(app, "/predict", limits, places)(scope, receive, send))
    except HTTPException as error:
        return error.status_code, chunks
    return sent[0]["body"], chunks


def test_the_size_of_a_request(monkeypatch):
    assert ask([b"12345", b"67890", b""]) == (b"1234567890", [])
    assert ask([b"12345", b"678901", b"2", b""]) == (413, []), "read to its end, not kept"
    assert ask([b"1", b""], [(b"content-length", b"11")]) == (413, [])
    assert ask([b"1", b""], [(b"content-length", b"9" * 5000)]) == (413, [])
    assert ask([b"1", b""], [(b"content-length", b"x")]) == (b"1", [])
    monkeypatch.setattr(gate, "THROWN_AWAY", 20)
    far_too_large = ask([b"1" * 20, b"2", b""])
    assert far_too_large == (413, [b"2", b""]), "nobody reads on for ever"
    assert ask([b"1" * 20, b""], path="/other")[0] == b"1" * 20, "only /predict is limited"


def test_a_slow_request_loses_its_place():
    places = Places(1)
    assert ask([b"12345"], places=places) == (408, [])
    assert (places.taken, places.accepted, places.answered) == (0, 1, 0)
    assert ask([b"1" * 11], places=places) == (408, []), "too large, too"


def test_without_a_place_a_request_is_read_and_refused():
    places = Places(1)
    place = Place(places)
    assert ask([b"1", b"2", b""], places=places) == (503, [])
    assert places.accepted == 1
    place.leave()
    assert ask([b"1", b"2", b""], places=places) == (b"12", [])
    assert (places.accepted, places.answered, places.taken) == (2, 1, 0)


def test_a_closing_server_ends_connections():
    places, sent = Places(1), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "headers": [(b"a", b"b")]})

    async def send(message):
        sent.append(message["headers"])

    ours = Gate(app, "/predict", Limits(1, 1), places)
    for path in ("/predict", "/labels"):
        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        places.closing = False
        run_loop(ours(scope, None, send))
        places.closing = True
        run_loop(ours(scope, None, send))
    assert sent == 2 * [[(b"a", b"b")], [(b"a", b"b"), (b"connection", b"close")]]
