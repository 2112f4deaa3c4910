"""COCO instances json (Lin et al. 2014) -> which labels are on which image, and where they are.

    images       id, file_name, (width, height)
    categories   id, name
    annotations  image_id, category_id, (bbox, segmentation, iscrowd)

In LVIS (Gupta et al. 2019) images have neg_category_ids: people have looked for these categories
and for those that are annotated. All others are unknown, or absent with `--blank absent`.

The decoder is given these types. It skips every other field without building an object for it.
The index of a folder of shards, shards.json, has the same format. Files that differ, such as LVIS
and panoptic COCO, are read by coco_variants.py.
"""

from __future__ import annotations

import codecs
import json
import posixpath
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import msgspec

from labels.annotated import SHARD_INDEX, AnnotatedImages, all_but
from labels.coco_variants import decode_variant
from labels.options import DEFAULTS, ReadOptions
from labels.text import GZIP, is_text, read_head, read_text
from util.errors import UsageError
from util.log import log
from util.reading import open_file

NAME = "COCO"
JSON_STARTS = [bytes([c]) for c in b'{["-0123456789ntfIN']
T = TypeVar("T", bound=msgspec.Struct)


class Image(msgspec.Struct, gc=False):
    """An entry of images."""

    id: int
    file_name: str
    neg_category_ids: list[int] | None = None  # LVIS: looked for, and not there


class Category(msgspec.Struct, gc=False):
    """An entry of categories."""

    id: int
    name: str


class Annotation(msgspec.Struct, gc=False):
    """An entry of annotations, without its geometry."""

    image_id: int
    category_id: int


