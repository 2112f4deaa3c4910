"""label_issues.html: what it shows, and the table it saves, in a real browser."""

import csv
import io

import numpy as np
import pytest
from conftest import check_layout, write_picture

from labels.annotated import AnnotatedImages
from labels.read import read_labels
from labels.write import LabelCells, table_as_csv
from report.label_issues import write_label_issues
from util.errors import UsageError

PLAIN = ("person", "dog", "hot dog", "traffic light")
HOSTILE = (
    *(
        "</script><script>alert(1)</script>",
        "=1+1",
        '"',
        "a|b",
        "a",
        "b",
        "none",
        "7",
        "it's",
        "<!--",
    ),
    *("x, y", "{{ 7 * 7 }}", "قطة", "'@a", "&amp;", "日本"),
)
NAMES = (
    *(
        "<img src=x onerror=alert(1)>.jpg",
        "=1.jpg",
        "a,b.jpg",
        'q"uo"te.jpg',
        " spaced.jpg",
        "ä.jpg",
    ),
    *("-.jpg", "x/y.jpg", "'=z.jpg", "line\nbreak.jpg", "</script>.jpg", "ordinary.jpg"),
)
JUDGED = "out of sample, <b>5</b> folds"


def made_up(folder, labels, names=NAMES, splits=True, number=8):
    """A set with random labels, pictures, and issues: the first two on one image."""
    rng = np.random.default_rng(0)
    sets = [tuple(label for label in labels if rng.random() < 0.4) for _ in names]
    sets[0], sets[-1] = labels[:2], ()
    divided = ["train", "val", "test"] * len(names)
    listed = AnnotatedImages(
        "<i>labels.csv", [*names], sets, [*labels], splits=divided[: len(names)] if splits else None
    )
    where = [(0, 0), (0, 2), (len(names) - 1, 1)]
    where += [(row, row % len(labels)) for row in range(1, len(names) - 1)]
    issues = [
        {
            "row": row,
            "image": f"photos/{names[row]}",
            "file_name": names[row],
            "label": labels[label],
            "annotation": "surplus" if labels[label] in sets[row] else "missing",
            "probability": 0.04 + 0.01 * i,
            "marginal": 0.11,
        }
        for i, (row, label) in enumerate(where[:number])
    ]
    paths = [write_picture(folder / f"photos/{i}.jpg", seed=i) for i in range(len(names))]
    write_label_issues(issues, listed, paths, folder, JUDGED)
    return listed, issues


def corrected(listed, issues, chosen) -> list[tuple[str, ...]]:
    """The label sets after these issues were corrected."""
    sets = [*listed.label_sets]
    for i in chosen:
        row, label = issues[i]["row"], issues[i]["label"]
        others = tuple(other for other in sets[row] if other != label)
        sets[row] = (*others, label) if issues[i]["annotation"] == "missing" else others
    return sets


def saved(page, path) -> bytes:
    """The file that the button saves."""
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "labels.corrected.csv"
    download.value.save_as(path)
    return path.read_bytes()


def choose(page, issue: int, choice: str) -> None:
    page.locator(".issue").nth(issue).locator(f"[data-choice={choice}]").click()


@pytest.mark.parametrize("labels", [HOSTILE, PLAIN], ids=["hostile", "plain"])
@pytest.mark.parametrize("splits", [True, False], ids=["splits", "whole"])
def test_the_saved_table(tmp_path, opened, capsys, labels, splits):
    """Byte for byte what Python writes for these corrections, and read back without a question."""
    listed, issues = made_up(tmp_path, labels, splits=splits)
    page = opened(tmp_path / "label_issues.html")
    cells = LabelCells(sorted({*listed.labels(), *(issue["label"] for issue in issues)}))
    unchanged = table_as_csv(cells, listed.file_names, listed.label_sets, listed.splits)
    assert saved(page, tmp_path / "labels.corrected.csv") == unchanged
    for i in (0, 1, 2, 5):
        choose(page, i, "correct")
    choose(page, 3, "keep")
    choose(page, 4, "correct")
    choose(page, 4, "keep")
    assert page.inner_text("#counter") == "6 of 8 looked at, 4 corrected"
    sets = corrected(listed, issues, (0, 1, 2, 5))
    content = saved(page, tmp_path / "labels.corrected.csv")
    assert content == table_as_csv(cells, listed.file_names, sets, listed.splits)
    found = read_labels(tmp_path / "labels.corrected.csv")
    assert found.file_names == listed.file_names
    assert [{*labels} for labels in found.label_sets] == [{*labels} for labels in sets]
    assert found.splits == listed.splits


