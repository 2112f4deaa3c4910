"""What the server answers: the JSON of sample.py, and one sentence for everything else."""

import io
import json
import struct
import threading
import zlib

import numpy as np
import pytest
from conftest import RANKED, call
from PIL import Image

import sample
from inference import predictor as predictors

pytest.importorskip("fastapi", reason="FastAPI is the server")
pytest.importorskip("python_multipart", reason="it reads forms")
testclient = pytest.importorskip("starlette.testclient", reason="its test client needs httpx2")
from serving import uploads  # noqa: E402
from serving.app import NAME, make_app  # noqa: E402
from serving.batcher import Batcher  # noqa: E402
from serving.gate import Limits, Places  # noqa: E402
from serving.uploads import Decoders  # noqa: E402

HOST = "http://127.0.0.1:8000"
MOST = 100_000  # bytes
PICTURES = 6  # that wait
CANNOT = "cannot be read as an image"


@pytest.fixture(scope="module")
def server(trained):
    """An app, what it uses, and how it counts."""
    model = predictors.load(trained.output)
    batcher, decoders, places = Batcher(model, 4), Decoders(model.transform), Places(PICTURES)
    yield make_app(batcher, decoders, Limits(PICTURES, MOST), places, []), batcher, places
    decoders.stop()
    batcher.stop()


@pytest.fixture
def client(server):
    yield testclient.TestClient(server[0], base_url=HOST)
    assert server[2].taken == 0, "all places are free again"


def send(client, *files, **data):
    """POST the pictures; strings and bytes are contents, tuples have a name."""
    named = [file if isinstance(file, tuple) else ("a.jpg", file) for file in files]
    return client.post("/predict", files=[("images", file) for file in named], data=data)


def sentence(response, status: int) -> str:
    """The error of a response."""
    assert response.status_code == status, response.text
    assert [*response.json()] == ["error"]
    error = response.json()["error"]
    assert "\n" not in error
    return error


def test_an_answer_is_the_json_of_sample(client, trained, capsys):
    image = trained.images / "img_02.jpg"
    flags = ("--checkpoint", trained.output, "--json", "--num_samples", 128)
    for facts, known in (({}, ()), ({"known": "dog"}, ("--known", "dog"))):
        call(sample, image, *flags, *known)
        expected = json.loads(capsys.readouterr().out)
        found = send(client, (str(image), image.read_bytes()), **facts)
        assert found.json() == [expected]


def test_several_pictures_keep_their_order_and_names(client, trained):
    names = [f"img_{i:02d}.jpg" for i in (3, 1, 3)]
    files = [(name, (trained.images / name).read_bytes()) for name in names]
    found = send(client, *files, known=["dog", "cat"], absent=["zebra"]).json()
    assert [result["image"] for result in found] == names
    assert found[0] == found[2] != found[1]
    assert {*found[1]["predicted"]} >= {"dog", "cat"}
    assert found[1]["labels"]["zebra"] == 0
    assert (found[1]["known"], found[1]["absent"]) == (["dog", "cat"], ["zebra"])


def test_labels_health_description_and_page(client, server):
    assert client.get("/labels").json() == [*RANKED]
    assert client.get("/healthz").json() == {"status": "ok"}
    server[2].closing = True
    closing = client.get("/healthz")
    server[2].closing = False
    assert (closing.status_code, closing.json()) == (503, {"status": "closing"})
    assert {"/predict", "/labels", "/healthz"} <= {*client.get("/openapi.json").json()["paths"]}
    for path, start in (("/", "<!DOCTYPE html>"), ("/page.js", '"use'), ("/colours.css", ":root")):
        page = client.get(path)
        assert page.text.startswith(start)
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/docs").status_code == 404, "it would load scripts from another site"


