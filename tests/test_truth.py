"""sample.py --annotations, and with several checkpoints: true labels beside the predicted ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LABEL_SETS, RANKED, call, load, refusal, write_picture, write_table
from formats import as_nuswide
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import sample
from images.lookup import find_entries
from labels.annotated import AnnotatedImages
from report.side_by_side import columns_of
from report.truth import KINDS, Truth, kind_of, no_label
from util.errors import UsageError
from util.marked import is_marked

INSTANCES = "data/annotations/instances.json"
PHOTO = "data/images/img_02.jpg"


@pytest.fixture
def two(trained, workdir) -> list[Path]:
    """The checkpoint, and a copy that calls "dog" "hound"; both in folders of runs/."""
    checkpoint = load(trained.output / "best.pt")
    paths = [workdir / f"runs/{name}/best.pt" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir(parents=True)
        torch.save(checkpoint, path)
        labels = checkpoint["vocabulary"]["labels"]
        checkpoint["vocabulary"]["labels"] = ["hound" if x == "dog" else x for x in labels]
    return paths


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


labels = st.lists(st.sampled_from("abcdef"), unique=True)


@given(labels, labels)
def test_every_label_has_one_kind(true, predicted):
    known = dict.fromkeys("abcd", 0.5)
    predicted = [label for label in predicted if label in known]
    truth = Truth({"photo": tuple(true)})
    found = truth.beside("photo", {"labels": known, "predicted": predicted})
    assert {*found["true"]} == {*true}
    assert found["right"] == [label for label in predicted if label in true]
    assert {*found["added"]} == {*predicted} - {*true}
    assert {*found["missed"]} == {*true} & {*known} - {*predicted}
    assert {*found["not_known"]} == {*true} - {*known}
    assert sum(len(found[kind]) for kind in KINDS) == len({*true, *predicted})
    assert truth.beside("other", {"predicted": []}) == {"predicted": [], "true": None}
    assert Truth().beside("photo", {"predicted": []}) == {"predicted": []}


def test_a_label_that_the_annotations_leave_open_is_of_no_kind():
    """It is not added; in the columns of several models it is a prediction without a sign."""
    result = {"labels": dict.fromkeys("abcd", 0.7), "predicted": ["a", "b", "c"]}
    truth = Truth({"photo": ("a",), "empty": ()}, None, {"photo": ("b", "z"), "empty": ("a", "b")})
    found = truth.beside("photo", result)
    assert (found["right"], found["added"], found["unknown"]) == (["a"], ["c"], ["b"])
    assert kind_of("b", found) is None
    tags, predicted = (cells for _, cells in columns_of(found))
    assert tags == [("right", "a", ""), None, None]
    assert predicted == [("right", "a", "70%"), (None, "b", "70%"), ("added", "c", "70%")]
    empty = truth.beside("empty", result)
    assert no_label(empty) == "none is known"
    assert columns_of(empty)[0][1][0] == (None, None, "none is known")
    assert "unknown" not in Truth({"photo": ("a",)}).beside("photo", result)


def entries(root: Path, photos: list[str], names: list[str]) -> dict[str, str]:
    for photo in photos:
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_text(photo)
    rows = find_entries(root, photos, AnnotatedImages("labels", names, [()] * len(names), []))
    return {photo: names[row] for photo, row in rows.items()}


def test_entries_of_photos(tmp_path, capsys):
    names = ["1.jpg", "a/1.jpg", "a/2.JPG", "/home/me/set/b/3.jpg", "4"]
    photos = ["1.jpg", "a/1.jpg", "a/2.jpg", "b/3.jpg", "4.png", "5.jpg"]
    assert entries(tmp_path, photos, names) == dict(zip(photos, names, strict=False))
    err = capsys.readouterr().err
    assert "note: 3 of 5 photos have another path in labels" in err
    assert "a/2.jpg is taken for 'a/2.JPG'" in err


def test_a_name_that_may_mean_the_file_in_the_folder_above(tmp_path, capsys):
    write_picture(tmp_path / "7.jpg")
    assert entries(tmp_path / "new", ["7.jpg"], ["7.jpg"]) == {"7.jpg": "7.jpg"}
    assert "new/7.jpg is taken for '7.jpg'" in capsys.readouterr().err


def test_photos_of_other_folders_are_not_mixed_up(tmp_path):
    assert entries(tmp_path, ["dog/1.jpg"], ["cat/1.jpg", "dog/2.jpg"]) == {}
    assert entries(tmp_path, ["test/1.jpg"], ["train/1.jpg"]) == {}
    write_picture(tmp_path / "cat/3.jpg")
    assert entries(tmp_path, ["x/3.jpg"], ["cat/3.jpg"]) == {}, "that is another file"
    assert entries(tmp_path, ["y/4.jpg"], ["cat/4.jpg"]) == {"y/4.jpg": "cat/4.jpg"}
    assert entries(tmp_path, ["5.jpg", "y/5.jpg"], ["5.jpg"]) == {"5.jpg": "5.jpg"}
    with pytest.raises(UsageError, match=r"5\.jpg could be 'cat/5\.jpg', 'dog/5\.jpg' of labels"):
        entries(tmp_path, ["5.jpg"], ["cat/5.jpg", "dog/5.jpg"])
    with pytest.raises(UsageError, match=r"x/6\.jpg, y/6\.jpg would all be '6\.jpg' of labels"):
        entries(tmp_path, ["x/6.jpg", "y/6.jpg"], ["6.jpg"])


def test_one_model(two, capsys):
    """The model that says hound: dog is not known to it."""
    flags = ("--checkpoint", two[1], "--annotations", INSTANCES, "--decide", "label_f1")
    call(sample, PHOTO, *flags, "--json")
    (result,) = lines(capsys)
    assert {*result["true"]} == {"person", "dog", "cat"}
    assert result["not_known"] == ["dog"]
    assert {*result["right"], *result["missed"]} == {"person", "cat"}
    assert {*result["right"], *result["added"]} == {*result["predicted"]}
    call(sample, PHOTO, *flags, "--top", 1)
    text = capsys.readouterr()
    assert "= right   - missed   + added   ? not known to the model" in text.err
    signs = {line[4:].split()[0]: line[2] for line in text.out.splitlines()[1:-2]}
    for kind, sign in zip(KINDS, "=-+?", strict=True):
        assert {label for label in signs if signs[label] == sign} == {*result[kind]}
    assert is_marked("samples/slides/img_02.jpg.png")


def test_a_folder_with_its_truth(two, workdir, capsys):
    names = [f"img_{i:02d}.jpg" for i in range(2, 12)]
    rows = [[name, "|".join(LABEL_SETS[i])] for i, name in enumerate(names, 2)]
    table = write_table(workdir, ["file_name", "labels"], rows)
    flags = ("--checkpoint", two[0], "--annotations", table, "--separator", "|")
    call(sample, "data/images", *flags, "--output", "o", "--num_slides", 1)
    assert "lacks 2 of the 12 photos; they get no true labels: img_00" in capsys.readouterr().err
    for i, line in enumerate(Path("o/predictions.jsonl").read_text().splitlines()):
        true = json.loads(line)["true"]
        assert true is None if i < 2 else {*true} == {*LABEL_SETS[i]}
    again = ("data/images", "--output", "o", "--checkpoint", two[0], "--num_slides", 1)
    assert f"with --annotations {table}: choose another" in refusal(sample, *again)
    call(sample, "data/images", *flags, "--output", "o", "--num_slides", 1)
    write_table(workdir, ["file_name", "labels"], [*rows[:-1], [names[-1], "cat"]])
    found = refusal(sample, *again, *flags[2:])
    assert "the true labels that --annotations had then: choose another --output" in found


def test_slides_of_several_models_are_drawn_again_for_one(two):
    widths = []
    for checkpoints in (two, two[1:]):
        call(sample, "data/images", "--num_slides", 1, "--checkpoint", *checkpoints)
        with Image.open("samples/images/slides/img_00.jpg.png") as slide:
            widths.append(slide.width)
    assert widths == [1078, 1100]


def test_two_models(two, workdir, capsys):
    call(sample, "data/images", "--checkpoint", *two, "--annotations", INSTANCES, "--json")
    for i, result in enumerate(lines(capsys)):
        assert result["image"] == f"data/images/img_{i:02d}.jpg"
        one, other = result["models"]
        assert (one["model"], other["model"]) == ("one", "two")
        assert other["checkpoint"] == str(two[1])
        assert {*one["true"]} == {*other["true"]} == {*LABEL_SETS[i]}
        assert one["labels"]["dog"] == other["labels"]["hound"]
        assert other["not_known"] == ["dog"] * ("dog" in LABEL_SETS[i])
    call(sample, "data/images", "--checkpoint", *two, "--annotations", INSTANCES)
    out = capsys.readouterr().out
    assert out.count("Tags (5 labels)   Prediction (5 labels)") == 2 * 12
    assert "? dog" in out
    assert {path.name for path in Path("samples/images").iterdir()} == {"slides"}
    slides = list(Path("samples/images/slides").iterdir())
    assert len(slides) == 12
    assert all(map(is_marked, slides))


def test_two_models_without_truth(two, capsys):
    call(sample, PHOTO, "--checkpoint", *two, "--output", "o")
    out = capsys.readouterr().out
    assert "Prediction (5 labels)   Prediction (5 labels)" in out
    assert "Tags" not in out
    assert is_marked("o/slides/img_02.jpg.png")


def test_files_of_the_user_are_not_replaced(two):
    slide = Path("o/slides/img_02.jpg.png")
    write_picture(slide.with_suffix(".jpg")).rename(slide)
    assert "was not drawn by" in refusal(sample, PHOTO, "--checkpoint", *two, "--output", "o")
    call(sample, "data/images", "--checkpoint", two[0], "--output", "p", "--num_slides", 0)
    found = refusal(sample, "data/images", "--checkpoint", *two, "--output", "p")
    assert "p has the predictions of a folder" in found


def test_nuswide(two, workdir, capsys):
    """The folder has the concepts, NUS_WID_Tags the tags; here the tags are one label later."""
    for path in sorted(Path("data/images").iterdir()):
        Path("nus/Flickr/x").mkdir(parents=True, exist_ok=True)
        path.rename(Path("nus/Flickr/x") / path.name)
    root = as_nuswide(workdir / "nus")
    later = dict(zip(RANKED, [*RANKED[1:], RANKED[0]], strict=True))
    tags = root / "NUS_WID_Tags"
    tags.mkdir()
    (tags / "TagList1k.txt").write_text("".join(f"{label}\n" for label in RANKED))
    has = np.array([[label in {later[x] for x in s} for label in RANKED] for s in LABEL_SETS])
    np.savetxt(tags / "AllTags1k.txt", has.astype(int), "%d", delimiter="\t")
    flags = ("--checkpoint", *two, "--annotations", root, tags, "--json")
    call(sample, "nus/Flickr", *flags)
    for result, truth in zip(lines(capsys), LABEL_SETS, strict=True):
        concepts, of_tags = result["models"]
        assert {*concepts["true"]} == {*truth}
        assert {*of_tags["true"]} == {later[label] for label in truth}
    call(sample, "nus/Flickr/x/img_02.jpg", *flags)
    assert {*lines(capsys)[0]["models"][0]["true"]} == {*LABEL_SETS[2]}


def test_normalised_and_other_spellings(two, workdir, capsys):
    rows = [["img_02.jpg", "Cats|Person"]]
    table = write_table(workdir, ["file_name", "labels"], rows)
    flags = (PHOTO, "--annotations", table, "--separator", "|", "--json", "--checkpoint")
    assert "label 'Person', but the training images have 'person'" in refusal(
        sample, *flags, two[0]
    )
    Path("merge.csv").write_text("from,to\nPerson,person\n")
    call(sample, *flags, two[0], "--labels_to_merge", "merge.csv")
    (result,) = lines(capsys)
    assert result["not_known"] == ["Cats"]
    checkpoint = load(two[0])
    checkpoint["vocabulary"]["normalised"] = True
    torch.save(checkpoint, two[0])
    call(sample, *flags, two[0])
    (result,) = lines(capsys)
    assert {*result["true"]} == {"cat", "person"}
    assert result["not_known"] == []


def test_wrong_input(two, workdir):
    best = ("--checkpoint", two[0])
    assert "name an IMAGE, before flags" in refusal(sample, *best, PHOTO)
    assert "--separator is for --annotations" in refusal(sample, PHOTO, *best, "--separator", "|")
    several = ("--annotations", INSTANCES, INSTANCES)
    assert "--annotations has 2 paths and --checkpoint 1" in refusal(sample, PHOTO, *best, *several)
    assert "cannot read absent.json" in refusal(
        sample, PHOTO, *best, "--annotations", "absent.json"
    )
    write_picture(workdir / "more/new.jpg")
    of_set = (*best, "--annotations", INSTANCES)
    assert "instances.json lacks more/new.jpg" in refusal(sample, "more/new.jpg", *of_set)
    assert "lacks all photos in more" in refusal(sample, "more", *of_set)
    with Path("other.csv").open("w") as file:
        csv.writer(file).writerows([["file_name", "labels"], ["img_02.jpg", "harbour"]])
    found = refusal(sample, PHOTO, *best, "--annotations", "other.csv", "--separator", "none")
    assert "'harbour', and no label that the model knows: person, cat" in found
