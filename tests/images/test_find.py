"""File names as people write them -> the files of the image folder, or a stop."""

import shutil
import tempfile
import time
import unicodedata
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from conftest import write_picture

from images import find as module
from images.find import find_images, names_file
from labels.annotated import AnnotatedImages
from util.errors import UsageError


def find(root: Path, *names: str) -> list[str]:
    images = AnnotatedImages("t.csv", list(names), [("x",)] * len(names), ["x"])
    return [path.relative_to(root).as_posix() for path in find_images(root, images)]


def pictures(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_picture(root / name, side=8 + number)  # no two are equal
    return root


@pytest.mark.parametrize(
    "name",
    [
        "/home/me/im/c d.jpg",
        "../input/some-set/im/c d.jpg",
        "im/../../../im/c d.jpg",
        "C:\\data\\im\\c d.jpg",
        "\\\\server\\share\\im\\c d.jpg",
        ".\\c d.jpg",
        "file:///home/me/im/c%20d.jpg",
        "https://host/x/c%20d.jpg",
        "https://host/x/c%20d.jpg?size=2&v=c",
        "https://host/x/c%20d.jpg#top",
        "https://host/get?name=c%20d.jpg",
        "s3://bucket/im/c d.jpg",
        "/data/local-files/?d=photos/c d.jpg",
        "/data/upload/1/0a1b2c3d-c d.jpg",
        "C D.JPG",
        "c d",
        "IM/C D",
        "c%20d",
        "c d.HEIC",
    ],
)
@pytest.mark.parametrize("below", ["", "im", "a/b"])
def test_one_file_whatever_stands_before_and_behind_its_name(tmp_path, name, below, capsys):
    pictures(tmp_path / "set", f"{below}/c d.jpg".lstrip("/"), "other.jpg")
    assert find(tmp_path / "set", name, "other.jpg") == [
        f"{below}/c d.jpg".lstrip("/"),
        "other.jpg",
    ]
    said = capsys.readouterr().err.count("1 of the 2 names in t.csv differs")
    assert said == ((below, name) not in (("", ".\\c d.jpg"), ("im", "im/../../../im/c d.jpg")))
    with pytest.raises(UsageError, match="1 of the 1 images"):
        find(tmp_path / "set", name.replace("c", "k", 9).replace("C", "K", 9))


def test_unicode_in_both_forms(tmp_path):
    composed, split = (unicodedata.normalize(form, "Ähre é.jpg") for form in ("NFC", "NFD"))
    assert composed != split
    for stored, written in ((composed, split), (split, composed), (split, composed.upper())):
        root = pictures(tmp_path / str(len(list(tmp_path.iterdir()))), stored)
        assert find(root, written) == [stored]


def test_signs_in_names_are_taken_literally_first(tmp_path):
    names = ["a%20b.jpg", "a b.jpg", "b#1.jpg", "c?d.jpg", "0a1b2c3d-e.jpg", "e.jpg", "x.y.jpg"]
    assert find(pictures(tmp_path, *names), *names) == names
    assert find(tmp_path, "x.y", "a%20b") == ["x.y.jpg", "a%20b.jpg"]


def test_the_longest_end_decides(tmp_path):
    root = pictures(tmp_path / "set", "train/a.jpg", "val/a.jpg", "a.jpg", "val/b/a.jpg")
    assert find(root, "/x/train/a.jpg", "D:\\x\\val\\a.jpg") == ["train/a.jpg", "val/a.jpg"]
    assert find(root, "/x/b/a.jpg") == ["val/b/a.jpg"]
    assert find(root, "/x/set/a.jpg") == find(root, "a.jpg") == ["a.jpg"]


def test_ambiguous_names_stop(tmp_path):
    root = pictures(tmp_path, "one/a.jpg", "two/a.jpg", "p.jpg", "p.png", "q.JPG", "Q.jpg")
    for name, files in {
        "a.jpg": r"one/a\.jpg, two/a\.jpg",
        "/x/a.jpg": r"one/a\.jpg, two/a\.jpg",
        "a": r"one/a\.jpg, two/a\.jpg",
        "p": r"p\.jpg, p\.png",
        "q.jpg": r"Q\.jpg, q\.JPG",
    }.items():
        with pytest.raises(UsageError, match=rf"could be {files} in .*--image_path"):
            find(root, name)
    (root / "two/a.jpg").unlink()
    shutil.copy(root / "one/a.jpg", root / "two/a.jpg")
    assert find(root, "a.jpg") == ["one/a.jpg"], "a copy is no other picture"


def test_a_missing_picture_is_not_its_namesake_in_another_folder(tmp_path):
    """Sets of the same numbering would silently give pictures of another label."""
    root = pictures(tmp_path / "photos", "cat/2.jpg", "dog/1.jpg", "train/3.jpg", "4.jpg")
    for names in (
        ["cat/1.jpg"],
        ["/home/me/photos/cat/1.jpg"],
        ["rabbit/1.jpg", "dog/5.jpg"],
        ["val/3.jpg"],
        ["photos/val2014/3.jpg"],
        ["cat/4.jpg"],
    ):
        with pytest.raises(UsageError, match=r"has the same name, but is in another folder"):
            find(root, *names)
    with pytest.raises(UsageError, match="would both be"):
        find(root, "x/2.jpg", "y/2.jpg")
    assert find(root, "old/4.jpg", "older/3.jpg") == ["4.jpg", "train/3.jpg"]


def test_nothing_outside_the_folder_is_found(tmp_path):
    pictures(
        tmp_path, "secret.jpg", "in/a.jpg", "in/z/.hidden.jpg", "in/__MACOSX/b.jpg", "in/._c.jpg"
    )
    for name in (
        "../secret.jpg",
        "a/../../secret.jpg",
        str(tmp_path / "secret.jpg"),
        f"file://{tmp_path}/secret.jpg",
        "%2e%2e/secret.jpg",
        "..%2fsecret.jpg",
        "/etc/passwd",
        "hidden.jpg",
        "b.jpg",
        "c.jpg",
        "a\0.jpg",
        "..",
        "",
        "/",
    ):
        with pytest.raises(UsageError, match="is not under"):
            find(tmp_path / "in", name)
        images = AnnotatedImages("t.csv", [name], [("x",)], ["x"])
        (path,) = find_images(tmp_path / "in", images, allow_missing=True)
        assert path.is_relative_to(tmp_path / "in")
        assert ".." not in path.parts


def test_several_pictures_for_one_row_are_named(tmp_path):
    colours = [f"aa00-b_{colour}.png" for colour in ("blue", "green", "red")]
    pictures(tmp_path, *colours)
    with pytest.raises(UsageError, match=r"aa00-b: 3 files begin so \(aa00-b_blue\.png, .*1 more"):
        find(tmp_path, "aa00-b")


def test_links_to_folders_are_followed_once(tmp_path):
    pictures(tmp_path, "in/sub/a.jpg", "out/deep/b.jpg")
    (tmp_path / "in/out").symlink_to(tmp_path / "out")
    (tmp_path / "in/sub/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/loop").symlink_to("loop")
    (tmp_path / "in/again").symlink_to("sub")
    assert find(tmp_path / "in", "A.jpg", "b.jpg") == ["sub/a.jpg", "out/deep/b.jpg"]
    assert find(tmp_path / "in", "again/a.jpg") == ["again/a.jpg"]


def test_a_single_picture_is_recognised_in_any_name():
    path = Path("photos/my cat.jpg")
    for name in ("x/My Cat.jpg", "C:\\my cat.jpg", "my%20cat.jpg", "my cat", "0a1b2c3d-my cat.jpg"):
        assert names_file(name, path)
    assert not names_file("my cat.png", path)


def test_a_large_folder(tmp_path):
    """20,000 files in 10 folders, names without suffix; 100,000 take about two seconds."""
    names = [f"{folder}_{number}" for folder in range(10) for number in range(2_000)]
    for name in names:
        (tmp_path / f"images_{name[0]}").mkdir(exist_ok=True)
        (tmp_path / f"images_{name[0]}/{name}.jpg").touch()
    started = time.process_time()
    assert find(tmp_path, *names)[-1] == "images_9/9_1999.jpg"
    assert time.process_time() - started < 5


def test_folders_of_files_with_one_name_take_linear_time(tmp_path, monkeypatch):
    """p0/img.jpg, p1/img.jpg, …, written on another machine; each name is compared with few."""
    compared, compare = [], module._Files._compare
    monkeypatch.setattr(
        module._Files, "_compare", lambda *args: compared.append(1) or compare(*args)
    )
    stored = [f"p{i}/{below}img.jpg" for below in ("", "scans/") for i in range(100)]
    for name in stored:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert find(tmp_path, *(f"C:\\data\\{name.upper()}" for name in stored)) == stored
    assert len(compared) < 4 * len(stored)
    del compared[:]
    names = [f"D:\\p{i}\\scans\\img.jpg" for i in range(100, 200)] + stored
    with pytest.raises(UsageError, match="100 of the 300 images"):
        find(tmp_path, *names)
    assert len(compared) < 4 * len(names)


FOLDERS = st.lists(st.sampled_from(["a", "A", "b", "train", "val", "x%20y", "x y"]), max_size=4)


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.lists(FOLDERS, min_size=1, max_size=9), st.lists(FOLDERS, min_size=1))
def test_few_comparisons_choose_the_same_files(folders, named):
    """The file is the one that a comparison with all files of the name finds."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "b/a")
        for number, folder in enumerate(folders):
            file = root.joinpath(*folder, "IMG.jpg" if number % 2 else "img.jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(number))
        found = []
        for few in (0, 100):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "FEW", few)
                names = list(dict.fromkeys("/".join([*folder, "img.JPG"]) for folder in named))
                try:
                    found.append(find(root, *names))
                except UsageError as error:
                    found.append(str(error))
        assert found[0] == found[1]
