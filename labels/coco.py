"""Which labels are on which image: what every reader gives, and the reader of COCO instances json.

Files only: no pixels, no tensors. label_formats.py is the door to all formats.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import posixpath
import zlib
from pathlib import Path

from labels.annotated import AnnotatedImages, from_plain
from labels.index import read_once
from util.errors import UsageError

NO_JSON = "{} is not a json file; --annotations takes COCO instances"
JSON_STARTS = [bytes([c]) for c in b'{["-0123456789ntfIN']


def read_annotations(path: Path) -> AnnotatedImages:
    """Read COCO instances (.json, .json.gz); a large file is parsed once: annotation_index.py.

    For any format see label_formats.read_labels. Raises UsageError, naming file and entry, if it is
    not COCO.
    """

    def unpack(plain: dict) -> AnnotatedImages:
        _check_file_names(plain["file_names"], path)  # whoever made the index
        return from_plain(plain, path)

    try:
        _refuse_junk(path)
        return read_once(path, lambda content: _parse(content, path), unpack)
    except OSError as error:
        raise UsageError(f"cannot read the annotations {path} ({error.strerror})") from None
    except MemoryError:
        raise UsageError(f"{path} needs more memory than there is: split it") from None


def _refuse_junk(path: Path) -> None:
    """Raise UsageError for a file whose first character begins no JSON, however long it is."""
    if path.is_file():  # a pipe can be read only once
        with path.open("rb") as file:
            while (start := file.read(2**20)) and not (start := start.lstrip()):
                pass
        start = start.removeprefix(codecs.BOM_UTF8)
        if start[:1] not in JSON_STARTS and not start.startswith(GZIP):
            raise UsageError(NO_JSON.format(path))


def _parse(content: bytes, path: Path) -> dict[str, list]:
    """What `from_plain` takes."""
    if content.startswith(GZIP):
        content = _unzip(content, path)
    try:
        data = json.loads(content.decode("utf-8-sig"), object_hook=_without_geometry)
    except (ValueError, RecursionError):
        raise UsageError(NO_JSON.format(path)) from None
    _mend_label_studio(data)
    _check_coco(data, path)
    # an annotation's id is nothing we use, and not every file has it, but the index needs one
    data["annotations"] = [{**a, "id": n} for n, a in enumerate(data["annotations"])]
    from pycocotools.coco import COCO  # imports matplotlib, which an indexed file does without

    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(None):
        coco.createIndex()
    categories = sorted({entry["name"] for entry in coco.cats.values()})
    position = {name: i for i, name in enumerate(categories)}
    positions = {c: position[entry["name"]] for c, entry in coco.cats.items()}
    ids = sorted(coco.imgs)
    return {
        "file_names": [coco.imgs[i]["file_name"] for i in ids],
        "label_sets": [
            list(dict.fromkeys(positions[a["category_id"]] for a in coco.imgToAnns[i])) for i in ids
        ],
        "categories": categories,
    }


GZIP = b"\x1f\x8b"
UNZIPPED = 4 << 30  # bytes at most: a small file from a stranger can unpack to any size


def _unzip(content: bytes, path: Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unzipped = file.read(UNZIPPED + 1)
    except (OSError, EOFError, zlib.error):
        raise UsageError(f"{path} is damaged: it cannot be unzipped; copy it again") from None
    if len(unzipped) > UNZIPPED:
        raise UsageError(f"{path} unpacks to more than {UNZIPPED >> 30} GiB: too large")
    return unzipped


def _mend_label_studio(data: object) -> None:
    """Its exports for Windows and of COCO with images lead to its own folders: keep the name alone.

    (https://github.com/HumanSignal/label-studio/issues/7294)
    """
    info = data.get("info") if isinstance(data, dict) else None
    if not isinstance(info, dict) or info.get("contributor") != "Label Studio":
        return
    for image in data["images"] if isinstance(data.get("images"), list) else ():
        name = image.get("file_name") if isinstance(image, dict) else None
        if isinstance(name, str):
            image["file_name"] = name.replace("\\", "/").split("/")[-1]


def _without_geometry(entry: dict) -> dict:
    """Called for each object as soon as it is read: polygons never pile up."""
    return {key: entry[key] for key in USED if key in entry}


COCO_ENTRIES = {
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int},
}
USED = {*COCO_ENTRIES, *(key for fields in COCO_ENTRIES.values() for key in fields)}
USED |= {"info", "contributor"}


def _check_coco(data: object, path: Path) -> None:
    """Raise UsageError for the first entry that is not as COCO instances have it."""
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in COCO_ENTRIES):
        raise UsageError(
            f"{path} is not in COCO instances format: it needs the lists "
            "images, annotations and categories"
        )
    for part, fields in COCO_ENTRIES.items():
        for i, entry in enumerate(data[part]):
            for key, kind in fields.items():
                if not isinstance(entry, dict) or not _is_a(kind, entry.get(key)):
                    what = "a whole number" if kind is int else "a text"
                    raise UsageError(f'{path}: {part}[{i}] needs "{key}", {what}')
    for part in ("images", "categories"):
        if len({entry["id"] for entry in data[part]}) < len(data[part]):
            raise UsageError(f"{path}: two entries of {part} have the same id")
    if not data["images"]:
        raise UsageError(f"{path} lists no images")
    known = {part: {entry["id"] for entry in data[part]} for part in ("images", "categories")}
    for i, entry in enumerate(data["annotations"]):
        for key, part in (("image_id", "images"), ("category_id", "categories")):
            if entry[key] not in known[part]:
                raise UsageError(
                    f"{path}: annotations[{i}] has {key} {entry[key]}, which is not in {part}"
                )
    _check_names(data, path)


def _check_names(data: dict, path: Path) -> None:
    """Raise UsageError for a file listed twice, and for two categories in use of one name.

    One that is not in use does no harm: some exports list the group "fish" beside the label.
    """
    names = [posixpath.normpath(entry["file_name"]) for entry in data["images"]]
    _check_file_names([entry["file_name"] for entry in data["images"]], path)
    in_use = {a["category_id"] for a in data["annotations"]}
    labels = [c["name"] if c["id"] in in_use else c["id"] for c in data["categories"]]
    for part, entries in (("images", names), ("categories", labels)):
        first: dict[object, int] = {}
        for i, name in enumerate(entries):
            if first.setdefault(name, i) != i:
                raise UsageError(
                    f"{path}: {part}[{first[name]}] and {part}[{i}] are both called {name!r}"
                )


def _check_file_names(names: list[str], path: Path) -> None:
    """Raise UsageError for the first name that leads out of the image folder."""
    for i, text in enumerate(names):
        parts = text.replace("\\", "/").split("/")
        drive = parts[0][1:2] == ":"  # Windows', where even C:a.jpg is elsewhere
        if not parts[0] or drive or ".." in parts or set(parts) <= {"", "."} or "\0" in text:
            raise UsageError(
                f"{path}: images[{i}] has file_name {text!r}, which is not inside the image folder"
            )


def _is_a(kind: type, value: object) -> bool:
    """Exactly of that type (true is not 1), and no text with half a character in it."""
    if type(value) is not kind:
        return False
    return kind is not str or value.encode(errors="replace").decode() == value