def test_wrong_requests_have_one_sentence(client, trained):
    image = (trained.images / "img_00.jpg").read_bytes()
    assert f"a.jpg {CANNOT}" in sentence(send(client, image, b"no picture"), 400)
    assert sentence(send(client, b""), 400) == "a.jpg is empty"
    assert "truncated" in sentence(send(client, image[: len(image) // 2]), 400)
    assert "'dgo'; did you mean 'dog'?" in sentence(send(client, image, known="dgo"), 400)
    assert "known and as absent" in sentence(send(client, image, known="dog", absent="dog"), 400)
    assert "more than 6 letters" in sentence(send(client, image, known="x" * 90_000), 400)
    for wrong in (
        client.post("/predict"),
        client.post("/predict", json={"images": "a"}),
        client.post("/predict", data={"images": "a"}),
        client.post("/predict", files={"photos": image}),
        client.post("/predict", files={"images": image, "known": image}),
    ):
        assert "multipart/form-data" in sentence(wrong, 400)
    assert sentence(client.get("/predict"), 405)
    assert sentence(client.post("/nothing"), 404)
    assert "at most 0.1 MB" in sentence(send(client, b"x" * MOST), 413)
    assert "at most 6 pictures" in sentence(send(client, *[b"x"] * 7), 413)
    for foreign in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert client.post("/predict", files={"images": image}, headers=foreign).status_code == 403


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("utf-8", "\x1b[2J\u202e<script>.jpg"),
        ("unicode_escape", "\\ud800.jpg"),
        ("utf-16", "a"),
        ("undefined", "a"),
        ("utf-8", "x" * 5000),
        ("utf-8", ""),
    ],
)
def test_hostile_names(client, charset, name):
    """They are shown as text, and never become paths or break the answer."""
    head = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    body = head.encode() + b"no picture\r\n--b--\r\n"
    response = client.post("/predict", content=body, headers={"content-type": kind})
    error = sentence(response, 400)
    assert len(error) < NAME + 100
    assert error.isprintable()


def test_a_bomb_is_refused_before_it_is_decoded(client):
    """A PNG that says it has 400 million pixels."""
    data = io.BytesIO()
    Image.new("1", (8, 8)).save(data, "PNG")
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + data.getvalue()[24:29]
    bomb = data.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header))
    error = sentence(send(client, bomb + data.getvalue()[33:]), 400)
    assert "more than 178,956,970 pixels" in error


def test_large_pictures_are_decoded_one_by_one(client, trained, monkeypatch):
    monkeypatch.setattr(uploads, "LARGE", 1)
    lock, most = threading.Lock(), []

    def decode(transform, upload, original=uploads.Transform.from_file):
        most.append(lock.acquire(blocking=False))
        try:
            return original(transform, upload)
        finally:
            lock.release()

    monkeypatch.setattr(uploads.Transform, "from_file", decode)
    image = (trained.images / "img_00.jpg").read_bytes()
    assert len(send(client, *[image] * 5).json()) == 5
    assert most == [True] * 5


def test_a_full_queue_refuses_with_retry_after(client, server, trained):
    places = server[2]
    image = (trained.images / "img_00.jpg").read_bytes()
    places.taken += PICTURES - 1
    try:
        full = send(client, image, image)
        assert "wait" in sentence(full, 503)
        assert full.headers["retry-after"] == "1"
        assert send(client, image).status_code == 200, "one place is left"
    finally:
        places.taken -= PICTURES - 1
    assert send(client, image, image).status_code == 200


def test_mutated_requests_never_fail_inside(client, trained):
    """Damaged forms and pictures: an answer, or a refusal."""
    image = (trained.images / "img_00.jpg").read_bytes()
    request = client.build_request(
        "POST", "/predict", files={"images": ("a.jpg", image)}, data={"known": "dog"}
    )
    whole, kind = request.read(), request.headers["content-type"]
    statuses = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        body = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at, length = (int(n) for n in rng.integers((len(body), 40)))
            body[at : at + length] = rng.bytes(int(rng.integers(40)))
        headers = {"content-type": kind if seed % 4 else kind[: -int(rng.integers(1, 60))]}
        response = client.post("/predict", content=bytes(body), headers=headers)
        statuses.add(response.status_code)
    assert statuses == {200, 400}
