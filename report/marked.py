"""Pictures that sample.py drew: a text in the PNG marks them, and no other file is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from util import marked
from util.errors import UsageError
from util.files import write_picture

PROGRAM = f"{marked.PROGRAM} sample.py"


def check_free(path: Path) -> None:
    """Raise UsageError if a file of the user is where sample.py would draw."""
    if os.path.lexists(path) and not marked.is_marked(path):
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
