"""How every file is read that may come from someone else.

An ordinary file of bounded size, plain types, finite numbers. Opening a pipe would block for ever,
/dev/zero never ends, and a few bytes can claim an array of terabytes. What a file is read for is
checked by its reader: which types belong where, and which shapes belong together.

All functions raise OSError if a file cannot be opened, UsageError if it is not an ordinary file or
too large.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import msgspec
import numpy as np

from util.errors import UsageError

MOST_TEXT = 4 << 30  # bytes of a label file
MOST_JSON = 100_000_000  # bytes of our own JSON files and of lists
MOST_LINE = 1 << 26  # bytes of a line of text
MOST_ARRAYS = 1 << 30  # bytes of all arrays in a file, unpacked
BLOCK = 1 << 20  # bytes
MOST_INT = 2**63  # larger numbers are no counts, and have no place in arrays
PLAIN_KINDS = "biufU"  # of numpy's types: no objects, whose bytes may be a program
HEADERS = {  # of the versions that numpy writes for arrays of these types
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def is_ordinary(path: Path) -> bool:
    """False for a pipe, a device or a folder; True if nothing is there: opening says so."""
    return os.path.isfile(path) or not os.path.exists(path)


def check_ordinary(path: Path) -> None:
    """Raise UsageError for a pipe or a device: what a library opens by its name cannot be asked."""
    if not (is_ordinary(path) or os.path.isdir(path)):
        raise UsageError(_not_ordinary(path))


def open_file(path: Path, most: int | None = None) -> BinaryIO:
    """The file, opened for reading bytes. most: of its size in bytes."""
    # without O_NONBLOCK, opening a pipe blocks until someone writes to it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    about = os.fstat(descriptor)
    is_too_large = most is not None and about.st_size > most
    if stat.S_ISREG(about.st_mode) and not is_too_large:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if is_too_large:
        raise UsageError(_too_large(path, most))
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise UsageError(_not_ordinary(path))


def _not_ordinary(path: Path) -> str:
    return f"{path} is not an ordinary file: save what it gives as a file, and name that"


def _too_large(path: Path, most: int) -> str:
    size = f"{most / 2**30:.0f} GiB" if most >= 2**30 else f"{most / 1e6:.0f} MB"
    return f"{path} is larger than {size}: this is no such file"


def read_bytes(path: Path, most: int = MOST_JSON) -> bytes:
    """The whole file, of at most so many bytes."""
    with open_file(path, most) as file:
        # not read(most + 1), which takes memory for as many bytes before it reads
        data = file.read(os.fstat(file.fileno()).st_size)
        while len(data) <= most and (more := file.read(BLOCK)):  # it grew meanwhile
            data += more
    if len(data) > most:
        raise UsageError(_too_large(path, most))
    return data


def lines_of(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines from here on, with their ends; `for line in file` has no limit on one line.

    Raises UsageError for one that is longer than MOST_LINE.
    """
    while line := file.readline(MOST_LINE + 1):
        if len(line) > MOST_LINE:
            raise UsageError(f"{path} has a line of more than {MOST_LINE >> 20} MiB: it is no text")
        yield line


def read_json(path: Path, kind: Any = Any, most: int = MOST_JSON, any_number: bool = False) -> Any:
    """A JSON file with values of the type `kind`, see `parse_json`. Also raises ValueError."""
    return parse_json(read_bytes(path, most), kind, any_number)


def parse_json(text: bytes | str, kind: Any = Any, any_number: bool = False) -> Any:
    """JSON -> values of plain types. `kind` is any type that msgspec knows; other fields stay.

    Raises ValueError for what is not JSON, for another type and, unless any_number, for numbers
    that are not finite or larger than MOST_INT.
    """
    checks = {"parse_constant": _refuse_number, "parse_float": _finite, "parse_int": _bounded}
    try:
        found = json.loads(text, **({} if any_number else checks))
        msgspec.convert(found, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return found


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _bounded(text: str) -> int:
    value = int(text)
    return value if abs(value) < MOST_INT else _refuse_number(text)


def read_arrays(path: Path, most: int = MOST_ARRAYS) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of numpy: numbers and texts. Raises ValueError if it is damaged.

    An array has exactly the bytes that its shape and type need, before memory is taken for it.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("two of its arrays have the same name")
            if sum(member.file_size for member in members.values()) > most:
                raise ValueError("its arrays are too large")
            return {
                name.removesuffix(".npy"): _read_array(archive, member)
                for name, member in members.items()
            }
    except (OSError, UsageError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise almost anything for a damaged file
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
        if dtype.kind not in PLAIN_KINDS or size != member.file_size:
            raise ValueError(f"its array {member.filename[:40]!r} is not as large as it says")
        array = np.empty(shape, dtype, "F" if is_fortran else "C")
        if array.nbytes:
            _fill(memoryview(array.ravel("A").view(np.uint8)), file)
        if file.read(1):  # its end: the checksum is compared there
            raise ValueError("it is larger than it says")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"its array {member.filename[:40]!r} has numbers that are not finite")
    return array


def _fill(memory: memoryview, file: IO[bytes]) -> None:
    """Read as many bytes as `memory` has, in blocks. `file.read()` would take twice the memory."""
    for start in range(0, len(memory), BLOCK):
        block = memory[start : start + BLOCK]
        if file.readinto(block) < len(block):
            raise ValueError("it is truncated")
