"""Pictures that this program drew: a text in the PNG marks them. No command takes them for photos.

They may lie among the photos: the contact sheet, the curves of a run in their folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from util.errors import UsageError
from util.reading import open_file

PROGRAM = "HybridNet"  # begins the text, which says more: `HybridNet sample.py`
PNG_START, MARK = b"\x89PNG\r\n\x1a\n", b"tEXtSoftware\0" + PROGRAM.encode()
HEAD = 1024  # bytes: the texts come before the pixels
SLIDES, SHEET = "slides", "contact_sheet.png"
DRAWN = (SHEET, "curves.png", "label_influence.png")


def is_marked(path: str | os.PathLike) -> bool:
    """Whether a file is a picture that this program drew; False if there is none."""
    try:
        with open_file(Path(path)) as file:
            head = file.read(HEAD)
    except (OSError, UsageError):  # UsageError: a pipe
        return False
    return head.startswith(PNG_START) and MARK in head


def may_be_marked(folders: Collection[str], name: str) -> bool:
    """Whether a file in these folders, one in the other, is named as a drawing: worth opening?"""
    return name in DRAWN or (SLIDES in folders and name.lower().endswith(".png"))
