"""Whether a table or json file lists pictures, seen from parts of the file without reading it."""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from labels.text import BOMS_UTF16, GZIP, PICTURE
from util.names import key, parts_of, readings, stem
from util.reading import open_file

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".xml", ".parquet", ".xlsx")
ROWS = (".csv", ".tsv", ".jsonl", ".ndjson")
SURELY, MAYBE, NOT, BY_ACCIDENT = 2, 1, 0, -1
BINARY = (".parquet", ".xlsx")  # cannot be searched
PART = 1 << 16  # bytes that are read together
PARTS = 16  # of a large file
FEW = 100  # pictures: then a file is searched for each of their names
ENDS = re.compile(r"[,;\t|\"'<>{}\[\]\r\n]+|: ")  # of file names
CELLS = re.compile(r"[,;\t|]")
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def is_table(name: str) -> bool:
    """Whether a file of this name may be a table or json of labels, zipped or not."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


class Pictures:
    """File names of pictures, to be looked up in tables."""

    def __init__(self, names: Iterable[str]) -> None:
        self.raw = list(names)
        self.names = {key(name) for name in self.raw}
        self.stems = {stem(name) for name in self.names}
        # a red, a green and a blue picture of one row: a1_red.png
        self.starts = {s[: m.start()] for s in self.stems for m in re.finditer("[_-]", s)}

    def are_listed_in(self, table: Path) -> int:
        """How surely a file lists these pictures: SURELY, MAYBE, NOT or BY_ACCIDENT.

        Names without suffix count if most rows have one. Numbers are MAYBE names: 0 and 1 may be
        those of labels or epochs. Parquet and Excel are taken to list them.
        """
        if table.name.lower().endswith(BINARY):
            return SURELY if self.names else NOT
        try:
            text = _sample(table)
            found = any(self._is_one(name) for name in _names_in(text, _is_text(table)))
            if found or (len(self.raw) <= FEW and self._any_in(table)):
                return SURELY if _says_more(table, text) else NOT
        except (OSError, EOFError, zlib.error, ValueError):
            return NOT
        kind = table.name.lower().removesuffix(".gz")
        if kind.endswith(".json"):
            some = list(self.stems)[:PARTS]
            found = {each for each in some if f'"{each}"' in text.lower()}
            sure = SURELY if any(map(_is_special, found)) else BY_ACCIDENT
            return sure if len(found) * 2 > len(some) else NOT
        return self._in_rows(text) if kind.endswith(ROWS) else NOT

    def what_lists(self, table: Path) -> str:
        """What a table has instead of these pictures, for a message."""
        try:
            name = next(_names_in(_sample(table), _is_text(table)), None)
        except (OSError, EOFError, zlib.error, ValueError):
            return "cannot be read"
        return f"lists {name}" if name else "lists no file names"

    def _is_one(self, name: str) -> bool:
        return any(key(parts[-1]) in self.names for parts in readings(name))

    def _any_in(self, table: Path) -> bool:
        """Whether the name of any picture is anywhere in the file."""
        names = b"|".join(re.escape(name.encode(errors="replace")) for name in self.raw)
        before = rb"(?<![\w.-])" + (b"" if _is_text(table) else rb"(?<![\w.-] )")  # My 2.jpg
        with open_file(table) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return bool(names) and re.search(before + rb"(?:%b)" % names, text) is not None

    def _in_rows(self, text: str) -> int:
        """Whether most rows have the name of a picture without its suffix in an early column."""
        rows = [row for row in text.splitlines()[1:] if row.strip()]
        found, rests = [], set()
        for row in rows:
            cells = [cell.strip(" \"'{}:").rpartition('"')[2] for cell in CELLS.split(row)[:4]]
            ends = [key(parts_of(cell)[-1]) if parts_of(cell) else "" for cell in cells]
            at = next((i for i, e in enumerate(ends) if e in self.stems | self.starts), None)
            if at is not None:
                found.append(ends[at])
                rests.add(tuple(CELLS.split(row)[at + 1 :]))
        if len(found) * 2 <= len(rows):
            return NOT
        if any(map(_is_special, found)):
            return SURELY
        # a list of labels has another name in each row, and fewer rows than there are pictures
        many = len(found) * 2 >= min(len(self.stems), len(rows))
        return MAYBE if many and len(rests) < len(found) else BY_ACCIDENT


def _is_special(name: str) -> bool:
    """False for a number that may also count labels or rows."""
    return not (name.isdigit() and len(name) < 5 and not (len(name) > 1 and name[0] == "0"))


def _is_text(table: Path) -> bool:
    return table.name.lower().removesuffix(".gz").endswith(".txt")


def _names_in(text: str, in_columns: bool) -> Iterator[str]:
    """What looks like the name of a picture. in_columns: also with spaces between the columns."""
    for token in ENDS.split(text):
        token = token.strip()
        if PICTURE.search(token.partition("?")[0]) or ("?" in token and PICTURE.search(token)):
            yield token
            if in_columns and " " in token:
                yield token.rpartition(" ")[2]
        elif in_columns and " " in token:
            yield from (word for word in token.split(" ") if PICTURE.search(word))


def _says_more(table: Path, text: str) -> bool:
    """Whether a .txt is a table: not a list of pictures, nor a text that mentions some."""
    if not _is_text(table):
        return True
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with_name = [line for line in lines if next(_names_in(line, True), None)]
    names_alone = [line for line in with_name if PICTURE.search(line)]
    return len(with_name) * 2 > len(lines) and len(names_alone) * 2 < len(lines)


def _sample(table: Path) -> str:
    """The text of a small file, or parts of a large one."""
    with open_file(table) as file:
        head = file.read(PART)
        if head.startswith(GZIP):
            file.seek(0)
            with gzip.open(file) as unzipped:
                head = unzipped.read(PART * PARTS)
        elif len(head) == PART:
            size = table.stat().st_size
            parts = [head]
            for i in range(1, PARTS):
                file.seek(max(size - PART, 0) * i // (PARTS - 1))
                parts.append(file.read(PART).partition(b"\n")[2] or b"")
            parts.append(_from_file_names(file))
            head = b"\n".join(parts)
    if head.startswith(BOMS_UTF16):
        return head.decode("utf-16", "replace")
    text = head.decode("utf-8-sig", "replace").replace("\\/", "/")
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _from_file_names(file: BinaryIO) -> bytes:
    """The part of a COCO file in which its file names begin: it may be small and far behind."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        at = max(text.find(b'"file_name"'), 0)
        return text[at : at + PART]