class Instances(msgspec.Struct):
    """A COCO file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]
    info: Any = None


USED = {*Instances.__struct_fields__, "contributor"}
USED = USED.union(*(kind.__struct_fields__ for kind in (Image, Category, Annotation)))


def matches(path: Path) -> bool:
    """Whether this is JSON, zipped or not, or a folder of shards."""
    if path.is_dir():
        return (path / SHARD_INDEX).is_file()
    head, text = read_head(path)
    return (
        head.startswith(GZIP)
        or path.name.lower().endswith((".json", ".json.gz"))
        or text[:1] in ("{", "[")
    )


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """The same as read_annotations, also for a folder of shards."""
    return read_annotations(path / SHARD_INDEX if path.is_dir() else path, options)


def read_annotations(path: Path, options: ReadOptions = DEFAULTS) -> AnnotatedImages:
    """Read COCO instances (.json, .json.gz), the images in order of id.

    Raises UsageError, naming file and entry, if it is not COCO.
    """
    data = read_instances(path, Instances)
    name_of = {category.id: category.name for category in data.categories}
    labels_of: dict[int, dict[str, None]] = {image.id: {} for image in data.images}
    for annotation in data.annotations:
        labels_of[annotation.image_id][name_of[annotation.category_id]] = None
    images = sorted(data.images, key=lambda image: image.id)
    categories = sorted(set(name_of.values()))
    unknown = None
    is_checked = any(image.neg_category_ids is not None for image in images)
    if options.silence_is_unknown(is_checked):
        said = [
            {*labels_of[i.id], *(name_of.get(n, "") for n in i.neg_category_ids or ())}
            for i in images
        ]
        unknown = all_but(categories, said)
        what = "neither annotated nor in neg_category_ids" if is_checked else "not annotated"
        log(f"{path}: labels that are {what} are unknown; --blank absent reads them as absent")
    return AnnotatedImages(
        str(path),
        file_names=[image.file_name for image in images],
        label_sets=[tuple(labels_of[image.id]) for image in images],
        categories=categories,
        kind=NAME,
        unknown=unknown,
    )


class Rle(TypedDict):
    """A mask as COCO writes it, run after run, column by column."""

    size: list[int]  # height, width
    counts: list[int] | str


class ObjectAnnotation(Annotation):
    """An entry of annotations with its geometry. Masks stay undecoded until they are asked for."""

    bbox: list[float] | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: int = 0


class SizedImage(Image):
    """An entry of images with its size in pixels."""

    width: int | None = None
    height: int | None = None


class ObjectInstances(Instances):
    """A COCO file with its geometry."""

    images: list[SizedImage]
    annotations: list[ObjectAnnotation]


class CocoObject(msgspec.Struct, frozen=True, gc=False):
    """One object of an image, with its place in pixels from the top left corner."""

    label: str
    bbox: list[float] | None  # x, y, width, height
    iscrowd: bool  # a mask over many objects of the label
    image_size: tuple[int, int] | None  # width, height
    place: str  # file and entry, for messages
    raw_segmentation: msgspec.Raw

    @property
    def segmentation(self) -> list[list[float]] | Rle | None:
        """Polygons [x, y, x, y, ...], or a mask as pycocotools.mask takes it. Raises UsageError."""
        try:
            found = msgspec.json.decode(self.raw_segmentation, type=list[list[float]] | Rle | None)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UsageError(f"{self.place} has a wrong segmentation: {error}") from None
        if isinstance(found, list) and any(len(p) < 6 or len(p) % 2 for p in found):
            raise UsageError(f"{self.place} has a polygon of fewer than 3 points, or half a point")
        return found or None


def read_objects(path: Path) -> dict[str, list[CocoObject]]:
    """The objects of each image by file name, in the file's order, for every listed image.

    Raises UsageError, naming file and entry, if it is not COCO or has neither boxes nor masks.
    """
    data = read_instances(path, ObjectInstances)
    name_of = {category.id: category.name for category in data.categories}
    images = {image.id: image for image in data.images}
    objects: dict[str, list[CocoObject]] = {image.file_name: [] for image in data.images}
    for i, a in enumerate(data.annotations):
        place = f"{path}: annotations[{i}]"
        if a.bbox and len(a.bbox) != 4:
            raise UsageError(f"{place} needs a bbox of 4 numbers: x, y, width, height")
        image = images[a.image_id]
        size = (image.width, image.height) if image.width and image.height else None
        name, crowd = name_of[a.category_id], bool(a.iscrowd)
        found = CocoObject(name, a.bbox or None, crowd, size, place, a.segmentation)
        objects[image.file_name].append(found)
    empty = (b"null", b"[]")
    if not any(a.bbox or bytes(a.segmentation) not in empty for a in data.annotations):
        raise UsageError(f"{path} has no boxes or masks: name annotations that have them")
    return objects


def read_instances(path: Path, kind: type[T]) -> T:
    """Decode a file as `kind`, which has the fields of Instances, and check ids and names.

    Raises UsageError, naming file and entry.
    """
    try:
        _refuse_junk(path)
        data = _decode(read_text(path), kind, path)
    except OSError as error:
        raise UsageError(f"cannot read the annotations {path} ({error.strerror})") from None
    except MemoryError:
        raise UsageError(f"{path} needs more memory than there is: split it") from None
    info = data.info if isinstance(data.info, dict) else {}
    if info.get("contributor") == "Label Studio":
        # Its exports name files in its own folders: keep the last part of each name.
        # https://github.com/HumanSignal/label-studio/issues/7294
        for image in data.images:
            image.file_name = image.file_name.replace("\\", "/").split("/")[-1]
    _check_ids(data, path)
    _check_names(data, path)
    return data


def _refuse_junk(path: Path) -> None:
    """Raise UsageError for a file whose first character begins no JSON, however long it is."""
    with open_file(path) as file:
        while (start := file.read(2**20)) and not (start := start.lstrip()):
            pass
    start = start.removeprefix(codecs.BOM_UTF8)
    if start[:1] not in JSON_STARTS and not start.startswith(GZIP):
        raise UsageError(f"{path} is not COCO instances json: it does not begin as JSON")


def _decode(text: str, kind: type[T], path: Path) -> T:
    wrong = f"{path} is not COCO instances json"
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if kind is not Instances:
                raise
            # Python also writes NaN and half characters, which are not strict JSON
            return msgspec.convert(json.loads(text, object_hook=_without_geometry), kind)
    except msgspec.ValidationError as error:
        if (variant := decode_variant(text, kind, path)) is not None:
            return variant
        raise UsageError(f"{wrong}: {_in_plain_words(error)}") from None
    except RecursionError:
        raise UsageError(f"{wrong}: it is nested too deeply") from None
    except (ValueError, msgspec.DecodeError) as error:
        raise UsageError(f"{wrong} ({error})") from None


def _without_geometry(entry: dict) -> dict:
    """Called for each object as soon as it is read, so that polygons do not fill the memory."""
    return {key: entry[key] for key in USED if key in entry}


def _in_plain_words(error: msgspec.ValidationError) -> str:
    """From "Expected `int`, got `str` - at `$.images[0].id`", say: what is wrong, and where."""
    what, _, place = str(error).partition(" - at ")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    what = (what[:1].lower() + what[1:]).replace("`", "")
    if "[" in place:
        return f"{what} at {place}"
    where = f" at {place}" if place else ""
    return f"{what}{where}; it needs the lists images, annotations and categories"


def _check_ids(data: Instances, path: Path) -> None:
    """Raise UsageError for an id that two entries share, and for one that no entry has."""
    images = {image.id for image in data.images}
    categories = {category.id for category in data.categories}
    for part, known in (("images", images), ("categories", categories)):
        if len(known) < len(getattr(data, part)):
            raise UsageError(f"{path}: two entries of {part} have the same id")
    if not images:
        raise UsageError(f"{path} lists no images")
    for i, annotation in enumerate(data.annotations):
        if annotation.image_id not in images:
            what = f"image_id {annotation.image_id}, which is not in images"
        elif annotation.category_id not in categories:
            what = f"category_id {annotation.category_id}, which is not in categories"
        else:
            continue
        raise UsageError(f"{path}: annotations[{i}] has {what}")


def _check_names(data: Instances, path: Path) -> None:
    """Raise UsageError for a name that is no text or names no file, and for one used twice.

    An unused category may share a name: some exports list the group "fish" beside the label.
    """
    names = {"images": [image.file_name for image in data.images]}
    names["categories"] = [category.name for category in data.categories]
    for part, texts in names.items():
        for i, text in enumerate(texts):
            if not is_text(text):
                raise UsageError(f"{path}: the name of {part}[{i}] has half a character in it")
    for i, name in enumerate(names["images"]):
        if not is_file_name(name):
            raise UsageError(f"{path}: images[{i}] has file_name {name!r}, which names no file")
    in_use = {annotation.category_id for annotation in data.annotations}
    labels = [c.name if c.id in in_use else c.id for c in data.categories]
    files = [posixpath.normpath(name) for name in names["images"]]
    for part, entries in (("images", files), ("categories", labels)):
        first: dict[object, int] = {}
        for i, name in enumerate(entries):
            if first.setdefault(name, i) != i:
                raise UsageError(
                    f"{path}: {part}[{first[name]}] and {part}[{i}] are both called {name!r}"
                )


def is_file_name(name: str) -> bool:
    """Whether a name can be that of a file; images/find.py finds none outside its folder."""
    return name.replace("\\", "/").rpartition("/")[2] not in ("", ".", "..") and "\0" not in name
