"""150 photos and a messy table, as a person keeps them, and 50 new photos.

    python tests/messy_photos.py /tmp/mine                        # drawn pictures
    python tests/messy_photos.py /tmp/mine --real ../shared/ccp   # photos with COCO labels

Names have spaces, umlauts, Chinese characters and upper-case suffixes. Photos lie in sub-folders,
in several formats; some are rotated by EXIF, three cannot be read. The table mixes spellings, names
photos that are gone, and has labels that are wrong. What is wrong is known: see `Messy`.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import io
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
NUM_OLD, NUM_NEW = 150, 50
FOLDERS = ("", "", "Sommer 2024", "Müll & Straße", "a/b")
STEMS = ("IMG_{:04d}", "Straße {}", "写真 {}", "photo ({})", "Größe.v{}", "{:05d}", "it's {}, ok")
SUFFIXES = (".jpg", ".jpg", ".JPG", ".jpeg", ".png", ".webp", ".bmp", ".jpg")
HEIC = importlib.util.find_spec("pillow_heif") is not None
ORIENTATION = 0x0112  # the EXIF tag; how the pixels are turned for each of its values:
TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
MODES = {9: "L", 12: "I;16", 17: "CMYK"}  # number of a photo -> its pixels
UNREADABLE = (1, 15, 23)  # numbers of photos that are cut in half, empty, a text
UNLISTED = (4, 40, 77, 149)
UNLABELLED = (22, 58, 111, 130, 144)
GONE = ("gone 1.jpg", "Sommer 2024/gone 2.JPG", "gone_3.png")
HIDDEN = ("._IMG_0001.JPG", ".DS_Store", "Thumbs.db", "Sommer 2024/._x.jpg")
MISSPELT = 3  # photos on which the most frequent label is misspelt

Picture = tuple[Image.Image, tuple[str, ...]]


@dataclass
class Messy:
    """The folders and what is wrong in them. Names are relative to `photos`, with /."""

    photos: Path
    new_photos: Path
    table: Path
    truth: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of every photo that is there
    wrong: dict[str, tuple[str, ...]] = field(default_factory=dict)  # planted: what the table says
    unreadable: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    misspelt: tuple[str, str] = ("", "")  # as the table says on some photos, and the right spelling
    new_truth: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_messy_set(
    folder: Path,
    delimiter: str = ";",
    encoding: str = "utf-8-sig",
    side: int = 64,
    num_wrong: int = 20,
    real: Path | None = None,
) -> Messy:
    """Write photos/, with labels.csv in it, and new photos/ into `folder`.

    side: of the drawn pictures, in pixels. real: a folder like ../shared/ccp, instead of these.
    encoding: of the table; names that it lacks get Latin letters.
    """
    messy = Messy(folder / "photos", folder / "new photos", folder / "photos/labels.csv")
    pictures = real_pictures(real) if real else iter(drawn_pictures(side))
    for place, count, truth in (
        (messy.photos, NUM_OLD, messy.truth),
        (messy.new_photos, NUM_NEW, messy.new_truth),
    ):
        for number in range(1, count + 1):
            new = place == messy.new_photos
            name = name_of(number + 1000 * new, encoding)
            image, truth[name] = next(pictures)
            save(image, place / name, number)
    spoil(messy)
    write_labels(messy, delimiter, encoding, num_wrong)
    return messy


@functools.cache
def drawn_pictures(side: int) -> list[Picture]:
    """As many drawn scenes as there are photos, each with its labels."""
    sys.path[:0] = [str(REPO), str(REPO / "data")]  # make_scenes.py imports its neighbour drawing/
    from drawing.painting import CATEGORY_IDS
    from make_scenes import Split, default_sizes, make_image

    names = {number: name for name, number in CATEGORY_IDS.items()}
    with TemporaryDirectory() as folder:
        split = Split(Path(), Path(folder), "scene", side, default_sizes(), (0, 7))
        pictures: list[Picture] = []
        for number in itertools.count(1):
            found = make_image((number, None), split)
            labels = sorted({names[item["category_id"]] for item in found})
            if labels:
                with Image.open(split.image_dir / split.image_name(number)) as image:
                    pictures.append((image.copy(), tuple(labels)))
            if len(pictures) == NUM_OLD + NUM_NEW:
                return pictures


def real_pictures(folder: Path) -> Iterator[Picture]:
    """The photos of annotations/train.json that have labels."""
    content = json.loads((folder / "annotations/train.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {image["id"]: (image["file_name"], set()) for image in content["images"]}
    for item in content["annotations"]:
        found[item["image_id"]][1].add(names[item["category_id"]])
    for name, labels in found.values():
        if labels:
            yield Image.open(folder / "images/train" / name), tuple(sorted(labels))


def name_of(number: int, encoding: str) -> str:
    """A photo's name, with folders."""
    stem = STEMS[number % len(STEMS)].format(number)
    try:
        stem.encode(encoding)
    except UnicodeEncodeError:
        stem = f"shashin {number}"
    folder = FOLDERS[number % len(FOLDERS)]
    suffix = ".HEIC" if HEIC and number % 30 == 0 else SUFFIXES[number % len(SUFFIXES)]
    return f"{folder}/{stem}{suffix}".lstrip("/")


