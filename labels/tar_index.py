"""Index of WebDataset tars that were made elsewhere: which pictures they hold, where, and what
stands beside each.

    0001.jpg  0001.json  0001.cls  0001.txt         one sample: same folder, same name up to a dot

The index is shards.json in the folder of the tars, as data/make_shards.py writes it (see
images/shards.py), but with the raw texts of each sample instead of annotations. They become labels
whenever the index is read, so that names of numbers or a separator can be changed later.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from labels.annotated import SHARD_INDEX
from util.errors import RunError, UsageError
from util.files import is_ignored, is_picture, walk, write_whole
from util.log import log, progress
from util.reading import check_ordinary, open_file

TEXTS = ("json", "cls", "txt", "label", "labels", "class", "classes", "tag", "tags")
MOST = 1 << 20  # bytes of a text: labels are short
MOST_PADDING = 1 << 26  # bytes of zeros at the end of a tar: tapes have blocks of some megabytes
Fields = dict[str, Any]


def find_tars(folder: Path) -> list[Path]:
    """The tars of a folder, in order of name; none if it has pictures, too.

    A tar beside pictures is most likely what they were unpacked from.
    """
    tars = sorted(p for p in folder.glob("*.tar") if p.is_file() and not is_ignored(p.name))
    if tars and any(is_picture(file.name) for _, files in walk(folder) for file in files):
        return []
    return tars


def make_index(folder: Path) -> Path:
    """Read the headers and the texts of all tars and write the index. Raises UsageError."""
    shards, images = [], []
    for number, path in enumerate(progress(find_tars(folder), "indexing")):
        for member, offset, name, fields in _samples(path):
            place = {"shard": number, "offset": offset, "member": name}
            about = {"id": len(images), "file_name": f"{path.stem}/{member}", "fields": fields}
            images.append(about | place)
        shards.append({"file_name": path.name, "bytes": path.stat().st_size})
    if not images:
        raise UsageError(f"{folder}: its tars contain no pictures")
    if not any(image["fields"] for image in images):
        raise UsageError(
            f"{folder}: no .json, .cls or .txt beside the pictures in its tars has labels: unpack "
            "the tars if the labels are in another file"
        )
    index = folder / SHARD_INDEX
    text = json.dumps({"made_elsewhere": True, "shards": shards, "images": images})
    try:
        write_whole(index, text)
    except RunError as error:
        raise UsageError(f"{error}: the index of tars lies beside them; copy them") from None
    log(
        f"{folder}: {len(shards):,} {'tar' if len(shards) == 1 else 'tars'} with {len(images):,} "
        f"pictures; the index is written to {index}, delete it to have it made again"
    )
    return index


def _samples(path: Path) -> list[tuple[str, int, str, Fields]]:
    """Of each picture: its name, where its tar header is, its name there, and the texts beside it.

    Raises UsageError for a damaged tar and for samples of several pictures.
    """
    members, odd = _members(path)
    if odd:
        log(f"{path}: {odd:,} links or devices in it are left out")
    pictures = [name for name in members if is_picture(name)]
    texts = [name for name in members if not is_picture(name)]
    by_last_dot = {_until_last_dot(name) for name in pictures}
    dotted = any("." in _ending(name) for name in pictures)
    last = dotted and all(_until_last_dot(name) in by_last_dot for name in texts)
    key_of = _until_last_dot if last else _until_first_dot
    found: dict[str, tuple[str, Fields]] = {}
    for name in pictures:
        other = found.setdefault(key_of(name), (name, {}))[0]
        if other != name:
            raise UsageError(
                f"{path} has two pictures in one sample, {other} and {name}: keep one of them"
            )
    alone = [name for name in texts if key_of(name) not in found]
    if alone:
        log(f"{path}: {len(alone):,} texts without a picture are left out, as {alone[0]}")
    for name in texts:
        if key_of(name) in found:
            ending = name.rsplit(".", 1)[1].lower() if last else _ending(name)
            found[key_of(name)][1][ending] = members[name]
    return [(name, *members[name], fields) for name, fields in found.values()]


def _members(path: Path) -> tuple[dict[str, Any], int]:
    """(offset, name in the header) of each picture, the content of each text; other files not.

    Raises UsageError if the tar is damaged, zipped or several tars in one file.
    """
    found, odd = {}, 0
    check_ordinary(path)
    try:
        with tarfile.open(path, "r:") as tar, open_file(path) as file:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir() or any(is_ignored(part) for part in name.split("/")):
                    continue
                is_text = _ending(name).rpartition(".")[2] in TEXTS
                if not is_picture(name) and not is_text:
                    continue
                if not member.isreg():
                    odd += 1
                    continue
                if name in found:
                    raise UsageError(f"{path} has {name} twice: keep one of them")
                # a long name has blocks of its own before the header, which this skips
                offset = member.offset_data - tarfile.BLOCKSIZE
                if is_picture(name):
                    file.seek(offset)
                    block = file.read(tarfile.BLOCKSIZE)
                    header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                    found[name] = (offset, header.name)
                else:
                    found[name] = _read_text(tar, member, path)
            _check_end(file, tar.offset, path)
    except (tarfile.TarError, OverflowError, EOFError) as error:
        raise UsageError(
            f"{path} is damaged or zipped ({error}): copy it again, or unzip it with gunzip"
        ) from None
    return found, odd


def _check_end(file: BinaryIO, offset: int, path: Path) -> None:
    """Raise UsageError if there is more than zeros from here on, or more than MOST_PADDING."""
    file.seek(offset)
    if file.read(MOST_PADDING).strip(b"\0"):
        raise UsageError(
            f"{path} has data after its end: it is several tars in one file; unpack it with tar "
            "--ignore-zeros and pack it again"
        )
    if file.read(1):
        raise UsageError(
            f"{path} has more than {MOST_PADDING >> 20} MiB of zeros at its end: it is damaged; "
            "copy it again"
        )


def _read_text(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> object:
    """The text of a member, or its data if it is JSON. Raises UsageError."""
    if member.size > MOST:
        raise UsageError(f"{path}: {member.name} has {member.size:,} bytes, too many for labels")
    try:
        text = tar.extractfile(member).read().decode("utf-8-sig").strip()
        return json.loads(text) if member.name.lower().endswith(".json") else text
    except (ValueError, RecursionError):
        what = "JSON" if member.name.lower().endswith(".json") else "UTF-8 text"
        raise UsageError(f"{path}: {member.name} is not {what}") from None


def _until_first_dot(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _until_last_dot(name: str) -> str:
    return name.rpartition(".")[0]


def _ending(name: str) -> str:
    """All of a name after its first dot, in lower case: jpg, seg.png."""
    return name.rpartition("/")[2].partition(".")[2].lower()
