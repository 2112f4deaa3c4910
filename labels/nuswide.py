"""NUS-WIDE in its official layout (Chua et al. 2009), as unpacked side by side:

    ImageList/      {I,TrainI,TestI}magelist.txt                    actor\\0001_2124494179.jpg
    Groundtruth/    TrainTestLabels/Labels_<concept>_{Train,Test}.txt       a line per image, in the
                    AllLabels/Labels_<concept>.txt                          order of the lists: 0, 1
    NUS_WID_Tags/   TagList1k.txt, AllTags1k.txt (N×1000), All_Tags.txt (id, tags)

The folder itself gives the 81 concepts, NUS_WID_Tags the 1,000 tags, All_Tags.txt all tags of the
photographers. Upper and lower case do not matter in names of folders and files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from util.errors import UsageError
from util.reading import MOST_TEXT, lines_of, open_file, read_bytes

NAME = "NUS-WIDE"
ALL_TAGS = "all_tags.txt"
CHUNK = 4 << 20  # bytes of a matrix that are read together


def matches(path: Path) -> bool:
    """Whether this is All_Tags.txt or a folder, in or next to NUS-WIDE's lists of images."""
    return (path.is_dir() or path.name.lower() == ALL_TAGS) and _root(path) is not None


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """81 concepts, 1,000 tags or all tags, see above. Raises UsageError naming file and line."""
    root = _root(path)
    lists = _part(root, "ImageList")
    names = _names(_part(lists, "Imagelist.txt"))
    train_names = _names(_part(lists, "TrainImagelist.txt"))
    test_names = _names(_part(lists, "TestImagelist.txt"))
    official = dict.fromkeys(train_names, "train") | dict.fromkeys(test_names, "test")
    if path.name.lower() == ALL_TAGS:
        return _with_splits(path, names, official, *_free_tags(path, names))
    if path.name.lower() == "nus_wid_tags":
        return _with_splits(path, names, official, *_tags_1k(path, names))
    truth = _part(root, "Groundtruth", needed=False) or root
    by_split = _part(truth, "TrainTestLabels", needed=False)
    if by_split is None:
        labels = _concepts(_part(truth, "AllLabels"), len(names), "")
        return _with_splits(path, names, official, *labels)
    train, concepts = _concepts(by_split, len(train_names), "_Train")
    test, test_concepts = _concepts(by_split, len(test_names), "_Test")
    if concepts != test_concepts:
        raise UsageError(f"{by_split} has other concepts for training than for test")
    splits = ["train"] * len(train) + ["test"] * len(test)
    names = train_names + test_names
    return AnnotatedImages(str(path), names, train + test, concepts, NAME, splits)


def _root(path: Path) -> Path | None:
    """The folder that contains ImageList: this one or one of the two above it."""
    for folder in (path, *path.absolute().parents[:2]):
        lists = _part(folder, "ImageList", needed=False) if folder.is_dir() else None
        if lists and lists.is_dir() and _part(lists, "Imagelist.txt", needed=False):
            return folder
    return None


def _part(folder: Path, name: str, needed: bool = True) -> Path | None:
    """The file or folder of that name, in upper or lower case. Raises UsageError if needed."""
    for entry in folder.iterdir():
        if entry.name.lower() == name.lower():
            return entry
    if needed:
        raise UsageError(f"{folder} lacks {name}, which is part of NUS-WIDE; unpack it there")
    return None


def _names(path: Path) -> list[str]:
    text = read_bytes(path, MOST_TEXT).decode("utf-8-sig")
    lines = text.replace("\\", "/").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    for number, name in enumerate(names, start=1):
        if name.startswith("/") or ".." in name.split("/") or ":" in name:
            raise UsageError(
                f"{path}, line {number}, has {name!r}, which is not inside the image folder"
            )
    return names


def _with_splits(
    path: Path,
    names: list[str],
    official: dict[str, str],
    label_sets: list[tuple[str, ...]],
    categories: list[str],
) -> AnnotatedImages:
    """The images with their official split; an image without one is left out."""
    keep = [i for i, name in enumerate(names) if name in official]
    splits = [official.get(name, "") for name in names]
    return AnnotatedImages(str(path), names, label_sets, categories, NAME, splits).select(keep)


def _concepts(folder: Path, num_images: int, end: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Label sets, and the concepts in order of name. Each concept has a file of its own."""
    ending = f"{end}.txt".lower()
    files = {
        file.name[len("Labels_") : -len(ending)]: file
        for file in folder.iterdir()
        if file.name.lower().startswith("labels_") and file.name.lower().endswith(ending)
    }
    if not files:
        raise UsageError(f"{folder} has no file Labels_<concept>{end}.txt")
    concepts = sorted(files)
    label_sets = [()] * num_images
    for concept in concepts:
        column = _digits(read_bytes(files[concept], MOST_TEXT), files[concept])
        if len(column) != num_images:
            raise UsageError(
                f"{files[concept]} has {len(column):,} lines, the list of images {num_images:,}"
            )
        for i in np.flatnonzero(column):
            label_sets[i] += (concept,)
    return label_sets, concepts


def _digits(content: bytes, path: Path) -> np.ndarray:
    """The zeros and ones of a text, as bool. Raises UsageError for anything else."""
    values = np.frombuffer(content, np.uint8)
    digits = values[values > ord(" ")]
    if (digits >> 1 != ord("0") >> 1).any():
        raise UsageError(f"{path} has lines that are neither 0 nor 1")
    return digits == ord("1")


def _tags_1k(folder: Path, names: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """From the N×1000 matrix, 540 MB of text, in parts of CHUNK bytes."""
    tags = read_bytes(_part(folder, "TagList1k.txt")).decode("utf-8-sig").split()
    matrix = _part(folder, "AllTags1k.txt")
    label_sets, rest = [], np.zeros(0, bool)
    with open_file(matrix, MOST_TEXT) as file:
        while content := file.read(CHUNK):
            flags = np.concatenate([rest, _digits(content, matrix)])
            rows, rest = np.split(flags, [len(flags) // len(tags) * len(tags)])
            of_each = [[] for _ in range(len(rows) // len(tags))]
            for i, c in np.argwhere(rows.reshape(-1, len(tags))).tolist():
                of_each[i].append(tags[c])
            label_sets += map(tuple, of_each)
    if len(label_sets) != len(names) or len(rest):
        raise UsageError(
            f"{matrix} has {len(label_sets):,} rows of {len(tags):,} tags, the list of images "
            f"{len(names):,}"
        )
    return label_sets, sorted(tags)


def _free_tags(path: Path, names: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """From lines with the id of a photo and its tags; the image's name ends with the id."""
    of_id = {}
    with open_file(path) as file:
        for line in lines_of(file, path):
            number, *tags = line.decode("utf-8-sig", "replace").split() or [""]
            of_id[number] = tuple(dict.fromkeys(map(sys.intern, tags)))
    ids = [name.rpartition("_")[2].partition(".")[0] for name in names]
    if missing := [i for i in ids if i not in of_id]:
        raise UsageError(f"{path} lacks {len(missing):,} of the images, for example {missing[0]}")
    label_sets = [of_id[i] for i in ids]
    return label_sets, sorted({tag for tags in label_sets for tag in tags})