def test_the_page_shows_texts_as_texts(tmp_path, opened):
    """Labels and names that are code or markup; no picture or text leads out of the window."""
    _, issues = made_up(tmp_path, HOSTILE)
    page = opened(tmp_path / "label_issues.html")
    check_layout(page)
    shown = page.locator(".issue").all_inner_texts()
    assert len(shown) == len(issues)
    for text, issue in zip(shown, issues, strict=True):
        assert f"Is “{' '.join(issue['label'].split())}” on this photo?" in text
        assert " ".join(issue["file_name"].split()) in text
    assert "annotated\nyes" in shown[0]
    assert "given the other labels\n4 % yes" in shown[0]
    assert "picture alone\n11 % yes" in shown[0]
    assert issues[1]["annotation"] == "missing"
    assert "annotated\nno" in shown[1]
    assert "given the other labels\n95 % yes" in shown[1], "P(annotation is right) is 5 %"
    assert JUDGED in page.inner_text("header")
    assert "--annotations labels.corrected.csv" in page.inner_text("#next")
    assert "<i>labels.csv, is not changed" in page.inner_text("#next")


def test_keys_undo_and_reload(tmp_path, opened):
    """Choices are kept in the browser, for this page only."""
    for name, labels in (("one", PLAIN), ("other", (*PLAIN, "cat"))):
        made_up(tmp_path / name, labels)
    page = opened(tmp_path / "one/label_issues.html")

    def after(keys: str) -> str:
        for key in keys.split():
            page.keyboard.press(key)
        return page.inner_text("#counter")[:1] + page.inner_text("#counter")[-11:-10]

    assert after("c c k") == "32"
    assert page.get_attribute(".issue.current", "aria-label") == "Issue 4 of 8"
    assert after("u") == "22"
    assert page.get_attribute(".issue.current", "aria-label") == "Issue 3 of 8"
    assert after("ArrowUp ArrowLeft k") == "21", "a new choice replaces the old one"
    assert after("u") == "22"
    assert after("ArrowDown ArrowRight c Control+k") == "33"
    assert after("Tab Tab Enter") == "44", "the second button is Correct; the first was tabbed over"
    page.reload()
    assert after("") == "44"
    page.goto((tmp_path / "other/label_issues.html").as_uri())
    assert after("") == "00"
    page.goto((tmp_path / "one/label_issues.html").as_uri())
    assert after("u u u u u u u") == "00"
    assert page.is_disabled("#undo")


def test_without_storage_the_page_says_so(tmp_path, opened):
    listed, issues = made_up(tmp_path, PLAIN)
    page = opened(tmp_path / "label_issues.html", "Storage.prototype.setItem = () => { throw 1 }")
    assert not page.is_visible("#not_kept")
    choose(page, 0, "correct")
    assert page.is_visible("#not_kept")
    sets = corrected(listed, issues, [0])
    labels = {label for labels in listed.label_sets for label in labels}
    cells = LabelCells(sorted({*labels, *(issue["label"] for issue in issues)}))
    expected = table_as_csv(cells, listed.file_names, sets, listed.splits)
    assert saved(page, tmp_path / "labels.corrected.csv") == expected


def test_the_list_is_safe_for_spreadsheets(tmp_path):
    _, issues = made_up(tmp_path, HOSTILE)
    text = (tmp_path / "label_issues.csv").read_text(encoding="utf-8-sig")
    rows = [*csv.DictReader(io.StringIO(text, newline=""))]
    assert [*rows[0]] == ["file_name", "label", "annotation", "probability", "marginal"]
    numbers = [float(row["probability"]) for row in rows]
    assert numbers == pytest.approx([issue["probability"] for issue in issues])
    assert not any(value.startswith(("=", "-", "+", "@")) for row in rows for value in row.values())


def test_unreadable_photos_are_named_and_many_photos_are_small(tmp_path, monkeypatch):
    listed, issues = made_up(tmp_path, PLAIN)
    noisy = write_picture(tmp_path / "noisy.jpg", side=500)
    paths = {i["row"]: noisy for i in issues} | {0: tmp_path / "<gone>.jpg"}
    monkeypatch.setattr("report.label_issues.PHOTOS", len(issues) * 8000)
    write_label_issues(issues, listed, paths, tmp_path, JUDGED)
    page = (tmp_path / "label_issues.html").read_text(encoding="utf-8")
    assert "there is no image" in page
    assert "&lt;gone&gt;.jpg" in page
    assert page.count("data:image/webp") == len(issues) - 2
    assert len(page) < len(issues) * 8000 + 40_000


def test_what_no_table_can_hold_stops(tmp_path):
    with pytest.raises(UsageError, match="label"):
        made_up(tmp_path, ("two  spaces", "b", "c"))
    listed, issues = made_up(tmp_path, PLAIN)
    issues[0]["annotation"] = "missing"
    with pytest.raises(ValueError, match="does not fit"):
        write_label_issues(issues, listed, {}, tmp_path, JUDGED)


def test_real_photos(tmp_path, shared):
    """A page of 200 photos: fewer than 15 MB."""
    listed = read_labels(shared / "ccp/annotations/val.json")
    folder = shared / "ccp/images/val"
    issues = [
        {"row": row, "image": "", "file_name": listed.file_names[row], "label": labels[0]}
        | {"annotation": "surplus", "probability": 0.1, "marginal": 0.2}
        for row, labels in enumerate(listed.label_sets[:200])
    ]
    paths = [folder / name for name in listed.file_names]
    write_label_issues(issues, listed, paths, tmp_path, JUDGED)
    assert (tmp_path / "label_issues.html").stat().st_size < 15e6
