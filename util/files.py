"""Files: which are pictures, what folders contain, and how to write files whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from util.errors import RunError, UsageError
from util.marked import is_marked, may_be_marked

HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))  # decoded if pillow-heif is installed
DECODED = """.jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm
    .pfm .avif .avifs .jp2 .j2k .j2c .jpc .jpf .jpx .tga .icb .vda .vst"""
PICTURE_SUFFIXES = frozenset(DECODED.split())  # a test compares them with images/decode.py
if importlib.util.find_spec("pillow_heif"):
    PICTURE_SUFFIXES |= HEIC_SUFFIXES
NOT_DECODED = ".jxl .svg .eps .psd .ico .exr .hdr .dcm .raw .dng .cr2 .cr3 .nef .arw .raf .orf .rw2"
OTHER_PICTURES = HEIC_SUFFIXES | frozenset(NOT_DECODED.split())  # their owner would miss them
IGNORED = frozenset(  # what systems and archives leave in folders; names in lower case
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin")
)
BOM = "\ufeff"  # begins our CSV files: without it Excel takes them for another encoding
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet reads these as a formula (OWASP's list)


def suffix_of(name: str) -> str:
    """The suffix of a file name, in lower case: .jpg; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return suffix_of(name) in PICTURE_SUFFIXES


def is_ignored(name: str) -> bool:
    """Whether every command ignores a file or folder of this name: hidden, or a system's own."""
    return name.startswith(".") or name.lower() in IGNORED


def is_folder(entry: os.DirEntry) -> bool:
    """Whether this is a folder or a link to one; False for a broken link."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def is_file(entry: os.DirEntry) -> bool:
    """Whether this is a file or a link to one."""
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def is_own_drawing(folders: Collection[str], entry: os.DirEntry) -> bool:
    """Whether this program drew a picture; folders: those that it is in."""
    return may_be_marked(folders, entry.name) and is_marked(entry.path)


def walk(root: Path) -> Iterator[tuple[str, list[os.DirEntry]]]:
    """Each folder in `root`, at any depth, with its files; the first is "", `root` itself.

    Folders are relative to `root`, with /, in order of name; so are the files. Pictures that this
    program drew are left out. Links to folders are followed once, and only if they lead out of
    `root`. Raises UsageError for a folder that cannot be listed.
    """
    inside = os.path.join(os.path.realpath(root), "")
    seen, waiting = {inside}, [""]
    above = Path(os.path.abspath(root)).parts
    while waiting:
        folder, files, folders = waiting.pop(), [], []
        folders_above = {*above, *folder.split("/")}
        try:
            entries = list(os.scandir(os.path.join(root, folder)))
        except OSError as error:
            where = os.path.join(root, folder)
            raise UsageError(f"cannot list {where} ({error.strerror})") from None
        for entry in entries:
            if is_ignored(entry.name) or is_own_drawing(folders_above, entry):
                continue
            if not is_folder(entry):
                files.append(entry)
                continue
            if entry.is_symlink():
                target = os.path.join(os.path.realpath(entry.path), "")
                if target.startswith(inside) or inside.startswith(target) or target in seen:
                    continue
                seen.add(target)
            folders.append(f"{folder}/{entry.name}" if folder else entry.name)
        yield folder, sorted(files, key=lambda entry: entry.name)
        waiting += sorted(folders, reverse=True)


def left_out(names: Iterable[str]) -> str:
    """What to say of the files that are no pictures; empty if there are none.

    >>> left_out(["a.cr2", "b.cr2", "c.txt"])
    '2 .cr2 files left out: convert them to JPEG; 1 .txt file left out'
    """
    counts = Counter(suffix_of(name) or "other" for name in names)
    parts = []
    for suffix in sorted(counts, key=lambda s: (s not in OTHER_PICTURES, -counts[s], s)):
        files = "file" if counts[suffix] == 1 else "files"
        hint = ": convert them to JPEG" if suffix in OTHER_PICTURES else ""
        hint += " or install pillow-heif" if suffix in HEIC_SUFFIXES else ""
        parts.append(f"{counts[suffix]:,} {suffix} {files} left out{hint}")
    return "; ".join(parts)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path, then give what it wrote the name `path`.

    Makes the folder. If the process is killed meanwhile, nothing is left of the temporary file;
    only where the system has no files without a name, a hidden one beside `path` may be. Raises
    RunError if the file cannot be written.
    """
    # 60 characters have at most 240 bytes: a file name may have 255
    temporary = path.with_name(f".{path.name[:60]}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _nameless_file(path.parent) as descriptor:
            if descriptor is None:
                write(temporary)
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            else:
                nameless = f"/proc/self/fd/{descriptor}"
                write(Path(nameless))
                os.fsync(descriptor)
                temporary.unlink(missing_ok=True)  # in a container, process ids come again
                try:  # src_dir_fd has no effect, but makes Python ask the system to follow links
                    os.link(nameless, temporary, src_dir_fd=descriptor, follow_symlinks=True)
                except OSError:  # a file system without hard links
                    shutil.copyfile(nameless, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_whole(path: Path, content: bytes | str) -> None:
    """As `write_atomically`, for content that is there; a text is written in UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_picture(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """As `write_atomically`, but `write` gets an open file.

    Pillow 10 resolves a path before it writes, and a file without a name has none to resolve to.
    """

    def to(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    write_atomically(path, to)


@contextlib.contextmanager
def _nameless_file(folder: Path) -> Iterator[int | None]:
    """A new file on the folder's disk that ends with this process: Linux's O_TMPFILE, see open(2).

    Yields its descriptor, or None if the system has no such files.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (OSError, AttributeError):
        yield None
        return
    try:
        yield descriptor if os.path.exists(f"/proc/self/fd/{descriptor}") else None
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes) -> Path:
    """Write a file and change no other: returns its path, `name-2` if there is another `name`.

    A file that has this content already is left as it is. Raises RunError.
    """
    for number in itertools.count(1):
        free = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        if not os.path.lexists(free):
            write_whole(free, content)
            return free
        with contextlib.suppress(OSError):
            if free.stat().st_size == len(content) and free.read_bytes() == content:
                return free
    raise AssertionError("numbers do not end")


def make_folder(path: Path) -> None:
    """Make an output folder if it does not exist. Raises UsageError if it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot make the folder {path} ({reason}); choose another") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into the folder {path}; choose another")


def csv_text(name: str) -> str:
    """A name as the text of a CSV cell: a quote before it keeps a spreadsheet from running it."""
    return f"'{name}" if name.startswith(FORMULA) else name


def plain_cell(cell: str) -> str:
    """The name in a cell that `csv_text` wrote."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell


def without_nan(value: object) -> object:
    """A copy for JSON, which has no nan: undefined metrics become null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
