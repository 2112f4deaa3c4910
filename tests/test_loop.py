"""Tag, look, correct, train again: the loop of README.md, on 150 photos and a messy table.

The commands are a user's, the models are tiny. Most commands run once; the tests look at what they
printed and wrote.
"""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import call, load, refusal, run, write_picture, write_table
from messy_photos import GONE, NUM_NEW, Messy, make_messy_set

import data_loader
import train
from labels import write
from labels.options import ReadOptions
from labels.read import read_labels
from report.inputs import list_inputs
from util import files
from util.errors import UsageError

TINY = ("--image_size", 32, "--num_epochs", 1, "--batch_size", 32, "--num_workers", 0)
TINY += ("--arch", "test_resnet")
PHOTOS, NEW = ("--image_path", "photos"), ("--image_path", "new photos")
MERGE = ("--labels_to_merge", "labels_to_merge.csv")
SKIP = "--skip_bad_images"
CORRECTED = "labels.corrected.csv"
PREDICTED = "samples/new photos/predictions.csv"
FAIL = {"look": 2}  # commands that end with an error, as the README says


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """The data set, its bytes at the start, and each command's result by the name of its step."""
    folder = tmp_path_factory.mktemp("loop")
    mine = make_messy_set(folder)
    before, done = contents(folder), {}

    def step(name: str, script: str, *flags: object) -> None:
        done[name] = run(script, *flags, cwd=folder)
        assert done[name].returncode == FAIL.get(name, 0), done[name].stderr

    step("look", "data_loader.py", *PHOTOS)
    step("train", "train.py", *PHOTOS, *TINY, SKIP, *MERGE)
    step("report", "evaluate.py", "--report", "--num_workers", 0)
    issues = ("--label_issues", 20, "--split", "all", "--num_samples", 16)
    step("issues", "evaluate.py", *issues, "--num_workers", 0)
    correct_labels(mine, folder)
    again = (*PHOTOS, "--annotations", CORRECTED, *TINY, SKIP)
    step("again", "train.py", *again)
    step("start_from", "train.py", *again, "--start_from", "runs/photos-chain", "--seed", 1)
    step("tag", "sample.py", "new photos", "--num_slides", 2, "--num_workers", 0)
    step("limit", "train.py", *NEW, "--annotations", PREDICTED, *TINY, "--limit", 20)
    yield SimpleNamespace(folder=folder, mine=mine, before=before, done=done)
    for path in folder.rglob("*.pt"):
        path.unlink()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def correct_labels(mine: Messy, folder: Path) -> None:
    """Write what the page of label issues saves, with all planted errors put right."""
    images = read_labels(mine.table, mine.photos, ReadOptions(merge=folder / MERGE[1]))
    label_sets = list(images.label_sets)
    for i, name in enumerate(images.file_names):
        if planted := [wrong for wrong in mine.wrong if name.endswith(wrong)]:
            label_sets[i] = mine.truth[planted[0]]
    write.write_table(folder / CORRECTED, images.file_names, label_sets)


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "cp1252"), (",", "utf-8-sig")])
def test_a_table_in_another_encoding_says_the_same(tmp_path, delimiter, encoding):
    mine = make_messy_set(tmp_path, delimiter, encoding)
    misspelt, usual = mine.misspelt
    images = read_labels(mine.table, mine.photos)
    found = dict(zip(map(Path, images.file_names), images.label_sets, strict=True))
    assert len(found) == len(mine.truth) - len(mine.unlisted) + len(GONE)
    for name in mine.truth.keys() - mine.unlisted:
        places = (name, mine.photos.resolve() / name, f"C:/Users/Jörg/Bilder/{name}")
        labels = next(found[Path(place)] for place in places if Path(place) in found)
        said = () if name in mine.unlabelled else mine.wrong.get(name, mine.truth[name])
        assert {x.lower().replace(misspelt, usual) for x in labels} == {*said}


def test_the_table_is_described(loop):
    """Each kind of mess is named."""
    look, mine = loop.done["look"], loop.mine
    said = look.stderr
    assert "labels are separated by ','" in said
    assert "file names in 'Photo', labels in 'Tags'; not used: Remarks" in said
    assert f"{len(mine.unlisted)} pictures in photos that photos/labels.csv does not list" in said
    assert f"{len(mine.unlabelled)} without" in said
    assert f"{len(GONE)} of the 149 images of photos/labels.csv are not under photos" in said
    assert "remove their rows, or train with --skip_bad_images" in said
    for name in mine.unreadable:
        assert f"photos/{name} cannot be read" in said
    assert said.count("differ from the files' paths") == 1
    listed = (loop.folder / "missing_images.txt").read_text().splitlines()
    assert listed == list(GONE)
    merges = dict(csv.reader((loop.folder / MERGE[1]).read_text("utf-8-sig").splitlines()))
    assert merges.pop("from") == "to"
    misspelt, usual = mine.misspelt
    assert merges[misspelt] == usual
    for old, new in merges.items():
        assert old != new
        assert old.lower() in (new, misspelt)


