"""WebDataset tars made elsewhere: their index, their labels, and what stops."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from conftest import write_picture

from images.find import find_images
from labels.options import ReadOptions
from labels.read import read_labels
from labels.search import find_labels
from util.errors import UsageError

SETS = (["cat", "dog"], ["dog"], ["cat", "hat"], [])


def write_tar(path: Path, members: dict[str, bytes | str], **kwargs) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **kwargs) as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(texts: list[str], ending: str, first: int = 0) -> dict[str, str]:
    """A picture for each text, and the text beside it."""
    found = {}
    for i, text in enumerate(texts, start=first):
        found |= {f"{i:04d}.jpg": f"picture {i}", f"{i:04d}.{ending}": text}
    return found


TEXTS = {
    "json": [json.dumps({"labels": labels, "width": 9, "url": "x"}) for labels in SETS],
    "txt": [", ".join(labels) for labels in SETS],
}


@pytest.mark.parametrize("ending", TEXTS)
def test_labels_beside_the_pictures(tmp_path, ending, capsys):
    write_tar(tmp_path / "set/a-0.tar", samples(TEXTS[ending][:2], ending))
    write_tar(tmp_path / "set/a-1.tar", samples(TEXTS[ending][2:], ending))  # the same names
    images = read_labels(tmp_path / "set")
    assert f"2 tars with 4 pictures; the index is written to {tmp_path}/set/shards.json" in (
        capsys.readouterr().err
    )
    assert list(map(list, images.label_sets)) == list(SETS)
    assert images.splits is None
    files = find_images(tmp_path / "set", images)
    assert [file.open().read() for file in files] == [b"picture 0", b"picture 1"] * 2
    assert find_labels(tmp_path / "set", "train").name in ("set", "shards.json")
    assert read_labels(tmp_path / "set/shards.json").label_sets == images.label_sets
    assert "index is written" not in capsys.readouterr().err


def test_class_numbers_need_names_also_when_the_index_is_there(tmp_path):
    write_tar(tmp_path / "a.tar", samples(["0", "2", "1"], "cls"))
    names = tmp_path / "names.txt"
    for labels in ("cat dog hat", "one two three"):
        with pytest.raises(UsageError, match="--label_names"):
            read_labels(tmp_path)
        first, second, third = labels.split()
        names.write_text("\n".join(labels.split()))
        images = read_labels(tmp_path, None, ReadOptions(label_names=names))
        assert images.label_sets == [(first,), (third,), (second,)]


def test_several_texts_stop_until_one_is_chosen(tmp_path):
    members = samples(["cat", "dog"], "cls") | samples(["a cat on a mat", "the dog."], "txt")
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UsageError, match=r"cls and txt: name the one .* --label_columns cls"):
        read_labels(tmp_path)
    images = read_labels(tmp_path, None, ReadOptions(label_columns=("cls",)))
    assert images.label_sets == [("cat",), ("dog",)]


def test_captions_are_no_labels(tmp_path):
    captions = ["a cat sits on a mat", "two dogs in the snow", "A hat.", "the cat and the dog"]
    write_tar(tmp_path / "a.tar", samples(captions, "txt"))
    with pytest.raises(UsageError, match="'a cat sits on a mat': captions are no labels"):
        read_labels(tmp_path)


def test_tars_called_by_their_split(tmp_path):
    write_tar(tmp_path / "my-train-00.tar", samples(TEXTS["json"], "json"))
    write_tar(tmp_path / "my-val-00.tar", samples(TEXTS["json"][:2], "json"))
    assert read_labels(tmp_path).splits == ["train"] * 4 + ["val"] * 2
    (tmp_path / "shards.json").unlink()
    write_tar(tmp_path / "more.tar", samples(TEXTS["json"], "json"))
    with pytest.raises(UsageError, match=r"more\.tar is not: rename it"):
        read_labels(tmp_path)


def test_a_folder_of_tars_for_each_split(tmp_path):
    for split in ("train", "val"):
        write_tar(tmp_path / split / "0.tar", samples(TEXTS["json"], "json"))
    with pytest.raises(
        UsageError, match=r"train and .*val: name these with --image_path and --val"
    ):
        read_labels(tmp_path)
    assert len(read_labels(tmp_path / "val")) == 4


def test_names_of_all_kinds(tmp_path):
    """Folders, long names, dots, upper case, what systems leave; pictures without labels."""
    members = {"./x/0001.JPG": "1", "./x/0001.cls": "cat", "y/0001.jpg": "2", "y/0001.cls": "dog"}
    members |= {f"{'é' * 120}.png": "3", f"{'é' * 120}.cls": "cat", "._0001.jpg": "?"}
    members |= {"__MACOSX/0001.jpg": "?", "alone.jpg": "4", "other.bin": "?", "lost.cls": "hat"}
    for style in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        folder = tmp_path / str(style)
        write_tar(folder / "a.tar", members, format=style)
        images = read_labels(folder)
        assert images.label_sets == [("cat",), ("dog",), ("cat",), ()]
        assert [f.open().read() for f in find_images(folder, images)] == [b"1", b"2", b"3", b"4"]
    dots = {"a.v1.jpg": "1", "a.v1.cls": "cat", "a.v2.jpg": "2", "a.v2.cls": "dog"}
    write_tar(tmp_path / "dots/a.tar", dots)
    assert read_labels(tmp_path / "dots").label_sets == [("cat",), ("dog",)]


def test_a_tar_that_came_or_changed_later_stops(tmp_path):
    write_tar(tmp_path / "a.tar", samples(TEXTS["json"], "json"))
    read_labels(tmp_path)
    write_tar(tmp_path / "b.tar", samples(TEXTS["json"], "json"))
    with pytest.raises(UsageError, match=r"does not fit b\.tar, .* delete .*shards\.json"):
        read_labels(tmp_path)
    (tmp_path / "shards.json").unlink()
    assert len(read_labels(tmp_path)) == 8


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": "1", "a.png": "2", "a.cls": "cat"}, "two pictures in one sample, a.jpg and a.p"),
        ({"a.jpg": "1", "a.json": "{"}, r"a\.json is not JSON"),
        ({"a.jpg": "1", "a.cls": b"\xff"}, r"a\.cls is not UTF-8 text"),
        ({"a.jpg": "1", "a.txt": "x" * 2_000_000}, "2,000,000 bytes, too many for labels"),
        ({"a.jpg": "1", "b.jpg": "2"}, r"no \.json, \.cls or \.txt beside the pictures"),
        (
            {"a.jpg": "1", "a.json": '{"key": "a", "status": "success"}'},
            "json has key, status: choose",
        ),
        ({"a.jpg": "1", "a.json": '{"tags": [{"name": "cat", "score": 0.1}]}'}, "with score 0.1"),
        ({"a.cls": "cat"}, "contain no pictures"),
    ],
)
def test_mistakes_stop(tmp_path, members, message):
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path)


def test_a_tar_beside_its_unpacked_pictures_is_ignored(tmp_path):
    write_tar(tmp_path / "photos.tar", {"cat/0.jpg": "1", "dog/0.jpg": "2"})
    with pytest.raises(UsageError, match="unpack the tars"):
        read_labels(tmp_path)
    for name in ("cat/0.jpg", "dog/0.jpg"):
        write_picture(tmp_path / name, seed=len(name))
        write_picture(tmp_path / name.replace("0", "1"), seed=len(name))
    assert find_labels(tmp_path, "train") == tmp_path
    assert read_labels(tmp_path).kind == "a folder per label"
    assert not (tmp_path / "shards.json").exists()


def test_damaged_tars_stop(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(TEXTS["json"], "json"))
    whole = path.read_bytes()
    with pytest.raises(UsageError, match="is one tar: name the folder"):
        read_labels(path)
    for content, message in (
        (whole[:700], "damaged or zipped"),
        (b"\x1f\x8b" + whole, "damaged or zipped"),
        (whole + whole, "several tars in one file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_labels(tmp_path)
        assert not (tmp_path / "shards.json").exists()
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(UsageError, match=r"has a\.jpg twice"):
        read_labels(tmp_path)
