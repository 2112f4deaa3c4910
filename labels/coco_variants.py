"""COCO files that differ from instances json, read as if they did not:

    LVIS        images have coco_url instead of file_name
    panoptic    annotations have segments_info with a category_id each
    text ids    "id": "im7"

Captions have no categories and are refused.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from util.errors import UsageError

NOTHING = msgspec.Raw(b"null")
Id = int | str


class Image(msgspec.Struct, gc=False):
    id: Id
    file_name: str | None = None
    coco_url: str | None = None
    width: int | None = None
    height: int | None = None
    neg_category_ids: list[Id] | None = None  # LVIS


class Category(msgspec.Struct, gc=False):
    id: Id
    name: str


class Segment(msgspec.Struct, gc=False):
    category_id: Id
    bbox: list[float] | None = None
    iscrowd: int = 0


class Annotation(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Id | None = None
    segments_info: list[Segment] | None = None
    caption: msgspec.Raw = NOTHING
    bbox: list[float] | None = None
    segmentation: msgspec.Raw = NOTHING
    iscrowd: int = 0


class Variant(msgspec.Struct):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category] | None = None
    info: typing.Any = None


def decode_variant(text: str, kind: type, path: Path) -> typing.Any:
    """A file as `kind`, which is one of coco.py's; None if it is none of these variants.

    Raises UsageError for captions and for an id that no entry has.
    """
    try:
        data = msgspec.json.decode(text, type=Variant)
    except (msgspec.DecodeError, RecursionError):
        return None
    if data.categories is None:
        if any(bytes(annotation.caption) != b"null" for annotation in data.annotations):
            start = path.name.startswith("captions")
            better = path.name.replace("captions", "instances", 1) if start else "instances_….json"
            raise UsageError(f"{path} has captions, no categories: use {better}")
        return None
    for image in data.images:
        image.file_name = image.file_name or _end_of_url(image.coco_url)
    placed = [(i, each) for i, one in enumerate(data.annotations) for each in _labelled(one)]
    if not all(image.file_name for image in data.images) or any(each is None for _, each in placed):
        return None
    image_number = _numbers((image.id for image in data.images), path, "images")
    label_number = _numbers((category.id for category in data.categories), path, "categories")
    if image_number is None or label_number is None:
        return None
    for image in data.images:
        image.id = image_number[image.id]
        if image.neg_category_ids is not None:
            known_ids = filter(label_number.__contains__, image.neg_category_ids)
            image.neg_category_ids = [label_number[each] for each in known_ids]
    for category in data.categories:
        category.id = label_number[category.id]
    known = {"image_id": (image_number, "images"), "category_id": (label_number, "categories")}
    for i, annotation in placed:
        for field, (numbers, part) in known.items():
            value = getattr(annotation, field)
            if value not in numbers:
                if type(value) not in map(type, numbers):
                    return None  # a text among numbers, or a number among texts
                what = f"{field} {value!r}, which is not in {part}"
                raise UsageError(f"{path}: annotations[{i}] has {what}")
            setattr(annotation, field, numbers[value])
    types = typing.get_type_hints(kind)
    parts = {"images": data.images, "categories": data.categories}
    parts["annotations"] = [annotation for _, annotation in placed]
    parts = {name: _as(typing.get_args(types[name])[0], items) for name, items in parts.items()}
    return kind(**parts, info=data.info)


def _end_of_url(url: str | None) -> str | None:
    """train2017/0.jpg of http://images.cocodataset.org/train2017/0.jpg."""
    return "/".join(urlsplit(url).path.split("/")[-2:]).lstrip("/") if url else None


def _labelled(annotation: Annotation) -> Iterable[Annotation | None]:
    """The annotation itself, or one for each segment of a panoptic one; None without a label."""
    if annotation.segments_info is not None:
        for segment in annotation.segments_info:
            fields = (segment.category_id, None, None, segment.bbox, NOTHING, segment.iscrowd)
            yield Annotation(annotation.image_id, *fields)
    else:
        yield None if annotation.category_id is None else annotation


def _numbers(ids: Iterable[Id], path: Path, part: str) -> dict[Id, int] | None:
    """A number for each id: whole numbers stay, texts are counted. None if there are both."""
    ids = list(ids)
    if len(set(ids)) < len(ids):
        raise UsageError(f"{path}: two entries of {part} have the same id")
    if all(isinstance(each, int) for each in ids):
        return {each: each for each in ids}
    if all(isinstance(each, str) for each in ids):
        return {each: number for number, each in enumerate(ids)}
    return None


def _as(kind: type, items: list) -> list:
    """Structs of another type with those of their fields that it has."""
    fields = kind.__struct_fields__
    return [kind(**{name: getattr(item, name) for name in fields}) for item in items]
