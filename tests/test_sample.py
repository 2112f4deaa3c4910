"""sample.py: its results, the files it writes, unusual names and damaged files."""

import csv
import json
import shutil

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
from PIL import Image

import sample
from inference.predictions import DECISIONS
from report import slides
from util.errors import RunError, UsageError
from util.log import printable


def test_sample_end_to_end(trained):
    command = ("sample.py", "data/images/img_02.jpg", "data/images", "--output", "tagged")
    result = run(*command, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("most probable set:") == 13
    assert result.stdout.startswith("data/images/img_02.jpg\n")
    for line in result.stdout.splitlines():
        if "picture: " in line:
            with Image.open(trained.folder / line.split("picture: ")[1]) as picture:
                picture.verify()
    tagged = trained.folder / "tagged"
    assert len(list(tagged.glob("*_labels.png"))) == 13, "img_02 is given twice: two pictures"
    with Image.open(tagged / "contact_sheet.png") as sheet:
        assert sheet.size == (5 * 240, 3 * 296)
    with (tagged / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tagged / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 13
    for row, line in zip(rows, lines, strict=True):
        assert row["image"] == line["image"]
        assert row["predicted"] == "; ".join(line["predicted"])
        assert all(float(row[k]) == pytest.approx(p, abs=1e-4) for k, p in line["labels"].items())


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
    (workdir / "data/images/bad.jpg").write_text("no image")
    (workdir / "data/images/._img_00.jpg").write_text("written by macOS")
    best = ("--checkpoint", trained.output / "best.pt", "--output", "o")
    call(sample, "data/images", *best)
    assert "bad.jpg cannot be read as an image" in capsys.readouterr().err
    assert len((workdir / "o/labels.jsonl").read_text().splitlines()) == len(LABEL_SETS)
    assert "cannot be read as an image" in refusal(sample, "data/images/bad.jpg", *best)


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


def test_drawings_of_files_never_overwrite_each_other(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "x_2.jpg", "c/x.png", "x_2_2.jpg"]
    drawings = slides.name_drawings([tmp_path / name for name in names], tmp_path)
    assert len(set(drawings)) == len(names)


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
        (drawn,) = (workdir / f"out{start}").iterdir()
        assert drawn.name == f"{files[start // 5].stem}_labels.png"
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
    maps = {"$x^2$": np.zeros((2, 2)), "b": np.ones((1, 3))}
    slides.draw_slide(Image.new("RGB", (30, 20)), result, maps, 8, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert [s for s, math in read if math] == []


def test_the_photo_folder_is_no_output_folder(trained, tmp_path):
    """It may hold the user's own labels.csv."""
    for number in range(2):
        write_picture(tmp_path / f"{number}.jpg", seed=number)
    (tmp_path / "labels.csv").write_text("file_name,labels\n0.jpg,cat\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    flags = ("--output", tmp_path, "--checkpoint", trained.output / "best.pt")
    for images in ((tmp_path,), sorted(tmp_path.glob("*.jpg"))):
        assert "choose another" in refusal(sample, *images, *flags)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
