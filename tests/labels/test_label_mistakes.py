"""Mistakes of users and attacks of strangers: each is read, or refused in one sentence."""

import contextlib
import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from conftest import coco, write_json, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st

from images.find import find_images
from labels.options import ReadOptions
from labels.read import read_labels
from labels.search import find_labels
from labels.text import folded
from util.errors import UsageError


def written(folder: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EXPECTED = [("a.jpg", ("cat", "traffic light")), ("b.jpg", ()), ("c.jpg", ("dog",))]
VARIANTS = {
    "plain": "file_name,labels\na.jpg,cat|traffic light\nb.jpg,\nc.jpg,dog\n",
    "windows": "file_name,labels\r\na.jpg,cat|traffic light\r\nb.jpg,\r\nc.jpg,dog\r\n",
    "old mac": "file_name,labels\ra.jpg,cat|traffic light\rb.jpg,\rc.jpg,dog\r",
    "bom": "\ufefffile_name,labels\na.jpg,cat|traffic light\nb.jpg,\nc.jpg,dog",
    "utf-16": "file_name\tlabels\na.jpg\tcat|traffic light\nb.jpg\t\nc.jpg\tdog".encode("utf-16"),
    "excel in Europe": "Filename;Labels\na.jpg;cat,traffic light\nb.jpg;\nc.jpg;dog\n",
    "tab": "image\ttags\na.jpg\tcat;traffic light\nb.jpg\t\nc.jpg\tdog\n",
    "quoted": 'file_name,labels\n"a.jpg","cat,traffic light"\n"b.jpg",""\n"c.jpg","dog"\n',
    "spaces": " file_name , labels \n a.jpg , cat |  traffic  light \n b.jpg , \n c.jpg , dog \n",
    "empty labels": "file_name,labels\na.jpg,|cat||traffic light|\nb.jpg, | \nc.jpg,dog|\n",
    "empty rows": "\nfile_name,labels\n\na.jpg,cat|traffic light\n,\nb.jpg\nc.jpg,dog\n\n",
    "empty cells": "file_name,labels,,\na.jpg,cat|traffic light,,\nb.jpg,,,\nc.jpg,dog,,\n",
    "a row a label": "file,label\na.jpg,cat\na.jpg,traffic light\nb.jpg,\nc.jpg,dog\nc.jpg,dog\n",
    "0 and 1": "file_name,cat,dog,traffic light\na.jpg,1,0,1\nb.jpg,0,0,no\nc.jpg,False,TRUE,0.0\n",
    "other columns": "file_name,width,labels\na.jpg,9,cat|traffic light\nb.jpg,,\nc.jpg,7,dog\n",
    "pandas": "file_name,labels\na.jpg,\"['cat', 'traffic light']\"\nb.jpg,[]\nc.jpg,['dog']\n",
    "windows paths": "file_name,labels\n.\\a.jpg,cat|traffic light\nb.jpg,\nc.jpg,dog\n",
}


@pytest.mark.parametrize("content", VARIANTS.values(), ids=VARIANTS)
def test_variants_are_read(tmp_path, content):
    images = read_labels(written(tmp_path, content), tmp_path)
    names = [name.removeprefix("./") for name in images.file_names]
    assert list(zip(names, images.label_sets, strict=True)) == EXPECTED
    assert images.categories == ["cat", "dog", "traffic light"]


H = "file_name,labels\n"
REFUSED = {
    "no header": ("a.jpg,cat\nb.jpg,dog\n", r"has no header.*file_name,labels"),
    "wrong separator": ("file_name:labels\na.jpg:cat\n", r"has no column file_name.*comma"),
    "other header": ("name,labels\na,cat\n", r"has no column file_name"),
    "one column": ("file_name\na.jpg\n", "has no column of labels"),
    "no labels": ("file_name,split\na.jpg,train\n", "has no column of labels"),
    "only a header": (H, "lists no images"),
    "empty": ("", "is empty"),
    "two columns": ("file_name,labels,labels\n", "two columns 'labels'"),
    "too many cells": (f"{H}a.jpg,cat,dog\n", r"row 2, has 3 cells, its header 2.*quotes"),
    "no name": (f"{H}a.jpg,cat\n ,dog\n", r"row 3, has no file_name"),
    "quote": (f'{H}a.jpg,"cat\nb.jpg,dog\n', r"row 2, cannot be read.*double quote missing"),
    "long": (f'{H}a.jpg,"{"x" * 140_000}"\n', r"row 2.*131,072"),
    "nul": (f"{H}a.jpg,c\0at\n", "is not a text file"),
    "greek": (f"{H}a.jpg,\u03b3\u03ac\u03c4\u03b1\n".encode("cp1253"), r"row 2, is not UTF-8"),
    "2 in a column": ("file_name,cat,dog\na.jpg,1,2\n", r"row 2, has '2' in the column 'dog'"),
    "split": ("file_name,labels,split\na.jpg,cat,\n", r"row 2, has split ''.*train, val or test"),
    "two splits": (
        "file_name,labels,split\na.jpg,cat,test\na.jpg,dog,train\n",
        r"row 3, puts a\.jpg in train, another row in test",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        read_labels(written(tmp_path, content), tmp_path)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED_JSONL = {
    "list": ('{"file_name": "a.jpg", "labels": ["cat"]}\n[1]\n', "row 2, is not a JSON object"),
    "number": ('{"file_name": "a.jpg", "labels": ["cat", 7]}\n', "row 1, has labels"),
    "half": ('{"file_name": "a.jpg", "labels": ["\\ud800"]}\n', "row 1, has labels"),
    "name": ('{"file_name": 7, "labels": []}\n', "row 1, has no file_name"),
}


@pytest.mark.parametrize(("content", "sentence"), REFUSED_JSONL.values(), ids=REFUSED_JSONL)
def test_jsonl_refused(tmp_path, content, sentence):
    with pytest.raises(UsageError, match=sentence):
        read_labels(written(tmp_path, content, "labels.jsonl"), tmp_path)


def test_how_labels_are_separated(tmp_path, capsys):
    text = 'file_name;labels\na.jpg;"""cat, wild"",dog"\nb.jpg;dog\n'
    assert read_labels(written(tmp_path, text)).label_sets == [("cat, wild", "dog"), ("dog",)]
    assert "labels are separated by ','" in capsys.readouterr().err
    slash = written(tmp_path, "file_name,labels\na.jpg,cat/dog\nb.jpg,dog\nc.jpg,cat\n")
    with pytest.raises(UsageError, match=r"--separator none if 'cat/dog' is one label.*'/' if"):
        read_labels(slash)
    whole, parts = (ReadOptions(separator=separator) for separator in ("", "/"))
    assert read_labels(slash, None, whole).label_sets[0] == ("cat/dog",)
    assert read_labels(slash, None, parts).label_sets[0] == ("cat", "dog")
    rows = "".join(f"{i}.jpg,{a} {b}\n" for i, (a, b) in enumerate(["ab", "bc", "ca", "ba", "ac"]))
    assert read_labels(written(tmp_path, H + rows)).categories == ["a", "b", "c"]
    assert "separated by spaces" in capsys.readouterr().err
    words = read_labels(written(tmp_path, f"{H}a.jpg,traffic light\nb.jpg,stop sign\n"))
    assert words.categories == ["stop sign", "traffic light"]


def test_names_that_nearly_match_the_files(tmp_path):
    """Other case, missing folders, absolute names in the image folder, the prefix of a tool."""
    for name in ("A.JPG", "sub/b.jpg", "c.jpg", "d.png"):
        write_picture(tmp_path / "photos" / name)
    names = ["a.jpg", f"{tmp_path}/photos/sub/B.jpg", "my/photos/c.jpg", "0a1b2c3d-d.png"]
    rows = "".join(f"{name},cat\n" for name in names)
    photos = tmp_path / "photos"
    images = read_labels(written(photos, H + rows), photos)
    found = [path.relative_to(photos).as_posix() for path in find_images(photos, images)]
    assert found == ["A.JPG", "sub/b.jpg", "c.jpg", "d.png"]
    assert find_labels(photos, "train").name == "labels.csv"
    assert read_labels(photos / "labels.csv").file_names[1].startswith("/"), (
        "not checked without an image folder"
    )
    images = read_labels(written(photos, f"{H}x/c.jpg,cat\ny/c.jpg,dog\n"), photos)
    with pytest.raises(UsageError, match=r"'x/c.jpg' and 'y/c.jpg' would both be"):
        find_images(photos, images)
    write_picture(photos / "a.jpg")  # now both spellings exist, and each name means its own file
    images = read_labels(written(photos, f"{H}a.jpg,cat\nA.JPG,dog\n"), photos)
    assert [p.name for p in find_images(photos, images)] == ["a.jpg", "A.JPG"]


def test_damaged_and_hostile_zip_and_xml(tmp_path, monkeypatch):
    path = tmp_path / "labels.json.gz"
    whole = gzip.compress(json.dumps(coco()).encode())
    for damaged in (whole[:-9], whole[:40] + b"xx" + whole[42:]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"labels\.json\.gz is damaged"):
            read_labels(path)
    monkeypatch.setattr("labels.text.MOST_TEXT", 1000)
    path.write_bytes(gzip.compress(b" " * 10_000))
    with pytest.raises(UsageError, match="unpacks to more than"):
        read_labels(path)

    xml = tmp_path / "VOC2007/Annotations/a.xml"
    xml.parent.mkdir(parents=True)
    laughs = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    outside = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'
    named = "<annotation><object><name>cat</name></object><object/></annotation>"
    bad = {laughs: "has a DOCTYPE", outside: "has a DOCTYPE", "<a>": "is not XML"}
    for content, sentence in {**bad, named: "object 2, has no name"}.items():
        xml.write_text(content)
        with pytest.raises(UsageError, match=rf"a\.xml,? {sentence}"):
            read_labels(tmp_path / "VOC2007")
    xml.write_text("<annotation/>")
    main = tmp_path / "VOC2007/ImageSets/Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("a\n../../b\n")
    with pytest.raises(UsageError, match=r"train\.txt, line 2, has '../../b'"):
        read_labels(tmp_path / "VOC2007")
    (main / "train.txt").write_text("a\n")
    (main / "cat_train.txt").write_text("a 2\n")
    with pytest.raises(UsageError, match=r"cat_train\.txt, line 1, has 'a 2'"):
        read_labels(tmp_path / "VOC2007")


def test_files_and_folders_without_labels(tmp_path):
    for content, name, sentence in (
        (b"\x89PNG\r\n\0", "x.png", "is not a text file"),
        ("<annotation/>", "x.xml", "give the folder that contains Annotations/"),
        ("{}", "x.json", "needs the lists"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read_labels(written(tmp_path, content, name))
    with pytest.raises(UsageError, match="is a folder without labels"):
        read_labels(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "nothing.csv")
    lists = tmp_path / "ImageList"
    lists.mkdir()
    (lists / "Imagelist.txt").write_text("x\\a_1.jpg\n")
    with pytest.raises(UsageError, match=r"lacks TrainImagelist\.txt"):
        read_labels(tmp_path)
    (lists / "TrainImagelist.txt").write_text("x\\a_1.jpg\n")
    (lists / "TestImagelist.txt").write_text("")
    (tmp_path / "AllLabels").mkdir()
    labels = tmp_path / "AllLabels/Labels_sky.txt"
    labels.write_text("2\n")
    with pytest.raises(UsageError, match=r"Labels_sky\.txt has lines that are neither 0 nor 1"):
        read_labels(tmp_path)
    labels.write_text("1\n0\n")
    with pytest.raises(UsageError, match=r"Labels_sky\.txt has 2 lines, the list of images 1"):
        read_labels(tmp_path)
    (lists / "Imagelist.txt").write_text("x\\..\\..\\a_1.jpg\n")
    with pytest.raises(UsageError, match="not inside the image folder"):
        read_labels(tmp_path)


# --- round trips ------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=8)
labels = st.lists(texts, min_size=1, max_size=3).map(" ".join).map(folded).filter(bool)
labels = labels.filter(lambda x: not set(x) & {*"[](){}'\""})  # in cells, they must fit
labels = labels.filter(lambda x: {*x} != {"?"})  # unknown, and not a label; see below
sets = st.lists(st.lists(labels, max_size=4, unique=True), min_size=2, max_size=8)


def is_blank(label_set):
    """Whether the cell has only a word that programs write for a missing value."""
    words = ("nan", "null", "none", "na", "n/a", "#n/a", "<na>")
    return len(label_set) == 1 and label_set[0].lower() in words


@settings(deadline=None, max_examples=60)
@given(sets=sets, delimiter=st.sampled_from(",;\t"), separator=st.sampled_from("|;,"))
def test_any_labels_survive_a_csv(tmp_path_factory, sets, delimiter, separator):
    """Cells are written by the csv module too, so labels with a separator are quoted."""
    sets = [["one", "two"], *sets]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["file_name", "labels"])
    for i, each in enumerate(sets):
        cell = io.StringIO()
        csv.writer(cell, delimiter=separator, lineterminator="").writerow(each)
        writer.writerow([f"{i}.jpg", cell.getvalue()])
    path = written(tmp_path_factory.mktemp("csv"), text.getvalue())
    options = ReadOptions(separator=separator)
    expected = [() if is_blank(each) else tuple(each) for each in sets]
    assert read_labels(path, None, options).label_sets == expected


@given(marks=st.text("?", min_size=1, max_size=4), beside=labels, alone=st.booleans())
def test_question_marks_among_labels_stop(tmp_path_factory, marks, beside, alone):
    cell = marks if alone else f"{beside}|{marks}"
    path = written(tmp_path_factory.mktemp("csv"), f'{H}0.jpg,one|two\n1.jpg,"{cell}"\n')
    with pytest.raises(UsageError, match=r"write the labels that are known, or \? alone"):
        read_labels(path, None, ReadOptions(separator="|"))


@settings(deadline=None, max_examples=40)
@given(sets=sets)
def test_any_labels_survive_jsonl_and_coco(tmp_path_factory, sets):
    sets = [["one", "two"], *sets]  # numbers alone need names
    folder = tmp_path_factory.mktemp("json")
    rows = [{"file_name": f"{i}.jpg", "labels": each} for i, each in enumerate(sets)]
    path = written(folder, "\n".join(map(json.dumps, rows)), "x.jsonl")
    assert read_labels(path).label_sets == [tuple(each) for each in sets]
    ids = {name: n for n, name in enumerate({label for each in sets for label in each})}
    read = read_labels(write_json(coco(sets, categories=ids), folder / "x.json"))
    assert read.label_sets == [tuple(each) for each in sets]


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode), header=st.booleans())
def test_other_content_is_refused_in_one_sentence(tmp_path_factory, content, header):
    path = written(tmp_path_factory.mktemp("any"), (H.encode() if header else b"") + content)
    with contextlib.suppress(UsageError):  # any other exception would be a traceback
        images = read_labels(path, path.parent)
        assert len(images) == len(images.label_sets)
