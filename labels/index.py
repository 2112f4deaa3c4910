"""A large annotation file is parsed once: later starts read a small index of what it says.

The index is a text of two lines, a header and one JSON value: reading it cannot run code. It lies
beside the file (`.instances_train2014.json.index`), or under ~/.cache/hybridnet where that folder
is read-only, and holds for one content of the file only:

- The header has the SHA-256 of the file, and that of its own second line.
- It also has a stamp of the file: size, times of change, inode. The same stamp means the same
  content, so that 300 MB need not be read, if the file had rested for a while when it was parsed.
  (Clocks are coarse: a second change within their tick would leave no trace. One of the times is
  the file system's own, which no program can set back.)
- With any other stamp (a copy, a file just written or touched) the content is hashed.

An index that is outdated, damaged or foreign is made anew; without a place for one, all is parsed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from util.errors import RunError
from util.files import write_atomically
from util.log import log

FORMAT_VERSION = "hybridnet-annotation-index-1"
LARGE = 1_000_000  # bytes; a smaller file is parsed in no time
REST = 2.0  # seconds; the tick of the coarsest file systems
T = TypeVar("T")


def read_once(path: Path, parse: Callable[[bytes], object], unpack: Callable[[object], T]) -> T:
    """unpack(parse(content of the file)), with `parse` left out if an index has its result.

    `parse` returns what JSON brings back alike: dictionaries, lists, texts, numbers; `unpack` may
    raise anything if given something else. Raises OSError if the file cannot be read.
    """
    stamp, now = _stamp(path), time.time()
    if stamp["size"] < LARGE:
        return unpack(parse(path.read_bytes()))
    header, plain, result = _load(path, unpack)
    if header.get("stamp") == stamp:
        return result
    data = path.read_bytes()
    content = hashlib.sha256(data).hexdigest()
    if header.get("content") != content:
        log(f"reading {path}, {len(data) / 1e6:,.0f} MB; the next start will be quicker")
        plain = parse(data)
        result = unpack(plain)
    rested = now - max(stamp["modified"], stamp["changed"]) / 1e9 > REST
    trusted = rested and _stamp(path) == stamp and os.name == "posix"  # others have no such time
    _save(
        path,
        {"format": FORMAT_VERSION, "content": content, "stamp": stamp if trusted else None},
        plain,
    )
    return result


def _stamp(path: Path) -> dict[str, int]:
    """What changes when the file does."""
    s = path.stat()
    times = {"modified": s.st_mtime_ns, "changed": s.st_ctime_ns}
    return {"size": s.st_size, **times, "inode": s.st_ino}


def _places(path: Path) -> Iterator[Path]:
    """Where the index of `path` may lie, the best place first."""
    path = path.absolute()
    # root may write to a read-only folder, but is not meant to
    if not path.parent.exists() or path.parent.stat().st_mode & 0o222:
        yield path.with_name(f".{path.name}.index")
    with contextlib.suppress(RuntimeError):  # there are users without a home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(os.fsencode(path)).hexdigest()
        yield cache / "hybridnet" / f"{name}.index"


def _load(path: Path, unpack: Callable[[object], T]) -> tuple[dict, object, T | None]:
    """The first index that is whole: header, value, unpacked value; an empty header if none is."""
    for place in _places(path):
        with contextlib.suppress(Exception):  # whatever a damaged index makes raise
            first, second = place.read_bytes().split(b"\n")
            header = json.loads(first)
            if (
                header["format"] == FORMAT_VERSION
                and header["body"] == hashlib.sha256(second).hexdigest()
            ):
                plain = json.loads(second)
                return header, plain, unpack(plain)
    return {}, None, None


def _save(path: Path, header: dict, plain: object) -> None:
    """Write the index to the first place that takes it."""
    second = json.dumps(plain, separators=(",", ":")).encode()
    first = json.dumps({**header, "body": hashlib.sha256(second).hexdigest()}).encode()
    for place in _places(path):
        with contextlib.suppress(RunError):
            write_atomically(place, lambda temporary: temporary.write_bytes(first + b"\n" + second))
            return
    log(f"{path} cannot be indexed: neither its folder nor ~/.cache/hybridnet can be written")
