"""PASCAL VOC (Everingham et al. 2010), and what labelling tools export in the same format:

    Annotations/<image>.xml                 object: name, difficult
    ImageSets/Main/*.txt                    splits and labels, see voc_lists.py
    JPEGImages/

The folder VOC2007 gives its images with the splits train, val and test, VOCdevkit those of all
years in it. A list of images in ImageSets/Main (for example trainval.txt) gives these images
without splits. The XML files may also lie in annotations/ or xmls/, or beside the pictures.

If all objects of a label on an image are marked difficult, training counts the label as present.
Evaluation counts it neither as true nor as false, as VOC's own metrics do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from labels.annotated import AnnotatedImages
from labels.entries import clean_label
from labels.options import DEFAULTS, ReadOptions
from labels.text import means_data, split_of
from labels.voc_lists import Lists, read_lists
from labels.xml_file import head_of, parse, root_tag
from util.errors import UsageError
from util.files import is_ignored, is_picture, walk
from util.log import counted, log

NAME = "PASCAL VOC"
XML_FOLDERS = ("Annotations", "annotations/xmls", "annotations", "xmls", "annots", "labels")
PICTURE_FOLDERS = ("JPEGImages", "images", "img", "Images")
OFFICIAL_LABELS = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse
    motorbike person pottedplant sheep sofa train tvmonitor"""
YEAR = re.compile(r"voc.?20\d\d", re.IGNORECASE)
Labels = tuple[tuple[str, ...], tuple[str, ...]]  # all labels of an image; those only difficult


@dataclass(frozen=True)
class Part:
    """One year, split or export: a folder, and the folder of its XML files."""

    folder: Path
    xml: Path


def matches(path: Path) -> bool:
    """Whether this is a folder with VOC's XML files, or one of its lists of images."""
    if path.is_dir():
        return bool(_parts(_root(path)))
    return path.suffix == ".txt" and path.parent.name == "Main" and bool(_parts(_root(path)))


def _root(path: Path) -> Path:
    """The folder of the data set, for a list or for one of its folders, too."""
    if path.is_file():
        return path.parents[2]
    inside = path.name in ("Annotations", "ImageSets", "JPEGImages")
    return path.parent if inside and (path.parent / "Annotations").is_dir() else path


def _parts(folder: Path, depth: int = 3) -> list[Part]:
    """The parts in a folder: itself, or those in folders called VOC2007, train or similar.

    Folders of other names count if they have VOC's own layout.
    """
    found = [Part(folder, folder / name) for name in XML_FOLDERS if _is_voc(folder / name, name)]
    found = [p for p in found if not any(p.xml in other.xml.parents for other in found)]
    if not found and _is_voc(folder, ""):
        return [Part(folder, folder)]
    below = sorted(p for p in folder.iterdir() if os.path.isdir(p) and not is_ignored(p.name))
    for inner in below if depth else ():
        if any(part.xml.is_relative_to(inner) for part in found):
            continue
        if inner.name.lower().startswith("voc") or means_data(inner.name):
            found += _parts(inner, depth - 1)
        elif any((inner / n).is_dir() for n in ("JPEGImages", "ImageSets")):
            annotations = inner / XML_FOLDERS[0]
            found += [Part(inner, annotations)] if _is_voc(annotations, annotations.name) else []
    return found


