"""PASCAL VOC's lists in ImageSets/Main: which images are in which split, and with which labels.

<split>.txt             an image per line; CVAT quotes names with spaces
<class>_<split>.txt     image and 1, 0 (only difficult objects) or -1
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from labels.entries import clean_label
from labels.text import SPLITS, read_text
from util.errors import UsageError
from util.files import is_ignored, is_picture
from util.log import log

ORDER = ("train", "val", "test")
VALUE = re.compile(r"(.+?)\s+(-1|0|1)")


@dataclass(frozen=True)
class Lists:
    """What the lists of one folder say.

    splits: each image with its split, None without one.
    present: each label with its images, those with only difficult objects as 0.
    covered: the images of splits whose labels are listed.
    """

    splits: dict[str, str | None]
    present: dict[str, dict[str, int]]
    covered: set[str]


def read_lists(folder: Path, known: set[str], files: list[Path] | None) -> Lists | None:
    """These lists, or all of a folder; None if there are none. `known` images have XML.

    Raises UsageError, naming file and line.
    """
    files = sorted(files or (f for f in folder.glob("*.txt") if not is_ignored(f.name)))
    if not files:
        return None
    of_class = {file: split for file in files if (split := _split_of_class(file, files))}
    images = {f.stem: read_images(f, known) for f in files if f not in of_class}
    splits = _splits(images, folder)
    present: dict[str, dict[str, int]] = {}
    covered: set[str] = set()
    for file, split in of_class.items():
        label = clean_label(file.stem.removesuffix(f"_{split}"), str(file))
        values = _read_values(file, known)
        listed = set(images[split])
        if missing := listed - values.keys():
            some, count = len(listed) - len(missing), len(listed)
            raise UsageError(f"{file} has {some:,} of the {count:,} images of {split}.txt")
        covered |= listed
        of_label = present.setdefault(label, {})
        of_label |= {i: value for i, value in values.items() if value >= 0 and i in splits}
    return Lists(splits, present, covered)


def _split_of_class(file: Path, files: list[Path]) -> str | None:
    """train for cat_train.txt, if there is a train.txt."""
    stems = [f.stem for f in files if f != file and file.stem.endswith(f"_{f.stem}")]
    return max(stems, key=len, default=None)


def _splits(images: dict[str, list[str]], folder: Path) -> dict[str, str | None]:
    """Each listed image with its split. Raises UsageError for an image in two of them."""
    official = {name: SPLITS[name.lower()] for name in images if name.lower() in SPLITS}
    both = [name for name in images if name.lower() == "trainval"]
    if both and not {"train", "val"} & {*official.values()}:
        official[both[0]] = "train"
    elif both and len({"train", "val"} & {*official.values()}) == 1:
        # trainval.txt beside train.txt alone: the rest of it is val
        (given,) = {"train", "val"} & {*official.values()}
        seen = {i for name in official for i in images[name]}
        rest = [i for i in images[both[0]] if i not in seen]
        if rest:
            images = {**images, "rest of trainval": rest}
            official["rest of trainval"] = "val" if given == "train" else "train"
    found: dict[str, str | None] = {}
    for name, split in sorted(official.items(), key=lambda item: ORDER.index(item[1])):
        for image in images[name]:
            if found.setdefault(image, split) != split:
                raise UsageError(
                    f"{folder} has {image!r} in two splits, {found[image]} and {split}"
                )
    others = {n: [i for i in of if i not in found] for n, of in images.items() if n not in official}
    if unknown := [name for name, rest in others.items() if rest]:
        if official:
            raise UsageError(
                f"{folder} has {unknown[0]}.txt with images that are in no split: name the list "
                "to read with --annotations"
            )
        if len(unknown) > 1:
            log(f"{folder}: all lists are read: {', '.join(f'{name}.txt' for name in unknown)}")
        found = {image: None for name in unknown for image in images[name]}
    return found


def read_images(path: Path, known: set[str]) -> list[str]:
    """The images in a list, each once. Raises UsageError naming the line."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            image, rest = _image_in(line, known)
            _refuse_outside(image, path, number)
            found[image] = rest
    if not found:
        raise UsageError(f"{path} lists no images")
    if len({rest for rest in found.values() if rest in ("1", "0", "-1")}) > 1:
        raise UsageError(f"{path} is the list of one label: name the list of the split")
    return list(found)


def _read_values(path: Path, known: set[str]) -> dict[str, int]:
    """The value of each image in the list of a class: 1, 0 or -1."""
    values = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        image, value = _image_in(line, known, with_value=True)
        if value not in ("1", "0", "-1"):
            raise UsageError(
                f"{path}, line {number}, has {line!r} instead of an image and 1, 0 or -1"
            )
        values[image] = int(value)
    return values


def _image_in(line: str, known: set[str], with_value: bool = False) -> tuple[str, str]:
    """The image in a line, and what follows it."""
    text = line.strip()
    image, _, rest = text.partition(" ")
    if text.startswith('"') and (end := text.rfind('"')) > 0:
        image, rest = text[1:end].replace('\\"', '"'), text[end + 1 :]
    elif image not in known or (rest and not with_value):
        if not with_value and _known_name(text, known) in known:
            image, rest = text, ""
        elif found := VALUE.fullmatch(text):
            image, rest = found.groups()
    elif rest.strip() not in ("1", "0", "-1") and (found := VALUE.fullmatch(text)):
        image, rest = found.groups()
    return _known_name(image, known), rest.strip()


def _known_name(image: str, known: set[str]) -> str:
    """a for a.jpg, if a is known: some lists have file names."""
    if image not in known and is_picture(image) and (stem := image.rpartition(".")[0]) in known:
        return stem
    return image


def _refuse_outside(image: str, path: Path, number: int) -> None:
    if ".." in image.split("/") or image.startswith("/") or "\\" in image:
        raise UsageError(
            f"{path}, line {number}, has {image!r}, which is not inside the image folder"
        )
