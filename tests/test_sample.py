"""sample.py: its results, the files it writes, unusual names and damaged files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    LABEL_SETS,
    RANKED,
    call,
    load,
    refusal,
    run,
    write_picture,
)
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import sample
from inference.predictions import DECISIONS
from report import slides
from report.fonts import choose_fonts
from util.errors import RunError, UsageError
from util.log import printable
from util.marked import is_marked


def test_sample_end_to_end(trained):
    command = ("sample.py", "data/images/img_02.jpg", "data/images", "--output", "tagged")
    result = run(*command, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("most probable set:") == 12, "img_02 is given twice: labelled once"
    assert result.stdout.startswith("data/images/img_02.jpg\n")
    tagged = trained.folder / "tagged"
    for line in result.stdout.splitlines():
        if "picture: " in line:
            assert is_marked(trained.folder / line.split("picture: ")[1])
    slides = {path.name for path in (tagged / "slides").iterdir()}
    assert slides == {f"img_{i:02d}.jpg.png" for i in range(12)}
    with Image.open(tagged / "contact_sheet.png") as sheet:
        assert sheet.size == (5 * 240, 3 * 296)
    rows, lines = rows_of(tagged), lines_of(tagged)
    assert len(rows) == len(lines) == 12
    for row, line in zip(rows, lines, strict=True):
        assert row["file_name"] == line["image"]
        assert row["labels"] == "|".join(line["predicted"])
        for label, p in line["labels"].items():
            assert float(row[f"P({label})"]) == pytest.approx(p, abs=1e-4)
    assert "train.py --image_path data/images --annotations tagged/pre" in result.stderr


def rows_of(folder: Path) -> list[dict]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_sample_json(trained, workdir, capsys):
    call(sample, "data/images", "--checkpoint", trained.output / "best.pt", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [
        f"data/images/img_{i:02d}.jpg" for i in range(len(LABEL_SETS))
    ]
    threshold = load(trained.output / "best.pt")["threshold"]
    for line in lines:
        assert set(line["labels"]) == set(RANKED)
        assert list(line["labels"].values()) == sorted(line["labels"].values(), reverse=True)
        assert set(line["predicted"]) == {k for k, p in line["labels"].items() if p >= threshold}
        (best,) = line["most_probable_sets"]
        assert 0 < best["probability"] <= 1
    assert not (workdir / "samples").exists()


def test_sample_refuses(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt")
    (workdir / "text.txt").write_text("hello")
    (workdir / "void").mkdir()
    assert "cannot be read as an image" in refusal(sample, "text.txt", *best)
    assert "there is no image absent.jpg" in refusal(sample, "absent.jpg", *best)
    assert "there are no images in the folder void" in refusal(sample, "void", *best)
    with pytest.raises((UsageError, RunError), match=r"text\.txt"):
        call(sample, "data/images/img_00.jpg", *best, "--output", "text.txt")


def test_sample_with_known_labels(trained, workdir, capsys):
    flags = ("data/images/img_02.jpg", "--checkpoint", trained.output / "best.pt")
    call(sample, *flags, "--known", "dog", "--absent", "cat", "--absent", "person", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["labels"]["dog"] == pytest.approx(1)
    assert result["labels"]["cat"] == result["labels"]["person"] == 0
    assert "dog" in result["most_probable_sets"][0]["labels"]
    assert not {"cat", "person"} & set(result["most_probable_sets"][0]["labels"])
    assert 1 <= result["effective_sample_size"] <= 256
    assert "did you mean 'person'" in refusal(sample, *flags, "--known", "persn")
    assert "'dog' is given as known and as absent" in refusal(
        sample, *flags, "--known", "dog", "--absent", "dog"
    )


def test_a_damaged_image_in_a_folder_is_left_out(trained, workdir, capsys):
    bad = workdir / "data/images/bad.jpg"
    bad.write_text("no image")
    (workdir / "data/images/._img_00.jpg").write_text("written by macOS")
    best = ("--checkpoint", trained.output / "best.pt", "--output", "o", "--num_slides", 1)
    call(sample, "data/images", *best)
    assert "bad.jpg cannot be read as an image" in capsys.readouterr().err
    assert len(lines_of(workdir / "o")) == len(LABEL_SETS)
    (line,) = map(json.loads, (workdir / "o/unreadable.jsonl").read_text().splitlines())
    assert line["image"] == "bad.jpg"
    assert "cannot be read" in line["reason"]
    assert "cannot be read as an image" in refusal(sample, bad, *best[:2])
    write_picture(bad)
    call(sample, "data/images", *best)
    assert not (workdir / "o/unreadable.jsonl").exists(), "it was tried again, and can be read"
    assert lines_of(workdir / "o")[-1]["image"] == "bad.jpg"
    for path in (workdir / "data/images").iterdir():
        path.write_text("no image")
    assert refusal(sample, "data/images", *best[:2], "--output", "p") == (
        "none of the images can be read"
    )


def test_an_unreadable_image_given_by_name_is_an_error_after_the_others(trained, workdir, capsys):
    Path("bad.jpg").write_text("no image")
    best = ("--checkpoint", trained.output / "best.pt")
    images = ("bad.jpg", "data/images/img_00.jpg")
    assert "bad.jpg cannot be read" in refusal(sample, *images, *best, "--json")
    assert "img_00.jpg" in capsys.readouterr().out
    assert "bad.jpg cannot be read" in refusal(sample, *images, *best, "--output", "o")
    assert [line["image"] for line in lines_of(Path("o"))] == ["data/images/img_00.jpg"]


def test_sample_uses_the_given_decision_rule(trained, workdir, capsys):
    flags = ("data/images/img_02.jpg", "--checkpoint", trained.output / "best.pt", "--json")
    results = {}
    for rule in DECISIONS:
        call(sample, *flags, "--decide", rule, "--num_sets", 40, "--standard_errors")
        results[rule] = json.loads(capsys.readouterr().out)
    r = results["map"]
    sets = r["most_probable_sets"]
    assert len(sets) == 2 ** len(RANKED), "all sets that exist"
    assert r["sets_are_certain"]
    assert sum(s["probability"] for s in sets) == pytest.approx(1, abs=1e-4)
    assert r["covered"] == pytest.approx(1, abs=1e-4)
    assert set(r["predicted"]) == set(sets[0]["labels"])
    checkpoint = load(trained.output / "best.pt")
    own = dict(zip(RANKED, checkpoint["label_thresholds"], strict=True))
    one = dict.fromkeys(RANKED, checkpoint["threshold"])
    assert len(set(own.values())) > 1
    for rule, thresholds in (("threshold", one), ("label_f1", own)):
        probable = {label for label, p in r["labels"].items() if p >= thresholds[label]}
        assert set(results[rule]["predicted"]) == probable
        assert results[rule]["thresholds"] == pytest.approx(thresholds)
    expected_f1 = {}
    for chosen in (frozenset(s["labels"]) for s in sets):
        sizes = [(len(chosen) + len(s["labels"]), s) for s in sets]
        expected_f1[chosen] = sum(
            s["probability"] * (2 * len(chosen & set(s["labels"])) / n if n else 1)
            for n, s in sizes
        )
    best = max(expected_f1.values())
    assert expected_f1[frozenset(results["f1"]["predicted"])] == pytest.approx(best, abs=0.02)
    for label, p in r["labels"].items():
        lower, upper = r["bounds"][label]
        exact = sum(s["probability"] for s in sets if label in s["labels"])
        assert lower - 1e-4 <= exact <= upper + 1e-4
        assert abs(p - exact) <= 4 * r["standard_errors"][label] + 1e-4


@given(st.lists(st.text("ab.", min_size=1, max_size=9).map("x/".__add__), unique=True))
@example(["a/x.jpg", "b/x.jpg", "x.jpg", "c/x.png", "é" * 120 + "1.jpg", "é" * 120 + "2.jpg"])
def test_slides_of_images_never_overwrite_each_other(names):
    drawings = [slides.slide_path(Path("o"), name) for name in names]
    assert len({str(path) for path in drawings}) == len(names)
    assert all(len(path.name.encode()) < 240 for path in drawings)


ODD = (
    "$x^2$",
    "$\\frac$",
    "50% off",
    "<script>",
    "it's",
    "a\nb",
    "_hidden",
    "",
    "日本",
    "\\n{}",
    "7",
)


def test_unusual_labels_and_file_names(trained, workdir, capsys):
    """Matplotlib reads text between dollar signs as a formula and fails on unknown commands."""
    checkpoint = load(trained.output / "best.pt")
    for start in range(0, len(ODD), 5):
        labels = [*ODD[start : start + 5], *"abcde"][:5]
        checkpoint["vocabulary"]["labels"] = labels
        torch.save(checkpoint, "odd.pt")
        files = [
            workdir / f"data/images/{name}.jpg" for name in ("$\\q$", "a'b", "<b>", "50%d", "a\nb")
        ]
        for file in files:
            shutil.copy(workdir / "data/images/img_00.jpg", file)
        call(sample, files[start // 5], "--checkpoint", "odd.pt", "--output", f"out{start}")
        (drawn,) = (workdir / f"out{start}/slides").iterdir()
        assert drawn.name == f"{files[start // 5].name}.png"
        out = capsys.readouterr().out
        assert all(printable(label) in out for label in labels)


def test_labels_are_drawn_as_they_are_written(tmp_path, monkeypatch):
    """The label $x^2$ is not drawn as "x squared": no text is read as a formula."""
    from matplotlib import text

    read = []
    original = text.Text._preprocess_math
    monkeypatch.setattr(
        text.Text, "_preprocess_math", lambda self, s: read.append(original(self, s)) or read[-1]
    )
    result = {
        "labels": {"$x^2$": 0.9, "b": 0.2},
        "predicted": ["$x^2$"],
        "decided_by": "threshold",
        "most_probable_sets": [{"labels": ["$x^2$"], "probability": 0.5}],
    }
    lettering = choose_fonts(["$x^2$", "b"])
    maps = {"$x^2$": np.zeros((2, 2)), "b": np.ones((1, 3))}
    slides.draw_slide(Image.new("RGB", (30, 20)), result, maps, 8, tmp_path / "a.png", lettering)
    assert (tmp_path / "a.png").exists()
    assert [s for s, math in read if math] == []
