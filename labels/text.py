"""What the readers of label files share: the text of a file, and what it may contain."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from pathlib import Path

from util.errors import UsageError
from util.files import HEIC_SUFFIXES, PICTURE_SUFFIXES

HEAD = 1 << 16  # bytes: what a format is recognised by
GZIP = b"\x1f\x8b"  # how a zipped file begins
UNZIPPED = 4 << 30  # bytes at most: a small file from a stranger can unpack to any size
BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")
PICTURE = re.compile(  # a name that ends as those of pictures do
    "|".join(re.escape(s) for s in sorted(PICTURE_SUFFIXES | HEIC_SUFFIXES)).join(("(?:", ")$")),
    re.IGNORECASE,
)
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val"}
SPLITS |= {"validation": "val", "dev": "val", "test": "test", "testing": "test"}
# folders of these names hold data: they are no labels
DATA_WORDS = """image images img imgs photo photos picture pictures pic pics jpegimages jpegs jpg
    jpeg png pngs data dataset datasets raw all frames files upload uploads annotation annotations
    label labels mask masks batch batches part parts fold folds chunk chunks shard shards split
    splits subset subsets set sets"""
DATA_NAMES = frozenset((*SPLITS, *DATA_WORDS.split()))
# what such names are extended by: train_v2, seg_train, images_small, test_stg1
WITH_WORDS = "seg stg v small large full resized"
WITH_DATA = DATA_NAMES.union(WITH_WORDS.split())


def means_data(folder: str) -> bool:
    """Whether a folder's name says that it holds data, as train-jpg or images_001 do."""
    words = [word for word in re.split(r"[\W\d_]+", folder.lower()) if word]
    return bool(DATA_NAMES.intersection(words)) and set(words) <= WITH_DATA


def split_of(folder: str) -> str | None:
    """train, val or test for a folder whose name says so, as val2014 and train-jpg do; or None."""
    found = {SPLITS[word] for word in re.split(r"[\W\d_]+", folder.lower()) if word in SPLITS}
    return found.pop() if means_data(folder) and len(found) == 1 else None


def read_head(path: Path) -> tuple[bytes, str]:
    """The first bytes of a file, and the same as text; both empty for a folder. Raises OSError."""
    if path.is_dir():
        return b"", ""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head, head.decode("utf-8-sig", "replace").lstrip()


def read_text(path: Path) -> str:
    """A text file, zipped or not, in UTF-8, or in UTF-16 with its byte order mark.

    Raises UsageError if it is damaged, too large or in another encoding, and OSError.
    """
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = _unzip(content, path)
    utf16 = content.startswith(BOMS_UTF16)  # Excel's "Unicode text"
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, row {row}, is not UTF-8: save the file as UTF-8") from None


def _unzip(content: bytes, path: Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unzipped = file.read(UNZIPPED + 1)
    except (OSError, EOFError, zlib.error):
        raise UsageError(f"{path} is damaged: it cannot be unzipped; copy it again") from None
    if len(unzipped) > UNZIPPED:
        raise UsageError(f"{path} unpacks to more than {UNZIPPED >> 30} GiB: too large")
    return unzipped


def is_text(value: str) -> bool:
    """False for half a character (a lone surrogate): JSON allows it, but no file can hold it."""
    return value.encode(errors="replace").decode() == value
