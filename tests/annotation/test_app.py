"""The questions of the page, and who may ask them."""

import io
import json
from dataclasses import replace

import pytest
from conftest import LABEL_SETS, RANKED, write_picture
from PIL import Image

from annotation.order import Queue
from annotation.photos import list_photos
from annotation.scorer import Scorer
from annotation.store import Answer, Store, read_answers
from inference import predictor
from inference.rules import LabelRules
from labels.rules import ONE_OF, Rule
from util.errors import UsageError

pytest.importorskip("starlette", reason="Starlette serves the page")
testclient = pytest.importorskip("starlette.testclient", reason="its test client needs httpx2")
from annotation.app import LETTERS, Site, make_app  # noqa: E402
from annotation.guard import MOST_BYTES  # noqa: E402

HOST = "http://127.0.0.1:8000"
SAME = {"origin": HOST, "sec-fetch-site": "same-origin"}


@pytest.fixture
def site(tmp_path):
    """Six photos, two of them annotated; no network."""
    for i, labels in enumerate(LABEL_SETS[:6]):
        write_picture(tmp_path / "photos" / f"{i}.jpg", labels, seed=i)
    names, paths = list_photos(tmp_path / "photos")
    annotated = {"0.jpg": Answer(("person",)), "1.jpg": Answer(("person", "dog"))}
    store = Store(tmp_path / "o.csv", annotated)
    yield Site(names, paths, store, Queue(names, store, range(6)), None, ["zebra", "cat"])
    store.close()


@pytest.fixture
def client(site):
    return testclient.TestClient(make_app(site, 8000), base_url=HOST, headers=SAME)


@pytest.fixture(scope="module")
def model(trained):
    return predictor.load(trained.output)


def answer(client, state, labels, **changes):
    body = {"window": "w", "photo": state["photo"], "version": state["version"], "labels": labels}
    return client.post("/answer", json=body | changes)


def test_answers_are_saved_before_the_next_photo(client, site):
    for number in range(6):
        state = client.post("/next", json={"window": "w"}).json()
        assert state["photo"] == number
        assert answer(client, state, ["cat", "new label"]).status_code == 200
        saved = read_answers(site.store.output)[f"{number}.jpg"]
        assert saved == Answer(("cat", "new label"), True)
    assert client.post("/next", json={"window": "w"}).json()["photo"] is None
    assert client.post("/open", json={"window": "w", "photo": 2}).json()["verified"]


def test_the_state_of_a_photo(client):
    state = client.post("/open", json={"window": "w", "photo": 1}).json()
    assert state["name"] == "1.jpg"
    assert state["labels"] == ["person", "dog"]
    assert not state["verified"]
    labels = [label for label, *_ in state["ranked"]]
    assert labels == ["zebra", "cat", "person", "dog"], "the list given, then the most frequent"
    assert client.post("/open", json={"window": "w", "photo": 5}).json()["labels"] is None


def test_a_stale_answer_gets_the_newer_state(client, site):
    old = client.post("/open", json={"window": "one", "photo": 0}).json()
    assert answer(client, old, ["cat"]).status_code == 200
    refused = answer(client, old, ["dog"], window="two")
    assert refused.status_code == 409
    assert refused.json()["labels"] == ["cat"]
    assert refused.json()["version"] != old["version"]
    assert site.store.get("0.jpg").labels == ("cat",)


def test_undo(client, site):
    old = client.post("/open", json={"window": "w", "photo": 0}).json()
    version = answer(client, old, ["cat"]).json()["version"]
    undo = {"window": "w", "photo": 0, "version": version}
    state = client.post("/undo", json=undo).json()
    assert (state["labels"], state["verified"]) == (["person"], False)
    assert client.post("/undo", json=undo).status_code == 409