def test_training_stops_and_says_how_to_go_on(loop, monkeypatch):
    monkeypatch.chdir(loop.folder)
    error = refusal(train, *PHOTOS, *TINY)
    assert error.startswith(f"{len(GONE)} of the 144 images of photos/labels.csv")
    assert "--skip_bad_images" in error


def test_training_skips_what_cannot_be_used(loop):
    said = loop.done["train"].stderr
    for name in (*loop.mine.unreadable, *GONE):
        assert said.count(f"photos/{name}") == 1
    assert "6 images could not be read and were left out" in said
    labels = load(loop.folder / "runs/photos-chain/best.pt")["vocabulary"]["labels"]
    known = {label for labels in loop.mine.truth.values() for label in labels}
    assert {*labels} <= known


def test_evaluation_takes_the_hold_out(loop):
    said = loop.done["report"].stderr
    run_folder = loop.folder / "runs/photos-chain"
    held_out = load(run_folder / "best.pt")["held_out"]
    assert f"evaluating the hold-out of photos/labels.csv: {len(held_out)} images" in said
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["split"] == "hold-out"
    assert (run_folder / "report.html").is_file()
    assert "\npredicted sets " in loop.done["report"].stdout


def test_label_issues_are_listed(loop):
    folder = loop.folder / "runs/photos-chain/all"
    assert "--folds 5 finds more" in loop.done["issues"].stderr
    assert len(json.loads((folder / "metrics.json").read_text())["label_issues"]) == 20
    assert len((folder / "label_issues.csv").read_text("utf-8-sig").splitlines()) == 21
    page = (folder / "label_issues.html").read_text()
    assert CORRECTED in page


def test_corrected_labels_start_a_new_run(loop):
    said = loop.done["again"].stderr
    wrong = sum(name not in loop.mine.unreadable for name in loop.mine.wrong)
    assert f"labels on {wrong} photos changed" in said
    assert "a new run in runs/photos-chain-2" in said
    for run_folder in ("photos-chain", "photos-chain-2"):
        assert (loop.folder / "runs" / run_folder / "best.pt").is_file()


def test_a_run_can_start_from_another(loop):
    said = loop.done["start_from"].stderr
    assert "starting from runs/photos-chain/best.pt (epoch 1)" in said
    assert (loop.folder / "runs/photos-chain-3/best.pt").is_file()


def test_new_photos_are_tagged(loop):
    said = loop.done["tag"].stderr
    damaged = next(iter(loop.mine.new_truth))
    assert f"{damaged} cannot be read" in said
    with (loop.folder / PREDICTED).open(encoding="utf-8-sig", newline="") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted({*loop.mine.new_truth} - {damaged})
    assert len(names) == NUM_NEW - 1
    assert len([*(loop.folder / "samples/new photos/slides").rglob("*.png")]) == 2


def test_predictions_are_labels(loop, monkeypatch, capsys):
    monkeypatch.chdir(loop.folder)
    labelled = sum(map(bool, read_labels(Path(PREDICTED)).label_sets))
    call(data_loader, *NEW, "--annotations", PREDICTED)
    assert capsys.readouterr().out.startswith(f"{labelled} images, ")
    assert "the first 20 are used" in loop.done["limit"].stderr
    assert (loop.folder / "runs/new photos-chain/best.pt").is_file()


def test_nothing_of_the_user_is_changed(loop):
    after = contents(loop.folder)
    assert {path: after.get(path) for path in loop.before} == loop.before
    added = {path.relative_to(loop.folder).parts[0] for path in after if path not in loop.before}
    lists = {"missing_images.txt", MERGE[1], CORRECTED}
    assert added == {"runs", "samples", *lists}


def test_no_unannounced_error(loop):
    for name, result in loop.done.items():
        assert "Traceback" not in result.stderr, result.stderr
        assert "Warning" not in result.stderr, result.stderr
        errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == (name in FAIL), result.stderr


# --- sets of which nothing can be used ------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with two pictures, a.jpg and b.heic (of no content), as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    monkeypatch.setattr(files, "PICTURE_SUFFIXES", frozenset(files.DECODED.split()))
    write_picture(tmp_path / "mine/a.jpg")
    return tmp_path / "mine"


@pytest.mark.parametrize("script", [data_loader, train])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("x.jpg", "cat"), ("y.jpg", "dog")], "name the folder of the images with --image_path"),
        ([("a.jpg", ""), ("b.heic", " ")], "label"),
        ([("b.heic", "cat"), ("c.heic", "dog")], "convert it to JPEG, or install pillow-heif"),
    ],
    ids=["all missing", "no labels", "only HEIC"],
)
def test_nothing_can_be_used(own, script, rows, expected):
    for name in ("b.heic", "c.heic"):
        (own / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    write_table(own, ["file", "labels"], rows)
    flags = ("--image_path", "mine", "--num_workers", 0)
    assert expected in refusal(script, *flags, *(TINY if script is train else ()))


def test_a_folder_of_heic_photos_without_pillow_heif(own):
    (own / "a.jpg").rename(own / "a.heic")
    with pytest.raises(UsageError, match="left out: convert them to JPEG or install pillow-heif"):
        list_inputs([own])
