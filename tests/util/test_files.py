"""Which files are pictures: one list, for every command. Files are written whole or not at all."""

import os
import signal

import pytest
from PIL import Image

from images.decode import FORMATS
from labels.text import PICTURE
from util.errors import RunError
from util.files import (
    HEIC_SUFFIXES,
    PICTURE_SUFFIXES,
    is_ignored,
    is_picture,
    left_out,
    walk,
    write_atomically,
)


def test_the_suffixes_are_those_of_the_formats_that_are_decoded():
    """MPO is a JPEG with more pictures behind it: Pillow opens it as JPEG.

    AVIF is one of the formats from Pillow 11.3 on.
    """
    Image.init()
    kinds = {suffix: kind for suffix, kind in Image.registered_extensions().items()}
    decoded = {suffix for suffix, kind in kinds.items() if kind in (*FORMATS, "MPO")}
    missing = set() if "AVIF" in FORMATS else {".avif", ".avifs"}
    assert decoded == PICTURE_SUFFIXES - HEIC_SUFFIXES - missing
    assert all(PICTURE.search(f"a{suffix.upper()}") for suffix in PICTURE_SUFFIXES)


def test_pictures_and_what_systems_leave():
    assert is_picture("A.JPE")
    assert not is_picture("jpg")
    for name in (".a.jpg", "._a.jpg", "__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"):
        assert is_ignored(name)
    assert not is_ignored("a.jpg")


def test_what_is_left_out_is_counted():
    assert left_out([]) == ""
    names = ["a.txt", "b.jxl", "c.JXL", "d.jxl", "notes", "e.txt"]
    assert left_out(names) == (
        "3 .jxl files left out: convert them to JPEG; 2 .txt files left out; 1 other file left out"
    )


def test_walk_lists_each_folder_once(tmp_path):
    for name in ("b/2.jpg", "b/1.jpg", "a/c/3.jpg", "0.jpg", ".x/4.jpg", "__MACOSX/5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/up").symlink_to("..")
    found = [(folder, [entry.name for entry in entries]) for folder, entries in walk(tmp_path)]
    assert found == [
        ("", ["0.jpg"]),
        ("a", []),
        ("a/c", ["3.jpg"]),
        ("b", ["1.jpg", "2.jpg"]),
    ]


def unnamed(folder) -> bool:
    """Whether the system has files without a name there."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except (OSError, AttributeError):
        return False
    return True


def test_a_killed_save_leaves_nothing(tmp_path):
    if not unnamed(tmp_path):
        pytest.skip("the system has no files without a name")
    (tmp_path / "last.pt").write_bytes(b"old")

    def write(temporary):
        temporary.write_bytes(bytes(10**6))
        os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        write_atomically(tmp_path / "last.pt", write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == b"old"


@pytest.mark.parametrize("lacking", ["nothing", "O_TMPFILE", "link"])
def test_files_are_written_on_any_system(tmp_path, monkeypatch, lacking):
    if lacking == "O_TMPFILE":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    if lacking == "link":
        monkeypatch.setattr(os, "link", lambda *args, **more: os.stat(tmp_path / "gone"))
    path = tmp_path / "new/a.txt"
    for text in ("first", "second"):
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
        assert path.read_text() == text
    with pytest.raises(RunError, match=r"cannot write .*a\.txt \(No such file"):
        write_atomically(path, lambda temporary: (tmp_path / "gone").read_bytes())
    with pytest.raises(ValueError, match="no"):
        write_atomically(path, fail)
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def fail(temporary):
    temporary.write_text("half")
    raise ValueError("no")
