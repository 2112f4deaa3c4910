"""report.html and comparison.html: numbers, size, and how they look in a real browser."""

import csv
import json
from pathlib import Path
from urllib.parse import unquote

import make_scenes
import numpy as np
import pytest
import torch
from conftest import COLOURS, call, check_layout, coco, write_json, write_picture

import evaluate
import train
from deploy.model_card import write_card
from evaluation import metrics
from evaluation.metrics import SET_METRICS, Metric
from images.transforms import Preprocessing
from inference.checkpoint import load_checkpoint, save_checkpoint
from labels.coco import read_annotations
from labels.vocabulary import Vocabulary, count_labels
from model import HybridNet, settings_of

HOSTILE = ("<script>alert(1)</script>", "\"'&", "a < b && c > d", "</style>{{ 7 * 7 }}", "ordinary")


def write_checkpoint(vocabulary: Vocabulary, path) -> None:
    """Save an untrained network with these labels."""
    torch.manual_seed(0)
    settings = settings_of({"embed_size": 8, "hidden_size": 8})
    model = HybridNet(
        num_labels=len(vocabulary), label_logits=vocabulary.prior_logits(), **settings
    )
    checkpoint = {
        "model": settings,
        "vocabulary": vocabulary.to_dict(),
        "preprocessing": Preprocessing(64).to_dict(),
        "weights": model.state_dict(),
        "temperature": 1.0,
        "prior_weight": 0.0,
        "threshold": 0.3,
        "label_thresholds": 0.3,
        "epoch": 2,
        "metrics": {},
        "selected_on": "<b>a hold-out</b>",
        "flags": {},
    }
    save_checkpoint(checkpoint, path)


