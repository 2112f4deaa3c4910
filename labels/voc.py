"""PASCAL VOC (Everingham et al. 2010), and what labelling tools export in the same layout:

    Annotations/<image>.xml                 object: name, difficult
    ImageSets/Main/<split>.txt              an image per line; train, val, trainval, test or other
    ImageSets/Main/<class>_<split>.txt      image and 1, 0 (only difficult objects) or -1
    JPEGImages/

The folder VOC2007 gives its images with the splits train, val and test. A list of images in
ImageSets/Main (for example trainval.txt) gives these images without splits.

If all objects of a label on an image are marked difficult, training counts the label as present.
Evaluation counts it neither as true nor as false, as VOC's own metrics do.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from util.errors import UsageError

NAME = "PASCAL VOC"
OFFICIAL = ("train", "val", "test")


def matches(path: Path) -> bool:
    """Whether this is a folder in VOC's layout, or one of its lists of images."""
    if path.is_dir():
        return _has_xml(_year(path))
    return path.suffix == ".txt" and path.parent.name == "Main" and _has_xml(path.parents[2])


def _has_xml(folder: Path) -> bool:
    return next((folder / "Annotations").glob("*.xml"), None) is not None


def _year(folder: Path) -> Path:
    """VOC2007 for VOCdevkit, if that is the only year in it."""
    years = [p for p in folder.glob("VOC20*") if p.is_dir()]
    return years[0] if len(years) == 1 else folder


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming the file and its line or object."""
    root = _year(path) if path.is_dir() else path.parents[2]
    if path.is_file():
        lists = {path.stem: _read_list(path)}
    else:
        files = ((split, root / f"ImageSets/Main/{split}.txt") for split in OFFICIAL)
        lists = {split: _read_list(file) for split, file in files if file.is_file()}
    if not lists:  # labelling tools export no lists, or one with another name
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
    """The labels of each image, and those that are difficult; from VOC's lists if it has any."""
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
                raise UsageError(
                    f"{file}, line {number}, has {line!r} instead of an image and 1, 0 or -1"
                )
            seen += image in found
        if seen != len(images):
            raise UsageError(f"{file} has {seen:,} of the {len(images):,} images of {split}.txt")
    return [(tuple(labels), tuple(hard)) for labels, hard in found.values()]


def _read_xml(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Refuses a DOCTYPE: it could expand to any size, or fetch other files.

    Returns the labels, and those of them that are only on difficult objects.
    """
    try:
        tree = ElementTree.parse(path, forbid_dtd=True)
    except DefusedXmlException:
        raise UsageError(f"{path} has a DOCTYPE, which VOC files never have: delete it") from None
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
