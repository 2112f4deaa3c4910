"""Which files are pictures: one list, for every command."""

from PIL import Image

from images.decode import FORMATS
from labels.text import PICTURE
from util.files import (
    HEIC_SUFFIXES,
    PICTURE_SUFFIXES,
    is_ignored,
    is_picture,
    left_out,
    walk,
)


def test_the_suffixes_are_those_of_the_formats_that_are_decoded():
    """MPO is a JPEG with more pictures behind it: Pillow opens it as JPEG."""
    Image.init()
    kinds = {suffix: kind for suffix, kind in Image.registered_extensions().items()}
    decoded = {suffix for suffix, kind in kinds.items() if kind in (*FORMATS, "MPO")}
    assert decoded == PICTURE_SUFFIXES - HEIC_SUFFIXES
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