def save(image: Image.Image, path: Path, number: int) -> None:
    """Write a picture as a camera or a program would: turned, grey, with 16 bits, CMYK."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = {}
    if number in MODES:
        image = image.convert(MODES[number] if MODES[number] != "I;16" else "L")
    if MODES.get(number) == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 257)
    if path.suffix.lower() in (".jpg", ".jpeg") and number % 10 in TURNS:
        image = image.transpose(TURNS[number % 10])
        flags["exif"] = Image.Exif()
        flags["exif"][ORIENTATION] = number % 10
    if path.suffix == ".HEIC":
        importlib.import_module("pillow_heif").register_heif_opener()
    image.save(path, **flags)


def spoil(messy: Messy) -> None:
    """Damage three photos and one new one, and leave the files that systems leave."""
    names, new = list(messy.truth), list(messy.new_truth)
    half, empty, text = messy.unreadable = [names[number - 1] for number in UNREADABLE]
    for path in (messy.photos / half, messy.new_photos / new[0]):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (messy.photos / empty).write_bytes(b"")
    (messy.photos / text).write_text("not a photo")
    for name in HIDDEN:
        (messy.photos / name).write_bytes(b"\0\5\x16\7\0")


def write_labels(messy: Messy, delimiter: str, encoding: str, num_wrong: int) -> None:
    """Write labels.csv, and note in `messy` what is wrong in it."""
    names = list(messy.truth)
    messy.unlisted = [names[number - 1] for number in UNLISTED]
    messy.unlabelled = [names[number - 1] for number in UNLABELLED]
    counts = Counter(label for labels in messy.truth.values() for label in labels)
    frequent = [label for label, _ in counts.most_common(8)]
    usual = max(frequent[:3], key=len)
    messy.misspelt = (usual[:-2] + usual[-1] + usual[-2], usual)
    left_alone = {*messy.unreadable, *messy.unlisted, *messy.unlabelled}
    rest = [name for name in names if name not in left_alone]
    for name in np.random.default_rng(0).permutation(rest)[:num_wrong].tolist():
        messy.wrong[name] = spoilt(messy.truth[name], frequent, len(messy.wrong))
    text = io.StringIO()
    rows = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    rows.writerow(["Photo", "Tags", "Remarks"])
    misspelt = itertools.count(1)
    for number, name in enumerate(names, start=1):
        if name in messy.unlisted:
            continue
        labels = messy.wrong.get(name, messy.truth[name])
        if usual in labels and number > 30 and next(misspelt) <= MISSPELT:
            labels = [messy.misspelt[0] if label == usual else label for label in labels]
        if number % 9 == 0:
            labels = [label.capitalize() for label in labels]
        cell = ("," if delimiter == ";" else "; ").join(labels)
        cell = "" if name in messy.unlabelled else f" {cell} " if number % 7 == 0 else cell
        rows.writerow([path_of(name, messy.photos, number), cell, "nice!" * (number % 40 == 0)])
        if number == 50:
            rows.writerow(["", "", ""])
    rows.writerows([name, frequent[0], ""] for name in GONE)
    messy.table.write_bytes(text.getvalue().encode(encoding))


def spoilt(labels: tuple[str, ...], frequent: list[str], number: int) -> tuple[str, ...]:
    """Other labels: in turn one is missing, or a frequent one is too much."""
    if number % 2 and len(labels) > 1:
        return labels[1:]
    return (*labels, next(label for label in frequent[number % 4 :] if label not in labels))


def path_of(name: str, photos: Path, number: int) -> str:
    """How a person wrote the path: most as they are, some with the folders of a machine."""
    if number % 25 == 0:
        return str(photos.resolve() / name)
    return "C:\\Users\\Jörg\\Bilder\\" + name.replace("/", "\\") if number % 26 == 0 else name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    made = make_messy_set(args.folder, side=160, real=args.real)
    print(f"{len(made.wrong)} photos have wrong labels:")
    print(*(f"{name}: {labels}" for name, labels in made.wrong.items()), sep="\n")
