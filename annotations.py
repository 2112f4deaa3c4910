"""COCO instances json -> which labels are on which image. Files only: no pixels, no tensors."""

from __future__ import annotations

import contextlib
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from annotation_index import read_once
from utils import UsageError, log
from vocabulary import Vocabulary

NO_JSON = "{} is not a json file; --annotations takes COCO instances"
JSON_STARTS = [bytes([c]) for c in b'{["-0123456789ntfIN']
SHARD_INDEX = "shards.json"  # annotations that lie with their images, see shards.py


@dataclass(frozen=True)
class AnnotatedImages:
    """What an annotation file says: one entry per image, in order of image id."""

    source: str
    file_names: list[str]
    label_sets: list[tuple[str, ...]]  # label names, without repetition
    categories: list[str]

    def __len__(self) -> int:
        return len(self.file_names)

    def select(self, keep: list[int]) -> AnnotatedImages:
        """The entries at these positions, in this order."""
        return AnnotatedImages(
            self.source,
            [self.file_names[i] for i in keep],
            [self.label_sets[i] for i in keep],
            self.categories,
        )

    def labelled(self) -> AnnotatedImages:
        """Without the images that have no label."""
        return self.select([i for i, labels in enumerate(self.label_sets) if labels])


def read_annotations(path: Path) -> AnnotatedImages:
    """Read a COCO instances json; a large one is parsed once, see annotation_index.py.

    Raises UsageError, naming file and entry, if it is not one.
    """

    def unpack(plain: dict) -> AnnotatedImages:
        file_names, categories = plain["file_names"], plain["categories"]
        label_sets = [tuple(map(categories.__getitem__, s)) for s in plain["label_sets"]]
        if len(file_names) != len(label_sets):
            raise ValueError("not an index of annotations")
        _check_file_names(file_names, path)  # whoever made the index
        return AnnotatedImages(str(path), file_names, label_sets, categories)

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
        if start[:1] not in JSON_STARTS:
            raise UsageError(NO_JSON.format(path))


def _parse(content: bytes, path: Path) -> dict[str, list]:
    """The fields of AnnotatedImages, with label sets as positions in `categories`."""
    try:
        data = json.loads(content.decode(), object_hook=_without_geometry)
    except (ValueError, RecursionError):
        raise UsageError(NO_JSON.format(path)) from None
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


def _without_geometry(entry: dict) -> dict:
    """Called for each object as soon as it is read: polygons never pile up."""
    return {key: entry[key] for key in USED if key in entry}


COCO_ENTRIES = {
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int},
}
USED = {*COCO_ENTRIES, *(key for fields in COCO_ENTRIES.values() for key in fields)}


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
    for i, labels in enumerate(images.label_sets):
        for label in labels:
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
