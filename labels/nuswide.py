"""NUS-WIDE in its official layout (Chua et al. 2009), as unpacked side by side:

    ImageList/      {I,TrainI,TestI}magelist.txt                    actor\\0001_2124494179.jpg
    Groundtruth/    TrainTestLabels/Labels_<concept>_{Train,Test}.txt       0 or 1 a line, in order
                    AllLabels/Labels_<concept>.txt                          of the lists
    NUS_WID_Tags/   TagList1k.txt, AllTags1k.txt (N×1000), All_Tags.txt (id, tags)

The folder itself gives the 81 concepts, its NUS_WID_Tags the 1k tags, All_Tags.txt all of the
photographers' own tags. Folders and files are found in any case.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from labels.annotated import AnnotatedImages
from util.errors import UsageError

NAME = "NUS-WIDE"
CHUNK = 4 << 20  # bytes of a matrix that are looked at together


def is_nuswide(path: Path) -> bool:
    """Whether this folder, or the one that it lies in, has NUS-WIDE's lists of images."""
    return _root(path) is not None


def read_nuswide(path: Path) -> AnnotatedImages:
    """81 concepts, 1k tags or all tags, see above. Raises UsageError naming file and line."""
    root = _root(path)
    lists = _part(root, "ImageList")
    names = _names(_part(lists, "Imagelist.txt"))
    parts = {"train": "TrainImagelist.txt", "test": "TestImagelist.txt"}
    of = {split: _names(_part(lists, file)) for split, file in parts.items()}
    if path.name.lower() == "all_tags.txt":
        return _divided(path, names, of, *_free_tags(path, names))
    if path.name.lower() == "nus_wid_tags":
        return _divided(path, names, of, *_tags_1k(path, names))
    truth = _part(root, "Groundtruth", needed=False) or root
    by_split = _part(truth, "TrainTestLabels", needed=False)
    if by_split is None:
        return _divided(path, names, of, *_concepts(_part(truth, "AllLabels"), len(names), ""))
    train, concepts = _concepts(by_split, len(of["train"]), "_Train")
    test, others = _concepts(by_split, len(of["test"]), "_Test")
    if concepts != others:
        raise UsageError(f"{by_split} has other concepts for training than for test")
    splits = ["train"] * len(train) + ["test"] * len(test)
    names = of["train"] + of["test"]
    return AnnotatedImages(str(path), names, train + test, concepts, NAME, splits)


def _root(path: Path) -> Path | None:
    """The folder with ImageList: this one or one of the two above."""
    for folder in (path, *path.absolute().parents[:2]):
        lists = _part(folder, "ImageList", needed=False) if folder.is_dir() else None
        if lists and lists.is_dir() and _part(lists, "Imagelist.txt", needed=False):
            return folder
    return None


def _part(folder: Path, name: str, needed: bool = True) -> Path | None:
    """The file or folder of that name in any case."""
    for entry in folder.iterdir():
        if entry.name.lower() == name.lower():
            return entry
    if needed:
        raise UsageError(f"{folder} lacks {name}, which NUS-WIDE has there; unpack it, too")
    return None


def _names(path: Path) -> list[str]:
    lines = path.read_text("utf-8-sig").replace("\\", "/").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    for number, name in enumerate(names, start=1):
        if name.startswith("/") or ".." in name.split("/") or ":" in name:
            raise UsageError(
                f"{path}, line {number}, has {name!r}, which is not inside the image folder"
            )
    return names


def _divided(path, names, of, label_sets, categories) -> AnnotatedImages:
    """With the official split; an image in neither list is left out."""
    split = dict.fromkeys(of["train"], "train") | dict.fromkeys(of["test"], "test")
    keep = [i for i, name in enumerate(names) if name in split]
    splits = [split.get(name, "") for name in names]
    return AnnotatedImages(str(path), names, label_sets, categories, NAME, splits).select(keep)


def _concepts(folder: Path, num_images: int, end: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Label sets, and the concepts in order of name, from one file for each concept."""
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
        column = _digits(files[concept].read_bytes(), files[concept])
        if len(column) != num_images:
            raise UsageError(
                f"{files[concept]} has {len(column):,} lines, the list of images {num_images:,}"
            )
        for i in np.flatnonzero(column):
            label_sets[i] += (concept,)
    return label_sets, concepts


def _digits(content: bytes, path: Path) -> np.ndarray:
    """The zeros and ones in a text that has nothing else but white space, as bool."""
    values = np.frombuffer(content, np.uint8)
    digits = values[values > ord(" ")]
    if (digits >> 1 != ord("0") >> 1).any():
        raise UsageError(f"{path} has other lines than 0 and 1")
    return digits == ord("1")


def _tags_1k(folder: Path, names: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """From the N×1000 matrix, 540 MB of text, a few rows at a time."""
    tags = _part(folder, "TagList1k.txt").read_text("utf-8-sig").split()
    matrix = _part(folder, "AllTags1k.txt")
    label_sets, rest = [], np.zeros(0, bool)
    with open(matrix, "rb") as file:
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
    """From lines of a photo's id and its tags; the id ends the image's name."""
    of_id = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            number, *tags = line.split() or [""]
            of_id[number] = tuple(dict.fromkeys(map(sys.intern, tags)))
    ids = [name.rpartition("_")[2].partition(".")[0] for name in names]
    if missing := [i for i in ids if i not in of_id]:
        raise UsageError(f"{path} lacks {len(missing):,} of the images, {missing[0]} for one")
    label_sets = [of_id[i] for i in ids]
    return label_sets, sorted({tag for tags in label_sets for tag in tags})