def write_log(path) -> None:
    """Write the log.jsonl of a run of three epochs."""
    lines = [
        {"epoch": n, "train_set_nll": 9 - n, "val_set_nll": 9.5 - n, "val_mAP": 10.0 * n}
        | {"val_OF1": 12.0 * n, "val_EM": float(n)}
        for n in (1, 2, 3)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of 12 images whose labels and file names are HTML code."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    sets = [tuple(np.array(HOSTILE)[rng.random(5) < 0.5].tolist()) for _ in range(12)]
    names = [f"<img src=x onerror=alert({i})>&\"'.jpg" for i in range(12)]
    categories = {label: n for n, label in enumerate(HOSTILE)}
    annotations = write_json(coco(sets, names, categories), folder / "<i>val.json")
    for i, name in enumerate(names):
        write_picture(folder / "images" / name, list(COLOURS)[: i % 5], 120, i)
    write_checkpoint(count_labels([*sets, HOSTILE], HOSTILE), folder / "best.pt")
    write_log(folder / "log.jsonl")
    data = ("--image_path", folder / "images", "--annotations", annotations, "--num_workers", 0)
    best = ("--checkpoint", folder / "best.pt", "--output_dir", folder)
    call(evaluate, *best, *data, "--report")
    metrics_json = folder / "metrics.json"
    call(evaluate, "--compare", metrics_json, metrics_json, "--report")
    (folder / "best.pt").unlink()
    return folder


@pytest.fixture(scope="module")
def ccp(tmp_path_factory, shared):
    """The report of 60 real photos."""
    folder = tmp_path_factory.mktemp("ccp")
    annotations = shared / "ccp/annotations/val.json"
    listed = read_annotations(annotations)
    write_checkpoint(count_labels(listed.label_sets, listed.categories), folder / "best.pt")
    data = ("--image_path", shared / "ccp/images/val", "--annotations", annotations)
    best = ("--checkpoint", folder / "best.pt", "--output_dir", folder)
    call(evaluate, *best, *data, "--num_workers", 0, "--limit", 60, "--report", "--amp", "off")
    (folder / "best.pt").unlink()
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The report of a short run on a small default set."""
    folder = tmp_path_factory.mktemp("scenes")
    size = ("--num_train", 24, "--num_val", 12, "--image_size", 48, "--num_workers", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(make_scenes, *size)
        call(train, "--num_epochs", 2, "--num_workers", 0, "--output_dir", "run", "--amp", "off")
        call(evaluate, "--checkpoint", "run/best.pt", "--num_workers", 0, "--report")
    for path in folder.rglob("*.pt"):
        path.unlink()
    return folder / "run"


# --- in a browser -----------------------------------------------------------------------------


def column(page, number: int, table: str = "#metrics") -> list[str]:
    """The texts of a column of a table, from top to bottom."""
    rows = f"[...document.querySelectorAll('{table} tbody tr')]"
    return page.evaluate(f"{rows}.map(row => row.cells[{number}].innerText)")


def read_sets(folder) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of a report: N×C annotated labels and those predicted by the rule threshold; C names."""
    found = np.load(folder / "predictions.npz")
    threshold = json.loads((folder / "metrics.json").read_text())["threshold"]
    return found["targets"], found["marginals"] >= threshold, found["labels"].tolist()


def shown(page, where: str = "#photos") -> int:
    """The number of photos shown in a part of the page."""
    return page.locator(f"{where} .photo:visible").count()


def test_hostile_names_are_text(hostile, opened):
    page = opened(hostile / "report.html")
    check_layout(page)
    assert sorted(column(page, 0)) == sorted(HOSTILE)
    assert page.evaluate("document.scripts.length") == 1
    assert (
        page.evaluate("document.querySelectorAll('main script, main b b, [onerror]').length") == 0
    )
    text = page.evaluate("document.body.innerText")
    for name in (*HOSTILE, "<b>a hold-out</b>", "<i>val.json", "<img src=x onerror=alert(3)>&\"'"):
        assert name in text
    assert shown(page) == 11  # one has no labels
    assert page.evaluate("document.querySelectorAll('.maps img').length") > 12


def test_the_tables_sort(hostile, opened):
    page = opened(hostile / "report.html")
    rows = json.loads((hostile / "metrics.json").read_text())["per_label"]
    ap = sorted((row["AP"] for row in rows), reverse=True)
    button = page.locator("#metrics th button", has_text="AP")
    button.click()
    assert column(page, 2) == [f"{value:.1f}" for value in ap]
    assert page.locator("th[aria-sort=descending]").inner_text() == "AP"
    button.press("Enter")  # also with the keyboard
    assert column(page, 2) == [f"{value:.1f}" for value in ap[::-1]]
    page.locator("#metrics th button", has_text="label").click()
    assert page.locator("th[aria-sort=ascending]").inner_text() == "label"
    assert page.evaluate("document.querySelectorAll('[aria-sort=descending]').length") == 0


def test_every_label_has_a_page(hostile, opened):
    """Opened by keyboard, left by the back button: its name, counts, photos and curve."""
    page = opened(hostile / "report.html")
    targets, predicted, labels = read_sets(hostile)
    kinds = {"right": targets & predicted, "missed": targets & ~predicted}
    kinds["added"] = predicted & ~targets
    for c, label in enumerate(labels):
        page.locator("#labels tbody tr").nth(c).locator("a").press("Enter")
        page.wait_for_selector("#label:not([hidden])")
        assert page.locator("#label h1").inner_text() == label
        assert label in page.title()
        for kind, sets in kinds.items():
            assert shown(page, f"#label [data-kind={kind}]") == sets[:, c].sum()
        on = f"on {targets[:, c].sum()} of the {len(targets)} photos"
        assert on in page.locator(".about").inner_text()
        points = page.locator("#label .line.a").get_attribute("points")
        assert points == page.locator(f"#curve{c}").get_attribute("points")
        check_layout(page)
        page.go_back()
        page.wait_for_selector("#report:not([hidden])")
        assert page.evaluate("document.activeElement.textContent") == label
    page.evaluate("location.hash = '#label=%zz'")  # no address of this page
    assert page.locator("#report").is_visible()


def test_photos_are_found_by_kind_label_and_text(hostile, opened):
    page = opened(hostile / "report.html")
    targets, predicted, labels = read_sets(hostile)
    missed, c = targets & ~predicted, labels.index(HOSTILE[0])
    page.select_option("[name=kind]", "missed")
    assert shown(page) == missed.any(1).sum()
    page.select_option("[name=tag]", label=HOSTILE[0])
    assert shown(page) == missed[:, c].sum()
    page.select_option("[name=kind]", "")
    assert shown(page) == (targets | predicted)[:, c].sum()
    page.select_option("[name=tag]", "")
    page.fill("[name=text]", "ALERT(3)")
    assert shown(page) == 1
    page.fill("[name=text]", "no such photo")
    assert shown(page) == 0
    assert "0 found" in page.locator("#photos .count").inner_text()
    page.fill("#find", "SCRIPT")
    assert page.locator("#labels tbody tr:visible").count() == 1


def test_photos_open_large_with_the_keyboard(hostile, opened):
    page = opened(hostile / "report.html")
    while page.evaluate("document.activeElement.className") != "open":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    assert page.locator("#viewer .place").inner_text() == "2 of 4"
    name = page.locator("#viewer .file").inner_text()
    assert page.locator("#viewer .photo img").first.bounding_box()["width"] > 300
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer .file").inner_text() != name
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer .photo", state="detached")  # the browser's event comes later
    assert not page.locator("#viewer").is_visible()
    focused = "document.activeElement.closest('.photo').querySelector('.file').textContent"
    assert page.evaluate(focused) == name
    links = page.evaluate("[...document.querySelectorAll('.photo a')].map(a => a.href)")
    assert len(links) == shown(page) + shown(page, ".strip")
    assert all(Path(unquote(link.removeprefix("file://"))).is_file() for link in links)


def test_boxes_that_scroll_say_so(hostile, opened):
    page = opened(hostile / "report.html")
    wide = "e.scrollWidth > e.clientWidth + 1"
    for name in ("#rules .scroll", "#photos .gallery", "#labels"):
        box = f"document.querySelector('{name}').closest('.scroll, .gallery')"
        scrolls, says = page.evaluate(
            f"(e => [{wide}, getComputedStyle(e.nextElementSibling).visibility])({box})"
        )
        hidden = page.evaluate(f"{box}.nextElementSibling.hidden")
        assert (says == "visible" and not hidden) == scrolls
        if page.viewport_size["width"] < 400:
            assert scrolls
    page.evaluate("document.querySelector('#rules .scroll').scrollLeft = 9999")
    page.wait_for_function("!document.querySelector('#rules .scroll.more-right')")


def test_the_comparison_page(hostile, opened):
    page = opened(hostile / "comparison.html")
    check_layout(page)
    assert "p = 1" in page.evaluate("document.body.innerText")


def test_the_report_of_the_default_set(scenes, opened):
    page = opened(scenes / "report.html")
    check_layout(page)
    assert page.evaluate("document.querySelectorAll('#training svg').length") == 2
    found = json.loads((scenes / "metrics.json").read_text())
    page.locator("#metrics th button", has_text="images").click()
    support = [int(text) for text in column(page, 1)]
    assert support == sorted((row["support"] for row in found["per_label"]), reverse=True)
    assert f"{found['mAP']:.2f}" in page.evaluate("document.body.innerText")


def test_the_report_of_real_photos(ccp, opened):
    page = opened(ccp / "report.html")
    check_layout(page)
    assert shown(page) == 24
    page.locator(".show-more").press("Enter")
    assert shown(page) == 48
    assert not page.evaluate("document.querySelector('#training')")  # there was no log
    rows = json.loads((ccp / "metrics.json").read_text())["per_label"]
    absent = sum(row["AP"] is None for row in rows)
    page.locator("#metrics th button", has_text="AP").click()
    aps = column(page, 2)
    defined = [float(x) for x in aps if x != "–"]
    assert defined == sorted(defined, reverse=True)
    assert aps[len(defined) :] == ["–"] * absent


# --- numbers ----------------------------------------------------------------------------------


def test_page_json_and_log_show_the_same_numbers(hostile):
    r = json.loads((hostile / "metrics.json").read_text())
    page = (hostile / "report.html").read_text("utf-8")
    log = (hostile / "evaluate.log").read_text("utf-8")
    for value, digits in ((r["mAP"], 2), (r["set_nll"], 3), (r["mAP@10"], 2), (r["ECE"], 2)):
        assert f"<b>{value:.{digits}f}</b>" in page
        assert f"{value:.{digits}f}" in log
    for (low, high), digits in ((r["intervals"]["mAP"], 2), (r["intervals"]["set_nll"], 3)):
        assert f"{low:.{digits}f} to {high:.{digits}f}" in page
        assert f"{low:.{digits}f} to {high:.{digits}f}" in log
    for rule, intervals in r["intervals"]["predicted_sets"].items():
        assert tuple(intervals) == tuple(SET_METRICS)
        for name, (low, high) in intervals.items():
            value = r["predicted_sets"][rule][name]
            assert low <= value <= high
            interval = f'<span class="interval">{low:.1f} to {high:.1f}</span>'
            assert f"<td>{value:.1f}{interval}</td>" in page
    for row in r["per_label"]:
        assert all(f">{row[key]:.1f}</td>" in page for key in ("AP", "precision", "recall", "f1"))
    assert r["command"].startswith("python ")


def test_the_curves_in_the_csv_give_the_ap(hostile):
    r = json.loads((hostile / "metrics.json").read_text())
    with (hostile / "pr_curves.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for label in r["per_label"]:
        mine = [row for row in rows if row["label"] == label["label"]]
        recall = np.array([float(row["recall"]) for row in mine])
        precision = np.array([float(row["precision"]) for row in mine])
        ap = 100 * np.sum(np.diff(recall, prepend=0) * precision)
        assert ap == pytest.approx(label["AP"], abs=1e-4)


def test_real_photos_stay_small(ccp):
    assert (ccp / "report.html").stat().st_size < 5e6


# --- a new metric -----------------------------------------------------------------------------


def test_a_new_metric_appears_by_itself(hostile, tmp_path, monkeypatch):
    """A line in SCORE_METRICS or SET_METRICS is enough for JSON, table, page and model card."""
    of_scores = Metric(lambda targets, scores, known: 12.345, "a new metric of scores", 2)
    of_sets = Metric(lambda s: s.over_images(s.images.exact), "a new metric of <sets>", 1)
    monkeypatch.setitem(metrics.SCORE_METRICS, "newscore", of_scores)
    monkeypatch.setitem(metrics.SET_METRICS, "newset", of_sets)
    write_checkpoint(count_labels([HOSTILE], HOSTILE), tmp_path / "best.pt")
    data = ("--image_path", hostile / "images", "--annotations", hostile / "<i>val.json")
    best = ("--checkpoint", tmp_path / "best.pt", "--output_dir", tmp_path)
    call(evaluate, *best, *data, "--num_workers", 0, "--report")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["newscore"] == 12.345
    assert found["predicted_sets"]["map"]["newset"] == found["predicted_sets"]["map"]["EM"]
    text = (tmp_path / "evaluate.log").read_text("utf-8")
    assert "newscore 12.35" in text
    assert "  newset" in text
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<dt>newscore</dt><dd><b>12.35</b><small>a new metric of scores</small>" in page
    assert '<th scope="col" title="a new metric of &lt;sets&gt;">newset</th>' in page
    checkpoint = load_checkpoint(tmp_path / "best.pt")
    vocabulary = Vocabulary.from_dict(checkpoint["vocabulary"], "test")
    card = write_card(checkpoint, tmp_path / "best.pt", vocabulary, 1000, tmp_path).decode()
    assert "| newscore | 12.35 | | a new metric of scores |" in card
    assert "- newset: a new metric of <sets>" in card
