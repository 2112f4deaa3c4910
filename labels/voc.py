"""PASCAL VOC (Everingham et al. 2010), and what labelling tools export in its layout:

    Annotations/<image>.xml         object: name, difficult
    ImageSets/Main/<split>.txt      an image a line, of train, val, trainval, test or a tool's own
    ImageSets/Main/<class>_<split>.txt      image and 1, 0 (only difficult objects) or -1
    JPEGImages/

The folder VOC2007 gives its images divided into train, val and test; a list of images in
ImageSets/Main (trainval.txt, say) gives these images, undivided. A label whose objects on an image
are all marked difficult is a label in training: the thing is there. It is neither true nor false in
evaluation, as in VOC's own figures.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from labels.annotated import AnnotatedImages
from util.errors import UsageError

NAME = "PASCAL VOC"
OFFICIAL = ("train", "val", "test")


def is_voc(path: Path) -> bool:
    """Whether this is a folder in VOC's layout, or a list of images in one."""
    if path.is_dir():
        return _has_xml(_year(path))
    return path.suffix == ".txt" and path.parent.name == "Main" and _has_xml(path.parents[2])


def _has_xml(folder: Path) -> bool:
    return next((folder / "Annotations").glob("*.xml"), None) is not None


def _year(folder: Path) -> Path:
    """VOC2007 for VOCdevkit, if nothing else is in there."""
    years = [p for p in folder.glob("VOC20*") if p.is_dir()]
    return years[0] if len(years) == 1 else folder


def read_voc(path: Path) -> AnnotatedImages:
    """Raises UsageError naming file and object."""
    root = _year(path) if path.is_dir() else path.parents[2]
    if path.is_file():
        lists = {path.stem: _read_list(path)}
    else:
        files = ((split, root / f"ImageSets/Main/{split}.txt") for split in OFFICIAL)
        lists = {split: _read_list(file) for split, file in files if file.is_file()}
    if not lists:  # a tool's export has no lists, or one of its own
        lists = {"": sorted(file.stem for file in (root / "Annotations").glob("*.xml"))}
    suffixes = {p.stem: p.suffix for p in (root / "JPEGImages").glob("*.*")}
    names, label_sets, difficult, splits = [], [], [], []
    for split, images in lists.items():
        for image, (all_labels, hard) in zip(images, _labels(root, split, images), strict=True):
            names.append(image + suffixes.get(image, ".jpg"))
            label_sets.append(all_labels)
            difficult.append(hard)
            splits.append(split)
    categories = sorted({label for labels in label_sets for label in labels})
    divided = splits if path.is_dir() and "" not in lists else None
    return AnnotatedImages(str(path), names, label_sets, categories, NAME, divided, difficult)


def _read_list(path: Path) -> list[str]:
    """Images, each once."""
    images = [line.split()[0] for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    for number, image in enumerate(images, start=1):
        if ".." in image or "/" in image or "\\" in image:
            raise UsageError(
                f"{path}, line {number}, has {image!r}, which is not inside the image folder"
            )
    if not images:
        raise UsageError(f"{path} lists no images")
    return list(dict.fromkeys(images))


def _labels(root: Path, split: str, images: list[str]) -> list[tuple[tuple, tuple]]:
    """Labels of each image, and those of them that are difficult; from VOC's lists if there are."""
    files = sorted((root / "ImageSets/Main").glob(f"*_{split}.txt")) if split else []
    if not files:
        return [_read_xml(root / f"Annotations/{image}.xml") for image in images]
    found: dict[str, tuple[list, list]] = {image: ([], []) for image in images}
    for file in files:
        label, seen = file.stem.removesuffix(f"_{split}"), 0
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
            image, value = (line.split() + ["", ""])[:2]
            if image in found and value in ("1", "0"):
                found[image][0].append(label)
                found[image][1].extend([label] if value == "0" else [])
            elif image and value not in ("1", "0", "-1"):
                raise UsageError(f"{file}, line {number}, has {line!r}: an image and 1, 0 or -1")
            seen += image in found
        if seen != len(images):
            raise UsageError(f"{file} has {seen:,} of the {len(images):,} images of {split}.txt")
    return [(tuple(labels), tuple(hard)) for labels, hard in found.values()]


def _read_xml(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A file from a stranger must not expand entities or fetch anything: no DOCTYPE is taken."""
    try:
        tree = ElementTree.parse(path, forbid_dtd=True)
    except DefusedXmlException:
        raise UsageError(f"{path} has a DOCTYPE, which VOC's files do not: delete it") from None
    except (ParseError, ValueError, LookupError) as error:
        raise UsageError(f"{path} is not XML ({error})") from None
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
    easy, seen = set(), {}
    for number, item in enumerate(tree.getroot().iter("object"), start=1):
        name = " ".join((item.findtext("name") or "").split())
        if not name:
            raise UsageError(f"{path}, object {number}, has no name")
        seen[name] = None
        if (item.findtext("difficult") or "0").strip() in ("0", ""):
            easy.add(name)
    return tuple(seen), tuple(name for name in seen if name not in easy)