def _is_voc(folder: Path, name: str) -> bool:
    """Whether a folder has VOC's XML files: any in Annotations/, elsewhere by their content."""
    if not folder.is_dir():
        return False
    patterns = ("*.xml", "*/*.xml") if name else ("*.xml",)
    files = (p for pattern in patterns for p in folder.glob(pattern) if not is_ignored(p.name))
    first = next(files, None)
    if first is None or name == "Annotations":
        return first is not None
    head = head_of(first)
    return root_tag(head) == "annotation" and ("<object" in head or "<filename" in head)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming the file and its line or object."""
    root = _root(path)
    parts = _without_copies(_parts(root), root)
    names, label_sets, difficult, splits = [], [], [], []
    for part in parts:
        pictures = _pictures(part, image_path, with_folder=len(parts) > 1)
        above = part.folder.relative_to(root).as_posix()
        start = f"{above}/" if len(parts) > 1 and above != "." else ""
        for image, split, (labels, hard) in _read_part(part, path):
            names.append(start + pictures.get(image, image))
            label_sets.append(labels)
            difficult.append(hard)
            splits.append(split or _split(part, root))
            pictures.pop(image, None)
        if path.is_dir() and (without := len(pictures.keys() - _xml_of(part).keys())):
            what = counted(without, "picture has", "pictures have")
            log(f"{part.folder}: {what} no XML in {part.xml.name}/: left out")
    if any(splits) and not all(splits):
        without = names[splits.index(None)]
        raise UsageError(f"{path} has images without a split, such as {without}: name one folder")
    categories = sorted({label for labels in label_sets for label in labels})
    divided = splits if any(splits) else None
    return AnnotatedImages(str(path), names, label_sets, categories, NAME, divided, difficult)


def _without_copies(parts: list[Part], root: Path) -> list[Part]:
    """Without a part in `root` itself whose images other parts have, with the same labels.

    Raises UsageError if there are other labels, or parts that are neither years nor splits.
    """
    outer = [part for part in parts if part.folder == root]
    inner = [part for part in parts if part not in outer]
    if outer and inner:
        labels = {i: set(of[0]) for part in inner for i, _, of in _read_part(part, root)}
        if all({i: set(of[0]) for i, _, of in _read_part(p, root)} == labels for p in outer):
            names = [str(part.xml.relative_to(root)) for part in (*outer, *inner)]
            log(f"{root}: {names[0]}/ has the labels of {names[-1]}/ again: not used")
            return inner
    belong = not outer and all(YEAR.fullmatch(p.folder.name) or _split(p, root) for p in inner)
    if len(parts) > 1 and not belong:
        where = ", ".join(str((p.xml if outer else p.folder).relative_to(root)) for p in parts)
        raise UsageError(f"{root} has XML files in {where}: name one of them with --annotations")
    if len(parts) > 1:
        where = ", ".join(str(part.folder.relative_to(root)) for part in parts)
        log(f"{root}: {where} are read together")
    return parts


def _split(part: Part, root: Path) -> str | None:
    """train, val or test, if the folders of a part say one of them."""
    steps = part.folder.relative_to(root).parts
    named = {split for step in steps if (split := split_of(step))}
    return named.pop() if len(named) == 1 else None


def _pictures(part: Part, image_path: Path | None, with_folder: bool) -> dict[str, str]:
    """The file name of each image: its XML's name with the suffix of its picture.

    An image with several pictures keeps its name without a suffix, and so does one without.
    """
    inside = next((name for name in PICTURE_FOLDERS if (part.folder / name).is_dir()), "")
    found: dict[str, str] = {}
    if inside or part.xml == part.folder:
        start = f"{inside}/" if inside and with_folder else ""
        _add_pictures(walk(part.folder / inside), start, found)
    if not found and image_path and image_path.is_dir():
        _add_pictures([next(walk(image_path))], "", found)
    return found


def _add_pictures(listed: Iterable, start: str, found: dict[str, str]) -> None:
    for below, files in listed:
        for file in (f.name for f in files if is_picture(f.name)):
            name = f"{below}/{file}" if below else file
            stem = name.rpartition(".")[0]
            found[stem] = start + (stem if stem in found else name)


def _read_part(part: Part, path: Path) -> list[tuple[str, str | None, Labels]]:
    """Each image with its split and its labels; those of `path` if that is a list of images."""
    xml_of = _xml_of(part)
    files = [path, *path.parent.glob(f"*_{path.stem}.txt")] if path.is_file() else None
    lists = read_lists(part.folder / "ImageSets/Main", set(xml_of), files)
    if lists is None:  # labelling tools export none
        lists = Lists(dict.fromkeys(xml_of), {}, set())
    images = dict(lists.splits) if path.is_dir() else dict.fromkeys(lists.splits)
    missing = [i for i in images if i not in xml_of and i not in lists.covered]
    for split in {images[i] for i in missing}:
        if all(i in missing for i in images if images[i] == split) and split:
            log(f"{part.folder}: its {split} images have no labels and are left out")
            images = {i: s for i, s in images.items() if s != split}
    if gone := [i for i in missing if i in images]:
        raise UsageError(
            f"{part.xml / gone[0]}.xml is missing: an image in ImageSets/Main needs it"
        )
    if not images:
        raise UsageError(f"{part.folder} has no labels of the images in ImageSets/Main")
    if unlisted := len(xml_of.keys() - images.keys()) if path.is_dir() else 0:
        log(f"{part.folder}: {unlisted:,} XML files are in no list of ImageSets/Main: left out")
    complete = set(OFFICIAL_LABELS.split()) <= lists.present.keys()  # XML would add nothing
    return [
        (i, split, _labels(i, None if complete else xml_of.get(i), lists))
        for i, split in images.items()
    ]


def _xml_of(part: Part) -> dict[str, Path]:
    """The XML file of each image that has one, in order of name."""
    found = {}
    for folder, files in walk(part.xml):
        start = f"{folder}/" if folder else ""
        found |= {start + f.name[:-4]: Path(f.path) for f in files if f.name.endswith(".xml")}
    return found


def _labels(image: str, xml: Path | None, lists: Lists) -> Labels:
    """The labels of an image in its XML and in VOC's lists, and those that are difficult."""
    found, hard = _read_xml(xml) if xml else ((), ())
    values = {label: of[image] for label, of in lists.present.items() if image in of}
    easy = {label for label, value in values.items() if value}
    hard = [label for label in hard if label not in easy]
    hard += [label for label, value in values.items() if not value and label not in found]
    return tuple(dict.fromkeys([*found, *values])), tuple(hard)


def _read_xml(path: Path) -> Labels:
    """The labels in a file, and those of them that are only on difficult objects."""
    easy, seen = set(), {}
    for number, item in enumerate(parse(path, "annotation", NAME).iter("object"), start=1):
        if _says_yes(item, "deleted"):  # LabelMe keeps what was deleted
            continue
        if not (item.findtext("name") or "").strip():
            raise UsageError(f"{path}, object {number}, has no name")
        name = clean_label(item.findtext("name"), f"{path}, object {number},")
        seen[name] = None
        if not _says_yes(item, "difficult"):
            easy.add(name)
    return tuple(seen), tuple(name for name in seen if name not in easy)


def _says_yes(item: Element, field: str) -> bool:
    return (item.findtext(field) or "").strip().lower() in ("1", "true", "yes")