def test_pictures_are_jpegs_of_a_screens_size(client, site, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    Image.new("RGB", (3000, 900)).save(tmp_path / "photos/0.jpg", exif=exif)
    response = client.get("/photo/0")
    with Image.open(io.BytesIO(response.content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (480, 1600))
        assert not picture.getexif()
    (tmp_path / "photos/1.jpg").write_text("no photo")
    assert client.get("/photo/1").status_code == 404
    state = client.post("/open", json={"window": "w", "photo": 1}).json()
    assert "error" not in state, "without a network only the picture is missing"


@pytest.mark.parametrize(
    "path",
    [
        "/photo/6",
        "/photo/-1",
        "/photo/0.jpg",
        "/photo/..%2fo.csv",
        "/photo/%2e%2e/o.csv",
        "/photo/../../etc/passwd",
        "/page.html/../../store.py",
        "/store.py",
        "/photo/99999999999999999999",
    ],
)
def test_there_is_nothing_else(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/answer", {"labels": "cat"}),
        ("/answer", {"labels": [1]}),
        ("/answer", {"labels": ["a\x1bb"]}),
        ("/answer", {"labels": ["a\u202eb"]}),
        ("/answer", {"labels": ["\ud800"]}),
        ("/answer", {"labels": [" "]}),
        ("/answer", {"labels": ["x" * (LETTERS + 1)]}),
        ("/answer", {"photo": True}),
        ("/answer", {"photo": -1}),
        ("/answer", {"photo": 6}),
        ("/answer", {"photo": "../o.csv"}),
        ("/answer", {"version": None}),
        ("/score", {"known": ["cat"], "absent": ["cat"]}),
        ("/next", {"window": 3}),
        ("/next", {"skip": ["x"]}),
    ],
)
def test_wrong_requests(client, site, path, body):
    good = {"window": "w", "photo": 0, "version": site.store.version("0.jpg"), "labels": ["cat"]}
    headers = {"content-type": "application/json"}
    response = client.post(path, content=json.dumps(good | body), headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]
    assert not site.store.output.exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"nan", b"{", b"[" * 100_000, b"\xff"])
def test_requests_that_are_no_json_object(client, content):
    headers = {"content-type": "application/json"}
    assert client.post("/next", content=content, headers=headers).status_code == 400


def test_large_requests(client):
    headers = {"content-type": "application/json"}
    content = b'{"window":"w"' + b" " * MOST_BYTES + b"}"
    assert client.post("/next", content=content, headers=headers).status_code == 400


