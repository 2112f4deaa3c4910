"""Pictures that sample.py drew: a text in the PNG marks them, and no other file is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from util.errors import UsageError
from util.files import suffix_of, write_picture
from util.reading import open_file

PROGRAM = "HybridNet sample.py"
PNG_START, MARK = b"\x89PNG\r\n\x1a\n", b"tEXtSoftware\0" + PROGRAM.encode()
HEAD = 1024  # bytes: the texts come before the pixels
SLIDES, SHEET = "slides", "contact_sheet.png"


def is_marked(path: str | Path) -> bool:
    """Whether a file is a picture that sample.py drew; False if there is none."""
    try:
        with open_file(Path(path)) as file:
            head = file.read(HEAD)
    except (OSError, UsageError):  # UsageError: a pipe
        return False
    return head.startswith(PNG_START) and MARK in head


def may_be_marked(folder: Path, name: str) -> bool:
    """Whether a file lies where sample.py draws: is it worth opening?"""
    return name == SHEET or (SLIDES in folder.parts and suffix_of(name) == ".png")


def check_free(path: Path) -> None:
    """Raise UsageError if a file of the user is where sample.py would draw."""
    if os.path.lexists(path) and not is_marked(path):
        raise UsageError(
            f"{path} was not drawn by this program and is not replaced: choose another --output"
        )


def save_marked(picture: Image.Image, path: Path) -> None:
    """Save a PNG with the mark. Raises UsageError as `check_free` does, RunError."""
    check_free(path)
    info = PngInfo()
    info.add_text("Software", PROGRAM)
    how = {"pnginfo": info, "compress_level": 1}  # a sheet of 200 photos: 0.7 s, not 3.7 s
    write_picture(path, lambda file: picture.save(file, "PNG", **how))
