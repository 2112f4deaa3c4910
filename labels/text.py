"""What the readers of label files share: the text of a file, and what it may contain."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import re
import unicodedata
import zlib
from pathlib import Path

from util.errors import UsageError
from util.files import HEIC_SUFFIXES, PICTURE_SUFFIXES
from util.log import log
from util.reading import BLOCK, MOST_TEXT, open_file, read_bytes

HEAD = 1 << 16  # bytes: what a format is recognised by
GZIP = b"\x1f\x8b"  # how a zipped file begins
BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")
PICTURE = re.compile(  # a name that ends as those of pictures do
    "|".join(re.escape(s) for s in sorted(PICTURE_SUFFIXES | HEIC_SUFFIXES)).join(("(?:", ")$")),
    re.IGNORECASE,
)
INVISIBLE = dict.fromkeys((0x200B, 0x2060, 0xFEFF, 0xAD))  # no width; a soft hyphen
ACCENTED = "À-ÖØ-öø-ÿŒœŠšŽžŸ"  # letters of cp1252 beyond ASCII
NOT_WESTERN = re.compile(
    "[^\\x00-\\x7f]{3}"  # Greek, Cyrillic, Chinese
    "|[ÃÂ][\\x80-\\xbf€‚ƒ„…†‡ˆ‰‹‘’“”•–—˜™š›œžŸŠŒŽ]"  # UTF-8
    "|[a-zß-öø-ÿ][À-ÖØ-Þ]|[ŠšŽžŒŸ]|œ(?![a-z])"  # Mac Roman, cp437, Czech
    r"|[aeiou]á\b|[aou]á[aeiou]"  # a German ß in cp437: Straáe
    f"|[A-Za-z{ACCENTED}][¡-©«-¶¸¹»-¿×÷‚ƒ„…†‡ˆ‰‹“”•˜™›][A-Za-z{ACCENTED}]"  # cp850, cp1250
    r"|(?<!\w)[€ƒ„‚…†‡ˆ‰‹”•˜™›§¨¬®¯´¸»×÷¡¢¤¥¦³¿¹¼¾½¶±ª][A-Za-z]"
)
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val"}
SPLITS |= {"validation": "val", "dev": "val", "test": "test", "testing": "test"}
# folders of these names hold data: they are no labels
DATA_WORDS = """image images img imgs photo photos picture pictures pic pics jpegimages jpegs jpg
    jpeg png pngs data dataset datasets raw all frames files upload uploads annotation annotations
    label labels masks batch batches part parts fold folds chunk chunks shard shards split
    splits subset subsets set sets augmented thumbnail thumbnails thumb thumbs lr hr gt rgb depth
    folder ordner results docs assets figures plots output outputs unsorted"""
DATA_NAMES = frozenset((*SPLITS, *DATA_WORDS.split()))
# what such names are extended by: train_v2, seg_train, images_small, test_stg1
WITH_WORDS = "seg stg v small large full resized new untitled neuer whatsapp from saved"
WITH_DATA = DATA_NAMES.union(WITH_WORDS.split())


# a day or month (but May may be a name); what cameras call their folders: 100CANON, 101_PANA; a
# size: 224x224; where or of whom pictures were taken: cam2, patient_007; kept apart: _to_sort
TAKEN = re.compile(
    r"(19|20)\d\d[-_. ][01]\d([-_. ][0-3]\d)?|[1-9]\d\d[A-Z\d_]{5}|\d{2,5}[x×]\d{2,5}(px)?"
    r"|(?i:cam|camera|patient|subject|participant|session|scene|site|video|clip|sequence|seq|frame"
    r"|visit|study|series|sensor|device|slide|plot|experiment|week|day"
    r"|annotator|rater|zip|disk|album|archive)[-_ ]?\d+"
    r"|_.*|(?i:camera roll|january|february|march|april|june|july|august|september|october|november"
    r"|december)"
)


@functools.cache
def means_data(folder: str) -> bool:
    """Whether a folder's name says that it holds data, as train-jpg or images_001 do."""
    if TAKEN.fullmatch(folder):
        return True
    words = [word for word in re.split(r"[\W\d_]+", folder.lower()) if word]
    return bool(DATA_NAMES.intersection(words)) and set(words) <= WITH_DATA


@functools.cache
def split_of(folder: str) -> str | None:
    """train, val or test for a folder whose name says so, as val2014 and train-jpg do; or None."""
    found = {SPLITS[word] for word in re.split(r"[\W\d_]+", folder.lower()) if word in SPLITS}
    return found.pop() if means_data(folder) and len(found) == 1 else None


def read_head(path: Path) -> tuple[bytes, str]:
    """The first bytes of a file, unzipped, and the same as text; both empty for a folder.

    Raises OSError, UsageError for a pipe.
    """
    if path.is_dir():
        return b"", ""
    with open_file(path) as file:
        head = file.read(HEAD)
    if head.startswith(GZIP):
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD) or head
    return head, head.decode(_encoding(head), "replace").lstrip()


def read_text(path: Path) -> str:
    """A text file, zipped or not, in UTF-8, UTF-16 or cp1252, which it says.

    Raises UsageError if it is damaged, too large or in another encoding, and OSError.
    """
    content = read_bytes(path, MOST_TEXT)
    if content.startswith(GZIP):
        content = _unzip(content, path)
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
    if encoding == "utf-8-sig" and (text := western(content)) is not None:
        word = re.search(r"\w*[^\W\x00-\x7f]\w*|[^\x00-\x7f]", text)[0]
        log(
            f"{path}: row {row} is not UTF-8; read as Windows' cp1252, for example {word!r}; if "
            "that is wrong, save the file as UTF-8"
        )
        return text
    raise UsageError(f"{path}, row {row}, is not UTF-8: save the file as UTF-8") from None


def _encoding(content: bytes) -> str:
    """UTF-16 if a byte order mark says so or every other byte is 0, as in Excel's; else UTF-8."""
    if content.startswith(BOMS_UTF16):
        return "utf-16"
    start = content[:1000]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros = start[first::2].count(0)
        if len(start) > 3 and zeros > len(start) / 4 and b"\0\0" not in start:
            return encoding
    return "utf-8-sig"


def western(content: bytes) -> str | None:
    """Bytes in cp1252 as text; None if they are more likely in another encoding.

    In other encodings letters become signs within words, or capitals and long runs of letters with
    accents: Müller in cp850 cannot be decoded, MŸller in Mac Roman, and \u00e4 in UTF-8 is Ã¤.
    """
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return None
    return None if NOT_WESTERN.search(text) else text


def _unzip(content: bytes, path: Path) -> bytes:
    parts, size = [], 0
    try:
        with gzip.open(io.BytesIO(content)) as file:
            while size <= MOST_TEXT and (part := file.read(BLOCK)):
                parts.append(part)
                size += len(part)
    except (OSError, EOFError, zlib.error):
        raise UsageError(f"{path} is damaged: it cannot be unzipped; copy it again") from None
    if size > MOST_TEXT:
        raise UsageError(f"{path} unpacks to more than {MOST_TEXT >> 30} GiB: too large")
    return b"".join(parts)


def folded(label: str) -> str:
    """A label in Unicode's NFC, with single spaces and without invisible characters."""
    return " ".join(unicodedata.normalize("NFC", label.translate(INVISIBLE)).split())


def is_text(value: str) -> bool:
    """False for half a character (a lone surrogate): JSON allows it, but no file can hold it."""
    return value.encode(errors="replace").decode() == value