FOREIGN = [
    {"host": "evil.example"},
    {"host": "evil.example:8000"},
    {"host": "127.0.0.1:8001"},
    {"host": "127.0.0.1"},
    {"host": ""},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8001"},
    {"origin": "https://127.0.0.1:8000"},
    {"origin": "http://127.0.0.1:8000.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_foreign_requests_are_refused(client, site, headers):
    for response in (
        client.get("/", headers=headers),
        client.get("/photo/0", headers=headers),
        client.post("/next", json={"window": "w"}, headers=headers),
    ):
        assert response.status_code == 403
        assert b"<" not in response.content
    assert not site.queue._shown


def test_a_post_needs_an_origin_and_json(site):
    client = testclient.TestClient(make_app(site, 8000), base_url=HOST)
    assert client.get("/").status_code == 200
    assert client.post("/next", json={"window": "w"}).status_code == 403
    plain = {"content-type": "text/plain", "origin": HOST}
    assert client.post("/next", content=b'{"window":"w"}', headers=plain).status_code == 403
    local = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    assert client.post("/next", json={"window": "w"}, headers=local).status_code == 200


def test_every_answer_forbids_foreign_code(client):
    for path in ("/", "/page.js", "/photo/0", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


# --- with a network -----------------------------------------------------------------------------


@pytest.fixture
def scored(site, model, trained):
    site.scorer = Scorer(model, site.paths)
    client = testclient.TestClient(make_app(site, 8000), base_url=HOST, headers=SAME)
    return client, site


def test_scores_are_those_of_the_decoder_given_what_is_known(scored, model):
    client, site = scored
    state = client.post("/open", json={"window": "w", "photo": 3}).json()
    asked = {"photo": 3, "known": ["dog", "typed by the user"], "absent": ["cat"]}
    ranked = client.post("/score", json=asked).json()
    for found, facts in ((state["ranked"], {}), (ranked, {"known": ["dog"], "absent": ["cat"]})):
        expected = model.predict(site.paths[3], num_samples=site.scorer.num_samples, **facts)[
            "labels"
        ]
        assert {label: p for label, p, _ in found} == pytest.approx(expected, abs=1e-4)
        assert [label for label, *_ in found] == [*expected]
        assert {label: on for label, _, on in found} == {k: p >= 0.5 for k, p in expected.items()}
    found = {label: p for label, p, _ in ranked}
    assert found["dog"] == pytest.approx(1)
    assert found["cat"] == 0


def test_labels_that_are_switched_on_keep_the_rules(scored, model):
    """Exactly one label of the group is on, also if none has a probability of 1/2."""
    client, site = scored
    rules = [Rule(ONE_OF, tuple(range(len(RANKED))), "one of: all", 1)]
    site.scorer = Scorer(replace(model, rules=LabelRules(rules, len(RANKED))), site.paths)
    for absent in ([], ["person"], ["person", "dog"]):
        asked = {"photo": 3, "known": [], "absent": absent}
        ranked = client.post("/score", json=asked).json()
        assert sum(on for _, _, on in ranked) == 1
        assert sum(p for _, p, _ in ranked) == pytest.approx(1, abs=1e-3)
        assert ranked[0][2], "the most probable one"
    asked["known"] = ["cat", "zebra"]
    refused = client.post("/score", json=asked)
    assert refused.status_code == 400
    assert "`one of: all` cannot be kept on an image with" in refused.json()["error"]


def test_typed_labels_are_offered_after_those_of_the_network(scored):
    client, _ = scored
    state = client.post("/open", json={"window": "w", "photo": 3}).json()
    answer(client, state, ["typed"])
    ranked = client.post("/open", json={"window": "w", "photo": 4}).json()["ranked"]
    assert ranked[-1] == ["typed", None, False]
    assert {label for label, p, _ in ranked if p is not None} == {*RANKED}


def test_where_the_network_saw_a_label(scored, model):
    client, site = scored
    rows = client.post("/seen", json={"photo": 0, "label": "person"}).json()
    expected = model.class_activation_maps(model.encode(site.paths[0]))["person"]
    assert (len(rows), len(rows[0])) == expected.shape
    assert min(map(min, rows)) == 0
    assert max(map(max, rows)) == 1
    assert client.post("/seen", json={"photo": 0, "label": "typed"}).json() is None


def test_an_unreadable_photo_says_so(scored):
    client, site = scored
    site.paths[2].write_text("no photo")
    state = client.post("/open", json={"window": "w", "photo": 2}).json()
    assert "cannot be read as an image" in state["error"]
    with pytest.raises(UsageError):
        site.scorer.rate_uncertainty(2)


def test_issues_are_the_annotations_that_are_probably_wrong(scored, model):
    """Against the probabilities of all label sets, by brute force, and Bayes' rule."""
    _, site = scored
    rate = site.scorer.issue_rating(lambda photo: ("dog", "apple"))
    found = model.predict(site.paths[0], num_sets=2 ** len(RANKED))["most_probable_sets"]
    probability = {frozenset(s["labels"]): s["probability"] for s in found}
    own = {"dog", "apple"}
    expected = {
        label: probability[frozenset(own)]
        / (probability[frozenset(own)] + probability[frozenset(own ^ {label})])
        for label in RANKED
    }
    odds = {  # that the annotation is wrong; a rare label is seldom added wrongly
        label: (1 - p)
        / p
        * (count / (model.vocabulary.num_images - count + 1) if label in own else 1)
        for (label, p), count in zip(expected.items(), model.vocabulary.counts, strict=True)
    }
    issues = rate(0).issues
    assert {i.label: i.probability for i in issues} == pytest.approx(
        {label: expected[label] for label in RANKED if odds[label] > 1}, rel=1e-3
    )
    ranked = sorted((label for label in RANKED if odds[label] > 1), key=lambda x: -odds[x])
    assert [i.label for i in issues] == ranked
    assert all(i.kind == ("surplus" if i.label in own else "missing") for i in issues)
