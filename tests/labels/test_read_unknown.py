"""Label files that do not say of every label whether it is there: what is read, and what stops."""

import json

import pytest
from conftest import write_json, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labels.options import ReadOptions
from labels.read import read_labels
from labels.write import write_table
from util.errors import UsageError

H = "file_name,cat,dog\n"


def read(folder, content, name="t.csv", **options):
    """For each image its labels and its unknown labels, as in "cat dog?"."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return said(read_labels(path, None, ReadOptions(**options)))


def said(images) -> list[str]:
    unknown = images.unknown or [()] * len(images)
    pairs = zip(images.label_sets, unknown, strict=True)
    return [" ".join([*sorted(a), *(f"{label}?" for label in sorted(b))]) for a, b in pairs]


@pytest.mark.parametrize("mark", ["?", "unknown", "Uncertain", "NA", "nan", "null", "None", "n/a"])
def test_cells_that_are_not_known(tmp_path, mark, capsys):
    content = f"{H}a,1,{mark}\nb,0,1\nc,{mark},0\nd,{mark},{mark}\n"
    assert read(tmp_path, content) == ["cat dog?", "dog", "cat?", "cat? dog?"]
    assert "4 cells are read as not known, most of them in 'cat'" in capsys.readouterr().err


def test_a_blank_that_a_program_wrote_follows_the_flag_and_a_question_mark_does_not(tmp_path):
    assert read(tmp_path, f"{H}a,1,NA\nb,0,?\nc,0,1\n", blank="absent") == ["cat", "dog?", "dog"]


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("yes", "no"), ("x", "-"), ("1", "-1")])
def test_blanks_beside_yes_and_no_stop_until_they_are_clear(tmp_path, yes, no):
    content = f"{H}a,{yes},\nb,{no},{yes}\nc,,{yes}\n"
    with pytest.raises(UsageError, match="--blank unknown or --blank absent"):
        read(tmp_path, content)
    assert read(tmp_path, content, blank="unknown") == ["cat dog?", "dog", "dog cat?"]
    assert read(tmp_path, content, blank="absent") == ["cat", "dog", "dog"]


@pytest.mark.parametrize("yes", ["x", "1", "yes"])
@pytest.mark.parametrize("blank", ["", "nan"])
def test_blanks_beside_yes_alone_are_no(tmp_path, yes, blank, capsys):
    content = f"{H}a,{yes},{blank}\nb,{blank},{yes}\n"
    assert read(tmp_path, content) == ["cat", "dog"]
    assert "are read as no, most of them in" in capsys.readouterr().err
    assert read(tmp_path, content, blank="absent") == ["cat", "dog"]
    assert read(tmp_path, content, blank="unknown") == ["cat dog?", "dog cat?"]


def test_minus_one_beside_0_and_1(tmp_path):
    """In CheXpert -1 is not known and 0 is no; in WIDER Attribute -1 is no, and 0 not known."""
    content = f"{H}a,1,-1\nb,0,1\nc,1,0\n"
    with pytest.raises(UsageError, match=r"--unknown -1\), or no, and 0 not known \(--unknown 0"):
        read(tmp_path, content)
    assert read(tmp_path, content, unknown=("-1",)) == ["cat dog?", "dog", "cat"]
    assert read(tmp_path, content, unknown=("0",)) == ["cat", "dog cat?", "cat dog?"]
    assert read(tmp_path, f"{H}a,1,-1\nb,-1,1\n") == ["cat", "dog"]


def test_chexpert(tmp_path):
    """Blank: not mentioned; -1: uncertain. Two questions, two flags."""
    content = f"{H}a,1.0,-1.0\nb,0.0,\nc,1.0,1.0\n"
    with pytest.raises(UsageError, match="--unknown -1"):
        read(tmp_path, content)
    with pytest.raises(UsageError, match="--blank"):
        read(tmp_path, content, unknown=("-1",))
    assert read(tmp_path, content, unknown=("-1",), blank="absent") == ["cat dog?", "", "cat dog"]
    both = read(tmp_path, content, unknown=("-1",), blank="unknown")
    assert both == ["cat dog?", "dog?", "cat dog"]


@pytest.mark.parametrize("code", ["9", "99", "2", "-9"])
def test_codes_of_surveys_stop_until_they_are_named(tmp_path, code):
    content = f"file_name,cat,dog,hat\na,1,{code},0\nb,0,1,1\nc,1,0,0\nd,0,1,0\n"
    with pytest.raises(UsageError, match=f"--unknown ({code}|VALUE)"):
        read(tmp_path, content)
    assert read(tmp_path, content, unknown=(code,)) == ["cat dog?", "dog hat", "cat", "dog"]


def test_rows_of_an_image_know_together(tmp_path):
    content = f"{H}a,?,0\nb,?,1\na,0,?\nb,?,?\n"
    assert read(tmp_path, content) == ["", "dog cat?"]


def test_long_tables(tmp_path):
    """A row for each label: one without a row is as one with a blank cell."""
    content = "image,label,present\na,cat,1\na,dog,0\nb,dog,1\nb,cat,?\nc,cat,1\n"
    with pytest.raises(UsageError, match=r"as of 'dog' on c: not known, or no.*--blank"):
        read(tmp_path, content)
    assert read(tmp_path, content, blank="unknown") == ["cat", "dog cat?", "cat dog?"]
    assert read(tmp_path, content, blank="absent") == ["cat", "dog cat?", "cat"]
    assert read(tmp_path, f"{content}c,dog,0\n") == ["cat", "dog cat?", "cat"]


C = "file_name,labels,{}\na,cat,cat|dog\nb,dog|hat,\nc,,hat|dog\nd,,\n"
CHECKED = ["cat hat?", "dog hat cat?", "cat?", "cat? dog? hat?"]


@pytest.mark.parametrize("name", ["checked_labels", "Verified Labels", "annotated_labels"])
def test_a_column_of_checked_labels(tmp_path, name, capsys):
    assert read(tmp_path, C.format(name)) == CHECKED
    assert f"{name!r} names the labels that were looked for: 6 other" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--label_columns"):
        read(tmp_path, C.format(name), checked_column="none")
    both = read(tmp_path, C.format("looked"), checked_column="looked")
    assert both == CHECKED


def test_checked_labels_in_json_lines_and_beside_yes_and_no(tmp_path):
    rows = [
        {"file_name": "a", "labels": ["cat"], "checked_labels": ["cat", "dog"]},
        {"file_name": "b", "labels": ["dog", "hat"]},
        {"file_name": "c", "labels": [], "checked_labels": ["hat", "dog"]},
        {"file_name": "d", "labels": [], "checked_labels": []},
    ]
    assert read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl") == CHECKED
    content = "file_name,cat,dog,checked\na,1,0,cat|dog\nb,0,1,dog\nc,0,0,cat|dog\n"
    assert read(tmp_path, content) == ["cat", "dog cat?", ""]


def test_a_column_that_may_be_checked_labels_or_better_ones(tmp_path):
    content = "file_name,labels,verified_labels\na,cat|dog,cat\nb,dog,dog\nc,dog|cat,\n"
    with pytest.raises(UsageError, match=r"--checked_column verified_labels\), or .*none"):
        read(tmp_path, content)
    better = {"checked_column": "none", "label_columns": ("verified_labels",)}
    assert read(tmp_path, content, **better) == ["cat", "dog", ""]
    with pytest.raises(UsageError, match="no column 'seen'"):
        read(tmp_path, content, checked_column="seen")


def test_other_columns_called_checked_are_no_labels(tmp_path):
    content = "file_name,labels,checked\na,cat,by Ann\nb,dog,by Bob\n"
    assert read(tmp_path, content) == ["cat", "dog"]


def test_a_mapping_that_lacks_labels(tmp_path):
    rows = [{"file_name": "a", "labels": {"cat": 1, "dog": 0}}]
    rows += [{"file_name": "b", "labels": {"dog": 1}}, {"file_name": "c", "labels": {"cat": 1}}]
    content = "\n".join(map(json.dumps, rows))
    assert read(tmp_path, content, "t.jsonl") == ["cat", "dog cat?", "cat dog?"]
    flat = [{"file_name": row["file_name"]} | row["labels"] for row in rows]
    with pytest.raises(UsageError, match=r"2 blank cells beside 0 and 1.*--blank"):
        read(tmp_path, "\n".join(map(json.dumps, flat)), "t.jsonl")


def test_a_file_of_checked_labels(tmp_path, capsys):
    for name in ("cat/a.jpg", "dog/b.jpg", "dog/c.jpg"):
        (tmp_path / "im" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "im" / name).write_bytes(b"")
    path = tmp_path / "checked.csv"
    for content in (
        "image,label\ncat/a.jpg,dog\ndog/b.jpg,cat\n",
        "image,labels\ncat/a.jpg,cat|dog\ndog/b.jpg,cat\n",
    ):
        path.write_text(content)
        images = read_labels(tmp_path / "im", tmp_path / "im", ReadOptions(checked=path))
        assert dict(zip(images.file_names, said(images), strict=True)) == {
            "cat/a.jpg": "cat",
            "dog/b.jpg": "dog",
            "dog/c.jpg": "dog cat?",
        }
    assert "2 images have labels that were looked for" in capsys.readouterr().err
    path.write_text("image,label\nlost.jpg,dog\n")
    with pytest.raises(UsageError, match=r"names 'lost\.jpg'"):
        read_labels(tmp_path / "im", tmp_path / "im", ReadOptions(checked=path))


@pytest.mark.parametrize("file_names", [True, False], ids=["file_name", "coco_url"])
def test_lvis(tmp_path, file_names):
    def image(number, absent):
        url = f"http://x/val/{number}.jpg"
        name = {"file_name": f"{number}.jpg"} if file_names else {"coco_url": url}
        return {"id": number, "neg_category_ids": absent, "not_exhaustive_category_ids": [], **name}

    content = {
        "images": [image(1, [2]), image(2, []), image(3, [3, 1])],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("cat", "dog", "hat"), 1)],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 3, "category_id": 2}],
    }
    assert read(tmp_path, content, "t.json") == ["cat hat?", "cat? dog? hat?", "dog"]
    assert read(tmp_path, content, "t.json", blank="absent") == ["cat", "", "dog"]


def test_open_images(tmp_path):
    content = "ImageID,Source,LabelName,Confidence\na,v,cat,1\na,v,dog,0\nb,v,hat,1\n"
    assert read(tmp_path, content) == ["cat hat?", "hat cat? dog?"]
    assert read(tmp_path, content, blank="absent") == ["cat", "hat"]
    ones = content.replace("dog,0", "dog,1")
    assert read(tmp_path, ones) == ["cat dog", "hat"]
    assert read(tmp_path, ones, blank="unknown") == ["cat dog hat?", "hat cat? dog?"]


def test_a_table_of_annotate(tmp_path, capsys):
    """Nobody looked at d.jpg; c.jpg was confirmed to have no label."""
    content = "file_name,labels,verified\na.jpg,cat,\nb.jpg,dog,yes\nc.jpg,,yes\nd.jpg,,\n"
    assert read(tmp_path, content) == ["cat", "dog", "", "cat? dog?"]
    err = capsys.readouterr().err
    assert "1 row without labels and not verified is not annotated; see --blank" in err
    assert "not used" not in err, "the column is used"
    assert read(tmp_path, content, blank="absent") == ["cat", "dog", "", ""]
    nobody = content.replace("yes", "")
    assert read(tmp_path, nobody) == ["cat", "dog", "cat? dog?", "cat? dog?"]


def test_cells_of_labels_are_blank_only_if_the_user_says_so(tmp_path):
    content = "file_name,labels\na,cat|dog\nb,\nc,dog\n"
    assert read(tmp_path, content) == ["cat dog", "", "dog"]
    assert read(tmp_path, content, blank="unknown") == ["cat dog", "cat? dog?", "dog"]


def test_splits_in_folders_keep_unknown_labels(tmp_path):
    for split, rows in (("train", "a,1,?\nb,0,1\n"), ("valid", "c,1,0\nd,?,1\n")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text("filename,cat,dog\n" + rows)
    images = read_labels(tmp_path)
    assert images.of_split("val").unknown == [(), ("cat",)]
    assert said(images) == ["cat dog?", "dog", "cat", "dog cat?"]
    parts = {"train": {"neg_category_ids": [2]}, "valid": {}}
    for split, more in parts.items():
        (tmp_path / split / "_classes.csv").unlink()
        content = {
            "images": [{"id": 1, "file_name": f"{split}.jpg", **more}],
            "categories": [{"id": i, "name": n} for i, n in enumerate(("cat", "dog", "hat"), 1)],
            "annotations": [{"image_id": 1, "category_id": 1}],
        }
        write_json(content, tmp_path / split / "_annotations.coco.json")
    assert said(read_labels(tmp_path)) == ["cat hat?", "cat"]


STATES = {"yes": ("1", "yes", "TRUE"), "no": ("0", "no", "FALSE"), "unknown": ("?",)}
LABELS = ("cat", "dog", "hat", "sea")
TABLES = st.lists(st.tuples(*[st.sampled_from([*STATES])] * 4), min_size=2, max_size=12)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def expected(rows) -> list[str]:
    marks = {"yes": "{}", "unknown": "{}?"}
    return [
        " ".join(
            marks[kind].format(label)
            for kind in marks
            for label, state in zip(LABELS, row, strict=True)
            if state == kind
        )
        for row in rows
    ]


@given(TABLES, st.integers(0, 2), st.sampled_from(["?", "unknown", "NA", "", "-1"]))
@FEW
def test_yes_no_and_unknown_in_columns(tmp_path_factory, rows, words, mark):
    states = {state for row in rows for state in row}
    if "no" not in states or "yes" not in states:
        return
    options = {"": {"blank": "unknown"}, "-1": {"unknown": ("-1",)}}.get(mark, {})
    word = {state: some[words % len(some)] for state, some in STATES.items()} | {"unknown": mark}
    lines = [",".join([f"{i}.jpg", *(word[s] for s in row)]) for i, row in enumerate(rows)]
    content = "\n".join([",".join(["file_name", *LABELS]), *lines])
    columns = {"label_columns": LABELS}  # one may be all unknown
    found = read(tmp_path_factory.mktemp("t"), content, **columns, **options)
    assert found == expected(rows)


@given(TABLES, st.booleans())
@FEW
def test_what_is_written_is_read(tmp_path_factory, rows, splits):
    """A table of write.py with a column of the labels that are known."""
    path = tmp_path_factory.mktemp("t") / "t.csv"

    def having(*states) -> list[tuple[str, ...]]:
        pairs = [zip(LABELS, row, strict=True) for row in rows]
        return [tuple(label for label, state in each if state in states) for each in pairs]

    names = [f"{i}.jpg" for i in range(len(rows))]
    said_splits = ["train", *["val"] * (len(rows) - 1)] if splits else None
    write_table(path, names, having("yes"), said_splits, checked=having("yes", "no"))
    images = read_labels(path)
    assert (images.file_names, images.splits) == (names, said_splits)
    named = {*images.categories}  # a label that is unknown everywhere has no name in the table
    right = [" ".join(x for x in text.split() if x.strip("?") in named) for text in expected(rows)]
    assert said(images) == right


def test_blank_unknown_without_anything_open_is_said(tmp_path, capsys):
    """Folders of labels cannot leave a label open: the flag does nothing there."""
    for name in ("cat", "dog"):
        write_picture(tmp_path / "photos" / name / f"{name}.jpg")
    images = read_labels(tmp_path / "photos", options=ReadOptions(blank="unknown"))
    assert images.unknown is None
    assert "note: --blank unknown changes nothing" in capsys.readouterr().err
