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
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from annotation_index import read_once
from tags import spellings
from utils import UsageError, log
from vocabulary import Vocabulary

NO_JSON = "{} is not a json file; --annotations takes COCO instances"
JSON_STARTS = [bytes([c]) for c in b'{["-0123456789ntfIN']
SHARD_INDEX = "shards.json"  # annotations that lie with their images, see shards.py


@dataclass(frozen=True)
class AnnotatedImages:
    """What annotations say: one entry per image, of COCO in order of image id, else as listed.

    splits: train, val or test for each image, where the annotations divide their images.
    difficult: those of each image's labels that VOC's figures leave out, see voc.py.
    """

    source: str
    file_names: list[str]
    label_sets: list[tuple[str, ...]]  # label names, without repetition
    categories: list[str]
    kind: str = "COCO"  # the format it was read from
    splits: list[str] | None = None
    difficult: list[tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.file_names)

    def select(self, keep: list[int]) -> AnnotatedImages:
        """The entries at these positions, in this order."""
        columns = ("file_names", "label_sets", "splits", "difficult")
        given = {name: column for name in columns if (column := getattr(self, name)) is not None}
        return replace(self, **{name: [c[i] for i in keep] for name, c in given.items()})

    def labelled(self) -> AnnotatedImages:
        """Without the images that have no label."""
        return self.select([i for i, labels in enumerate(self.label_sets) if labels])

    def of_split(self, *names: str) -> AnnotatedImages:
        """The images of the first of these splits that there is; all if images are not divided."""
        if self.splits is None:
            return self
        name = next((name for name in names if name in self.splits), None)
        if name is None:
            raise UsageError(f"{self.source} has no image of the split {' or '.join(names)}")
        log(f"{self.source}: the split {name} is used, {self.splits.count(name):,} images")
        return self.select([i for i, split in enumerate(self.splits) if split == name])


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


def from_plain(plain: dict, path: Path, kind: str = "COCO") -> AnnotatedImages:
    """AnnotatedImages of their fields, with label sets as positions in `categories`.

    Raises many things if given something else.
    """
    file_names, categories, splits = plain["file_names"], plain["categories"], plain.get("splits")
    label_sets = [tuple(map(categories.__getitem__, s)) for s in plain["label_sets"]]
    if len({len(each) for each in (file_names, label_sets, splits or file_names)}) > 1:
        raise ValueError("not an index of annotations")
    return AnnotatedImages(str(path), file_names, label_sets, categories, kind, splits)


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


def encode_targets(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray:
    """N×C bool. Labels the vocabulary dropped are ignored; unknown ones raise UsageError."""
    targets = np.zeros((len(images), len(vocabulary)), bool)
    dropped = set(vocabulary.dropped)
    ignored = 0
    spelling = spellings(images, vocabulary)
    for i, labels in enumerate(images.label_sets):
        for label in labels:
            label = spelling.get(label, label)
            if label in vocabulary.rank:
                targets[i, vocabulary.rank[label]] = True
            elif label in dropped:
                ignored += 1
            else:
                raise UsageError(
                    f"{images.source} has the label {label!r}, which the vocabulary lacks; "
                    "build one with build_vocab.py from these annotations"
                )
    if ignored:
        log(f"{images.source}: {ignored:,} labels too rare for the vocabulary are ignored")
    return targets


def encode_difficult(images: AnnotatedImages, vocabulary: Vocabulary) -> np.ndarray | None:
    """N×C bool: where neither yes nor no is right, see voc.py; None if the format has no such."""
    if not images.difficult or not any(images.difficult):
        return None
    return encode_targets(replace(images, label_sets=images.difficult), vocabulary)


def find_annotations(image_path: Path, prefer: str) -> Path:
    """The annotation file for images given without one: data/images -> data/annotations.

    Of several files takes the only one that lists the image (for a single image), that bears the
    folder's name, or that is called instances_<prefer>2014.json. Raises UsageError otherwise.
    A folder of shards brings its own.
    """
    if (image_path / SHARD_INDEX).is_file():
        return image_path / SHARD_INDEX
    start = image_path.parent if image_path.is_file() else image_path
    folder = next(
        (p / "annotations" for p in start.absolute().parents[:2] if (p / "annotations").is_dir()),
        None,
    )
    if folder is None:
        raise UsageError(f"no annotations folder beside {image_path}; name it with --annotations")
    files = sorted(folder.glob("*.json"))
    if image_path.is_file() and len(files) > 1:
        listing = [f for f in files if _lists(f, image_path.name)]
    else:
        listing = [f for f in files if start.name in f.stem]
    preferred = [f for f in files if f.stem == f"instances_{prefer}2014"]
    instances = [f for f in listing if f.stem.startswith("instances")]  # not its keypoints
    for choice in (files, listing, instances, [] if image_path.is_file() else preferred):
        if len(choice) == 1:
            return _relative(choice[0])
    names = ", ".join(f.name for f in files) or "no json file"
    raise UsageError(f"{_relative(folder)} holds {names}: name the one with --annotations")


def _lists(path: Path, file_name: str) -> bool:
    with contextlib.suppress(UsageError):
        return any(PurePosixPath(n).name == file_name for n in read_annotations(path).file_names)
    return False


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
