"""CVAT for images 1.1: one XML file with the tags and shapes of all images.

    <annotations>
      <image name="a.jpg" subset="train">
        <tag label="cat"/>  <box label="dog" .../>  <polygon label="dog" .../>

The labels of an image are those of its tags and shapes. Many projects have a single tag, say
"photo", with the labels as its attributes: --label_columns names the attributes to read. A checked
attribute (true, yes, 1) gives its name, one with another text gives this text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from labels.annotated import AnnotatedImages
from labels.entries import Entry, images_from_entries
from labels.options import DEFAULTS, ReadOptions
from labels.text import SPLITS
from labels.xml_file import head_of, parse, root_tag
from util.errors import UsageError
from util.log import log

NAME = "CVAT for images"
YES, NO = ("true", "yes", "1"), ("false", "no", "0", "", "__undefined__")
SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")


def matches(path: Path) -> bool:
    """Whether this is XML that begins with <annotations>."""
    return path.is_file() and root_tag(head_of(path)) == "annotations"


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and image."""
    root = parse(path, "annotations", NAME)
    if root.find("track") is not None:
        raise UsageError(f"{path} is CVAT for video: export the task as CVAT for images 1.1")
    images = root.findall("image")
    if not images:
        raise UsageError(f"{path} has no <image>: export the task as CVAT for images 1.1")
    used = [item for image in images for item in image]
    for item in used:
        if item.tag not in ("tag", *SHAPES):
            known = ", ".join(("tag", *SHAPES))
            raise UsageError(f"{path} has a <{item.tag}> in an image; these are read: {known}")
    _say_what_is_read(used, options.label_columns, path)
    hint = "images of two tasks may share a name; export each task alone"
    return images_from_entries(_entries(images, options.label_columns), path, NAME, hint)


def _say_what_is_read(items: list[Element], wanted: tuple[str, ...], path: Path) -> None:
    """Raise UsageError if attributes seem to hold the labels, or if wanted ones do not exist."""
    attributes = sorted({a.get("name", "") for item in items for a in item.iter("attribute")})
    names = ", ".join(map(repr, attributes))
    if missing := [name for name in wanted if name not in attributes]:
        raise UsageError(f"{path} has no attribute {missing[0]!r}, but {names or 'none'}")
    labels = {item.get("label", "") for item in items}
    if wanted or not attributes:
        kinds = Counter(item.tag for item in items)
        if len(kinds) > 1 and "tag" in kinds and not wanted:
            counts = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common())
            log(f"{path}: the labels of tags and of shapes are read: {counts}")
    elif len(labels) == 1:
        raise UsageError(
            f"{path} has only the label {labels.pop()!r}, with the attributes {names}: if these "
            "hold the labels, name them with --label_columns"
        )
    else:
        log(f"{path}: the attributes {names} are not read; --label_columns would")


def _entries(images: list[Element], wanted: tuple[str, ...]) -> Iterator[Entry]:
    for image in images:
        labels = [item.get("label") for item in image]
        if wanted:
            labels = [label for item in image for label in _of_attributes(item, wanted)]
        split = SPLITS.get(image.get("subset", "").lower())
        yield Entry(f"image id {image.get('id')}", image.get("name"), labels, split)


def _of_attributes(item: Element, wanted: tuple[str, ...]) -> Iterator[str]:
    for attribute in item.iter("attribute"):
        name, value = attribute.get("name"), (attribute.text or "").strip()
        if name in wanted and value.lower() not in NO:
            yield name if value.lower() in YES else value
