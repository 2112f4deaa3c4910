"""annotate.py as a user runs it: in a real browser, killed and continued, with wrong input."""

import contextlib
import http.client
import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from conftest import LABEL_SETS, REPO, call, refusal, write_picture, write_table

import annotate
import train
from annotation.store import read_answers
from labels.read import read_labels
from labels.search import find_labels

pytest.importorskip("starlette", reason="Starlette serves the page")
pytest.importorskip("uvicorn", reason="uvicorn serves the page")
HOSTILE = "<img src=x onerror=alert(1)>&\"' .jpg"
AT_ONCE = "for (const key of '12') document.dispatchEvent(new KeyboardEvent('keydown', {key}))"
LINE = "photos are confirmed in"


@contextlib.contextmanager
def serving(folder, *flags, stop=signal.SIGINT):
    """The address of a running annotate.py, and its process; it gets `stop` at the end."""
    command = [sys.executable, REPO / "annotate.py", *map(str, flags), "--port", "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), process.stderr.read()
            yield address, process
        finally:
            if process.poll() is None:
                process.send_signal(stop)


def post(address: str, path: str, **body) -> dict:
    headers = {"Content-Type": "application/json", "Origin": address.rstrip("/")}
    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def write_photos(folder, number: int = 20):
    """Twenty small photos, the first names hostile."""
    names = [HOSTILE, "=cmd.jpg", "sub/é  b.jpg", *(f"{i:02d}.jpg" for i in range(number - 3))]
    for i, name in enumerate(names):
        write_picture(folder / "photos" / name, LABEL_SETS[i % len(LABEL_SETS)], seed=i)
    return sorted(names)


@pytest.fixture
def page(browser):
    """A page in a new window, and what it logged: nothing, at the end."""
    context, logged = browser.new_context(viewport={"width": 1280, "height": 800}), []
    page = context.new_page()
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("dialog", lambda dialog: logged.append(dialog.message))
    page.on("request", lambda sent: logged.append(sent.url) if "127.0.0.1" not in sent.url else 0)
    page.set_default_timeout(30_000)
    yield page
    assert [text for text in logged if not text.startswith("data:")] == []
    context.close()


def is_shown(page, name: str) -> None:
    """Wait until the page shows this photo."""
    page.locator("#name").get_by_text(name, exact=True).wait_for()
    page.wait_for_selector("#frame[data-shown]")


def test_twenty_photos_by_keyboard_killed_and_continued(tmp_path, page):
    """New labels are typed; numbers switch them; kill -9 in mid-work loses nothing."""
    names = write_photos(tmp_path)
    output = tmp_path / "photos/labels.annotated.csv"
    labels = ["<b>bold</b>", "7", "hot dog", "a|b"]
    with serving(tmp_path, "photos", stop=signal.SIGKILL) as (address, _):
        page.goto(address)
        is_shown(page, names[0])
        for label in labels:
            page.keyboard.type(f" {label}" if label == "7" else label)
            page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        for name in names[1:9]:
            is_shown(page, name)
            page.keyboard.press("1")
            page.locator("#yours .chip").wait_for()
            page.keyboard.press("Enter")
        is_shown(page, names[9])
    assert {n: a.labels for n, a in read_answers(output).items()} == {
        names[0]: tuple(labels),
        **{name: ("7",) for name in names[1:9]},  # the most frequent; ties go by name
    }
    with serving(tmp_path, "photos") as (address, process):
        page.goto(address)
        is_shown(page, names[9])
        for name in names[9:]:
            is_shown(page, name)
            page.keyboard.type("hot")
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
        page.locator("#endtitle").get_by_text("Done").wait_for()
        page.keyboard.press("Backspace")
        is_shown(page, f"{names[-1]} ✓ confirmed")
        page.keyboard.press("Shift+U")
        is_shown(page, names[-1])
        page.keyboard.press("Shift+U")
        page.locator("#yours").wait_for(state="hidden")
        page.keyboard.press("Enter")
        page.locator("#endtitle").get_by_text("Done").wait_for()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"20 {LINE}" in said.splitlines()[-1]
    assert "train.py --image_path photos --annotations photos/labels.annotated.csv" in said
    images = read_labels(output, tmp_path / "photos")
    assert [*sorted(images.file_names)] == names
    assert dict(zip(images.file_names, images.label_sets, strict=True))[names[-1]] == ()
    assert set(images.categories) == {*labels}


def test_review_of_planted_errors(tmp_path, page):
    """The worst first; Enter keeps, 1 corrects; corrected ones do not come back."""
    for i in range(4):
        write_picture(tmp_path / "photos" / f"{i}.jpg", LABEL_SETS[i + 1], seed=i)
    rows = [(f"{i}.jpg", "|".join(LABEL_SETS[i + 1]), "train") for i in range(4)]
    write_table(tmp_path, ("file_name", "labels", "split"), rows)
    header = ("file_name", "label", "annotation", "probability", "marginal")
    issues = [("2.jpg", "person", "surplus", 0.01, 0.02), ("0.jpg", "cat", "missing", 0.2, 0.8)]
    write_table(tmp_path, header, [*issues, ("2.jpg", "dog", "missing", 0.4, 0.5)], "i.csv")
    flags = ("photos", "--annotations", "labels.csv", "--issues", "i.csv")
    with serving(tmp_path, *flags) as (address, _):
        page.goto(address)
        is_shown(page, "2.jpg")
        assert page.locator(".issue").count() == 2
        assert "The network gives this 1 %" in page.locator(".issue").first.inner_text()
        page.keyboard.press("1")
        page.locator(".issue").first.get_by_text("Correct: not there").wait_for()
        pressed = page.locator(".issue [aria-pressed=true]")
        assert [each.split(" ")[0].strip() for each in pressed.all_inner_texts()] == [
            *("Correct:", "Keep")
        ]
        page.keyboard.press("Enter")
        is_shown(page, "0.jpg")
        page.get_by_role("button", name="Keep").click()
        page.keyboard.press("Enter")
        page.locator("#endtitle").get_by_text("Done").wait_for()
    answers = read_answers(tmp_path / "photos/labels.annotated.csv")
    assert answers["2.jpg"].labels == ("cat",)
    assert set(answers["0.jpg"].labels) == {"person", "dog"}
    assert [name for name in sorted(answers) if answers[name].verified] == ["0.jpg", "2.jpg"]
    assert {answer.split for answer in answers.values()} == {"train"}


def test_a_phone_with_a_network(tmp_path, trained, browser):
    """390 pixels, dark, by touch: nothing is wider than the page; suggestions follow answers."""
    write_photos(tmp_path, 4)
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark"
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    best = ("--checkpoint", trained.output, "--label_list", "more.txt")
    (tmp_path / "more.txt").write_text("long label " * 8 + "\n<script>alert(1)</script>\n")
    with serving(tmp_path, "photos", *best) as (address, _):
        page.goto(address)
        page.wait_for_selector("#frame[data-shown]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        chips = page.locator("#chips .chip > span[dir]")
        first, second, third, *_ = chips.all_inner_texts()
        assert chips.count() == 7
        page.evaluate(AT_ONCE)  # so fast that 2 means its place before 1
        page.locator("#yours .chip").nth(1).wait_for()
        chips.filter(has_text=third).tap()
        page.locator("#yours .chip").nth(2).wait_for()
        yours = page.locator("#yours .chip > span[dir]").all_inner_texts()
        assert {*yours} == {first, second, third}
        page.get_by_role("button", name="Accept").tap()
        page.locator("#count").get_by_text("1 of 4 photos confirmed").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
    assert len(read_answers(tmp_path / "photos/labels.annotated.csv")) == 1


def test_an_unreadable_photo_is_skipped(tmp_path, browser):
    for name in ("b.jpg", "c.jpg"):
        write_picture(tmp_path / "photos" / name)
    (tmp_path / "photos/a.jpg").write_text("no photo")
    page = browser.new_page()
    with serving(tmp_path, "photos") as (address, _):
        page.goto(address)
        page.locator("#unreadable").get_by_text("a.jpg cannot be read as an image").wait_for()
        page.keyboard.press("Enter")
        for name in ("b.jpg", "c.jpg"):
            is_shown(page, name)
            page.keyboard.press("Enter")
        page.locator("#endtext").get_by_text("2 of 3 photos are confirmed").wait_for()
    page.close()


def test_kill_while_answering(tmp_path):
    """Every answer that the server confirmed is in the table."""
    names = write_photos(tmp_path, 4)
    output, confirmed = tmp_path / "out.csv", {}
    with serving(tmp_path, "photos", "--output", output) as (address, process):
        killer = threading.Timer(0.7, process.kill)
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for n in itertools.count():
                version = post(address, "open", window="w", photo=n % 4)["version"]
                answer = {"photo": n % 4, "version": version, "labels": [f"label {n}"]}
                post(address, "answer", window="w", **answer)
                confirmed[names[n % 4]] = n
        killer.join()
    found = {name: int(a.labels[0].split()[1]) for name, a in read_answers(output).items()}
    late = {name for name in found if found[name] != confirmed.get(name)}
    assert len(late) <= 1, "one answer may be on disk without having been confirmed"
    assert all(found[name] == max(confirmed.values()) + 1 for name in late)
    assert {*confirmed} <= {*found}


def test_the_output_trains(tmp_path, monkeypatch, capsys):
    """The command that is printed at the end; the column verified is no label."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, 6)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with serving(tmp_path, "photos", "--label_list", "labels.txt") as (address, process):
        for i in range(6):
            version = post(address, "open", window="w", photo=i)["version"]
            labels = ["cat", "dog"][: 1 + i % 2]
            post(address, "answer", window="w", photo=i, version=version, labels=labels)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    command = said.splitlines()[-1].partition("python train.py ")[2].split()
    call(train, *command, "--image_size", 32, "--num_epochs", 1, "--num_workers", 0)
    assert "6 images, 2 labels" in capsys.readouterr().err
    for path in tmp_path.rglob("*.pt"):
        path.unlink()


def test_beside_other_labels_it_is_not_taken_without_a_word(tmp_path, capsys):
    write_picture(tmp_path / "a.jpg")
    for name in ("labels.annotated.csv", "labels.csv"):
        (tmp_path / name).write_text("file_name,labels,verified\na.jpg,cat,yes\n")
        assert find_labels(tmp_path, "train").name == name
    assert "not used" in capsys.readouterr().err


def test_refusals(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "photos/a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.csv").write_text("file_name,labels\na.jpg,cat\n")
    (tmp_path / "other.csv").write_text("file_name,labels\nb.jpg,cat\n")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "issues.csv").write_text("file_name,label,annotation,probability\nb.jpg,cat,x,1\n")
    labels = ("--annotations", "labels.csv")
    for sentence, *flags in (
        ("nothing is no folder", "nothing"),
        ("there are no photos in empty", "empty"),
        ("never overwritten", "photos", "--output", "labels.csv"),
        ("is the output, too", "photos", *labels, "--output", "./labels.csv"),
        ("must end in .csv", "photos", "--output", "labels.txt"),
        ("cannot write", "photos", "--output", "labels.csv/o.csv"),
        ("needs --checkpoint", "photos", "--order", "uncertain"),
        ("--annotations", "photos", "--order", "review"),
        ("needs --checkpoint", "photos", *labels, "--order", "review"),
        ("--issues is for", "photos", *labels, "--issues", "issues.csv", "--order", "name"),
        ("is not a label_issues.csv", "photos", *labels, "--issues", "labels.csv"),
        ("is damaged", "photos", *labels, "--issues", "issues.csv"),
        ("no image of other.csv is in photos", "photos", "--annotations", "other.csv"),
        ("has no labels", "photos", "--label_list", "blank.txt"),
        ("cannot read absent.txt", "photos", "--label_list", "absent.txt"),
        ("there is no checkpoint", "photos", "--checkpoint", "absent.pt"),
        ("--port 70000 is above", "photos", "--port", "70000"),
    ):
        assert sentence in refusal(annotate, *flags, *(() if "--port" in flags else ("--port", 0)))
    assert sorted(p.name for p in (tmp_path / "photos").iterdir() if p.name[0] != ".") == ["a.jpg"]
    assert (tmp_path / "labels.csv").read_text() == "file_name,labels\na.jpg,cat\n"


def test_a_port_in_use(tmp_path):
    write_photos(tmp_path, 4)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in refusal(annotate, tmp_path, "--port", port)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.jpg")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs the packages starlette, uvicorn" in refusal(annotate, tmp_path)
