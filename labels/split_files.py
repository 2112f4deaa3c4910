"""Tables beside each other, one for each split -> which labels are on which image, with splits.

    train.csv   val.csv   test.csv        train_labels.csv   val_labels.csv

They are read as one table, so that separator and columns are the same in each. A table with other
columns, as Kaggle's test.csv without labels, is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions
from labels.split_folders import TABLES, Part, format_of, read_tables
from labels.text import SPLITS, read_head, split_of
from util.errors import UsageError
from util.files import is_ignored, suffix_of
from util.log import log, some

NAME = "a table for each split"
SUFFIXES = (".csv", ".tsv", ".jsonl")


def matches(path: Path) -> bool:
    """Whether there are such tables in this folder, at least for train and one other split."""
    return path.is_dir() and bool(split_files(path))


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Images in order of split and row. Raises UsageError naming file and row."""
    files = split_files(path)
    log(f"{path}: read as one data set with splits: {some([f.name for f in files.values()])}")
    folders = {s: p.name for p in sorted(path.iterdir()) if p.is_dir() and (s := split_of(p.name))}
    parts = [Part("", split, file, folders.get(split, "")) for split, file in files.items()]
    return read_tables(path, parts, NAME, options, image_path)


def split_files(path: Path) -> dict[str, Path]:
    """The table of each split, if their names differ only in it and their columns are the same."""
    groups: dict[tuple[str, ...], dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        split = split_in(file.stem)
        if split is None or suffix_of(file.name) not in SUFFIXES or is_ignored(file.name):
            continue
        words = [word for word in _words(file.stem) if word not in SPLITS]
        group = groups.setdefault((suffix_of(file.name), *words), {})
        if group.setdefault(split, file) != file:  # val.csv and valid.csv
            return {}
    whole = [group for group in groups.values() if len(group) > 1 and "train" in group]
    if len(whole) != 1:
        return {}
    header = _columns(whole[0]["train"])
    same = {s: whole[0][s] for s in ("train", "val", "test") if s in whole[0]}
    same = {s: file for s, file in same.items() if _columns(file) == header}
    if len(same) < 2 or not all(map(_is_table, same.values())):
        return {}
    return same


def split_in(name: str) -> str | None:
    """train, val or test, by the name of a file."""
    found = {SPLITS[word] for word in _words(name) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W\d_]+", name.lower()) if word]


def _columns(file: Path) -> list[str]:
    """The names in the first line of a table."""
    line = read_head(file)[1].partition("\n")[0]
    if file.suffix == ".jsonl":
        return re.findall(r'"(\w+)":', line)
    return [cell.strip(' \r"') for cell in re.split(r"[,;\t|]", line)]


def _is_table(file: Path) -> bool:
    try:
        return format_of(file) in TABLES
    except UsageError:
        return False
