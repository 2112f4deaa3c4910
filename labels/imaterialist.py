"""iMaterialist (Guo et al. 2019), its json -> which labels are on which image.

    images       url, imageId       annotations      imageId, labelId: one number or a list

The files are called by imageId (1.jpg), or, if a folder has none of these, as in their URLs. The
names of the numbers are given with `--label_names`: a table with the columns labelId and labelName.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from labels.annotated import AnnotatedImages
from labels.json_text import decode_json, peek_json
from labels.label_numbers import name_numbers
from labels.options import DEFAULTS, ReadOptions
from util.errors import UsageError
from util.log import log

NAME = "iMaterialist"
IMAGE_IDS = ("imageId", "image_id")
LABEL_IDS = ("labelId", "label_id")


def matches(path: Path) -> bool:
    """Whether the images of a JSON file have a URL and an id, or annotations a labelId."""
    data = peek_json(path)
    if not isinstance(data, dict):
        return False
    image, annotation = _first(data.get("images")), _first(data.get("annotations"))
    by_url = "url" in image and "file_name" not in image and _key(image, IMAGE_IDS) is not None
    return by_url or (_key(annotation, LABEL_IDS) is not None and "category_id" not in annotation)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Images in the order of the file. Raises UsageError naming file and entry."""
    data = decode_json(path)
    annotations = _entries(data, "annotations", path)
    images = _entries(data, "images", path) if "images" in data else annotations
    urls: dict[str, str] = {}
    for i, image in enumerate(images):
        where = f"{path}: {'images' if 'images' in data else 'annotations'}[{i}]"
        url = image.get("url")
        url = url[0] if isinstance(url, list) and url else url
        name = _id(image, IMAGE_IDS, where)
        if name in urls and "images" in data:
            raise UsageError(f"{where} has the imageId {name} of another image")
        urls[name] = url if isinstance(url, str) else ""
    numbers: dict[str, dict[str, None]] = {image: {} for image in urls}
    for i, annotation in enumerate(annotations):
        where = f"{path}: annotations[{i}]"
        image = _id(annotation, IMAGE_IDS, where)
        if image not in numbers:
            raise UsageError(f"{where} has the image {image}, which is not in images")
        numbers[image].update(dict.fromkeys(_labels(annotation, where)))
    named = name_numbers([list(labels) for labels in numbers.values()], path, options)
    label_sets = [tuple(dict.fromkeys(map(str, labels))) for labels in named]
    names = _file_names(urls, image_path, path)
    return AnnotatedImages(
        str(path), names, label_sets, sorted({x for labels in label_sets for x in labels}), NAME
    )


def _first(entries: object) -> dict:
    return (
        entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    )


def _key(entry: dict, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in entry), None)


def _entries(data: dict, part: str, path: Path) -> list[dict]:
    """A list of objects. Raises UsageError."""
    entries = data.get(part)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        what = "has no annotations: its test set has no labels" if entries is None else "is damaged"
        raise UsageError(f"{path} {what}; iMaterialist needs a list {part}")
    return entries


def _id(entry: dict, names: tuple[str, ...], where: str) -> str:
    value = entry.get(_key(entry, names) or "")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise UsageError(f"{where} has no {names[0]}")
    return str(value).strip()


def _labels(annotation: dict, where: str) -> list[str]:
    """The numbers of an annotation as texts. Raises UsageError."""
    key = _key(annotation, LABEL_IDS)
    value = annotation.get(key) if key else None
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, (str, int)) for v in values):
        raise UsageError(f"{where} has no labelId that is a number or a list of numbers")
    return [str(v).strip() for v in values]


def _file_names(urls: dict[str, str], image_path: Path | None, path: Path) -> list[str]:
    """imageIds, or the last parts of the URLs if these are what a folder of images has."""
    if image_path is None or not image_path.is_dir():
        return list(urls)
    with os.scandir(image_path) as entries:
        stems = {PurePosixPath(entry.name).stem for entry in entries}
    last = [PurePosixPath(urlsplit(url).path).name for url in urls.values()]
    by_url = {PurePosixPath(name).stem for name in last if name} & stems
    by_id = urls.keys() & stems
    if by_id and by_url and by_id != by_url:
        raise UsageError(
            f"{path}: {image_path} has files called by imageId ({min(by_id)}) and others called as "
            f"in the URLs ({min(by_url)}): rename them all by imageId"
        )
    if by_url and not by_id:
        if len(set(last)) < len(last):
            raise UsageError(f"{path} has URLs that end alike: call the files by imageId (1.jpg)")
        log(f"{path}: files are called as in the URLs, for example {min(by_url)}")
        return last
    return list(urls)
