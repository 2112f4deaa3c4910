"""serve.py as a process: stopped under load, used in a browser, started with wrong flags."""

import contextlib
import http.client
import importlib.util
import os
import re
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import REPO, call, refusal
from processes import start
from test_imports import imported_files

import serve

for package in serve.PACKAGES:
    pytest.importorskip(package, reason="it is a part of the server")
CLIENTS = 6
HEAD = '--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@contextlib.contextmanager
def serving(folder, *flags):
    """A running serve.py: its port and process; then its exit code and what it has printed."""
    started = start("serve.py", "--port", 0, "--device", "cpu", *flags, cwd=folder)
    (pid,), (out, err) = started.pids, started.files
    server = SimpleNamespace(pid=pid)
    try:
        while not out.read_text().endswith("\n"):
            assert started.is_running(), err.read_text()
            time.sleep(0.05)
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", out.read_text())
        server.port = int(found[1])
        yield server
        server.ended = started.wait()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def form_of(path) -> bytes:
    return HEAD.encode() + path.read_bytes() + b"\r\n--b--\r\n"


def ask_until_it_ends(port, form, statuses, lost):
    """Requests one after the other on one connection, until no new connection is accepted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while True:
        try:
            connection.connect() if connection.sock is None else None
        except ConnectionRefusedError:
            return
        try:
            connection.request("POST", "/predict", form, FORM)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        except (OSError, http.client.HTTPException) as error:
            lost.append(repr(error))
            return


def test_sigterm_loses_no_accepted_request(trained, tmp_path):
    """Neither of clients that ask without a pause, nor one that has arrived in half only."""
    form, statuses, lost = form_of(trained.images / "img_02.jpg"), [], []
    with serving(tmp_path, "--checkpoint", trained.output) as server:
        arguments = (server.port, form, statuses, lost)
        clients = [
            threading.Thread(target=ask_until_it_ends, args=arguments) for _ in range(CLIENTS)
        ]
        half = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        head = "".join(f"{k}: {v}\r\n" for k, v in {"Host": "localhost", **FORM}.items())
        first = f"POST /predict HTTP/1.1\r\n{head}Content-Length: {len(form)}\r\n\r\n".encode()
        half.sendall(first + form[:100])
        for client in clients:
            client.start()
        while len(statuses) < 3 * CLIENTS and not lost:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGTERM)
        for client in clients:
            client.join()
        half.sendall(form[100:])
        response = http.client.HTTPResponse(half)
        response.begin()
        assert (response.status, response.headers["connection"]) == (200, "close")
        response.read()
    half.close()
    assert lost == []
    assert {*statuses} == {200}
    assert server.ended.returncode == 0
    number = f"{len(statuses) + 1:,}"
    assert f"{number} requests were accepted, {number} answered" in server.ended.stderr


def test_the_page(trained, tmp_path, browser):
    """A photo is chosen, a label is clicked; on a phone nothing is wider than the window."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, logged = context.new_page(), []
    page.on("console", lambda message: logged.append(message.text))
    page.on("request", lambda sent: logged.append(sent.url) if "127.0.0.1" not in sent.url else 0)
    page.set_default_timeout(60_000)
    hostile = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    hostile.write_bytes((trained.images / "img_02.jpg").read_bytes())
    (tmp_path / "text.jpg").write_text("no picture")
    with serving(tmp_path, "--checkpoint", trained.output) as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.set_input_files("#file", hostile)
        page.locator(".chip").nth(4).wait_for()
        page.locator("#photo").wait_for()
        page.evaluate("document.getElementById('photo').decode()")  # fails if it cannot be shown
        label = page.locator(".chip span").nth(2).inner_text()
        for shown in ("is there", "is not there"):
            page.locator(".chip", has=page.get_by_text(label, exact=True)).click()
            page.locator(".chip small").first.get_by_text(shown, exact=True).wait_for()
            assert page.locator(".chip span").first.inner_text() == label
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert [text for text in logged if not text.startswith("data:")] == []
        page.set_input_files("#file", tmp_path / "text.jpg")
        page.locator("#said.wrong").get_by_text("text.jpg cannot be read as an image").wait_for()
        os.kill(server.pid, signal.SIGINT)
    context.close()
    assert server.ended.returncode == 0


def test_wrong_flags(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    assert "--port 70000 is above" in refusal(serve, "--port", 70000)
    assert "192.0.2.1" in refusal(serve, "--port", 0, "--host", "192.0.2.1")
    assert "no trained model found" in refusal(serve, "--port", 0)
    with pytest.raises(SystemExit):
        call(serve, "--queue", 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs the packages fastapi, uvicorn, python_multipart" in refusal(serve, "--port", 0)


def test_the_docker_image_has_all_that_serve_imports():
    kept = (REPO / ".dockerignore").read_text().splitlines()
    needed, found = {"serve.py"}, set()
    while new := needed - found:
        found |= new
        needed = set().union(*(imported_files(REPO, name) for name in new))
    assert len(found) > 30
    assert {f"!{name.split('/')[0]}" for name in found} == {
        line for line in kept if line.startswith("!") and not line.startswith("!requirements")
    }
