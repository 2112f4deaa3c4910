"""Open Images (Kuznetsova et al. 2020) -> which labels are on which image.

    ImageID,Source,LabelName,Confidence   a row for each label of an image: 1 is present, 0 absent
    000026e7,verification,/m/04bcr3,1     boxes have more columns; each box says that it is present

The names of the labels are in class-descriptions.csv (`/m/04bcr3,Table`), found beside the file or
in a folder above it, or given with `--label_names`. ImageID is the file's name without suffix. A
folder is read if it has such a file for train, validation or test.

If there are rows of Confidence 0, people have looked for the labels of an image's rows. All others
are unknown, or absent with `--blank absent`.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from labels.annotated import AnnotatedImages, all_but
from labels.label_numbers import read_label_names
from labels.options import DEFAULTS, ReadOptions
from labels.text import SPLITS, read_head, read_text
from util.errors import UsageError
from util.log import counted, log

NAME = "Open Images"
NEEDED = ("ImageID", "LabelName")
COLUMNS = re.compile(
    "ImageID|LabelName|Source|Confidence|[XY](Min|Max)|Is[A-Z]\\w+|XClick\\d[XY]|MaskPath|Box\\w+"
    "|PredictedIoU|Clicks"
)
ID = re.compile(r"/[a-z]/\w+")
DESCRIPTIONS = "*class-descriptions*.csv"


@dataclass
class _Found:
    """What the files say, and what is odd in them."""

    labels_of: dict[str, dict[str, bool]] = field(default_factory=dict)  # by image, by label id
    split_of: dict[str, str] = field(default_factory=dict)
    absent: int = 0
    both: int = 0  # labels that one row calls present and another absent


def matches(path: Path) -> bool:
    """Whether a table has the columns ImageID and LabelName, or a folder has such tables."""
    return bool(_files(path)) if path.is_dir() else _has_columns(path)


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Images in order of their first rows. Raises UsageError naming file and row."""
    files = _files(path) if path.is_dir() else [(path, None)]
    if len({split for _, split in files}) < len(files):
        names = ", ".join(file.name for file, _ in files)
        raise UsageError(f"{path} contains {names}: name the one with --annotations")
    found = _Found()
    for file, split in files:
        _read_rows(file, split, found)
    names = _names({x for labels in found.labels_of.values() for x in labels}, path, options)
    if found.absent:
        both = counted(
            found.both, "label has 1 and 0: it counts", "labels have 1 and 0: they count"
        )
        example = f"; {both} as 1" if found.both else ""
        one, several = (
            "row of Confidence 0 is an absent label",
            "rows of Confidence 0 are absent labels",
        )
        log(f"{path}: {counted(found.absent, one, several)}{example}")
    unknown = None
    if options.silence_is_unknown(found.absent):
        said = [[names[x] for x in labels] for labels in found.labels_of.values()]
        unknown = all_but(sorted(set(names.values())), said)
        log(f"{path}: labels without a row are unknown; --blank absent reads them as absent")
    label_sets = [
        tuple(dict.fromkeys(names[x] for x, present in labels.items() if present))
        for labels in found.labels_of.values()
    ]
    return AnnotatedImages(
        str(path),
        list(found.labels_of),
        label_sets,
        sorted(set(names.values())),
        NAME,
        list(found.split_of.values()) or None,
        unknown=unknown,
    )


def _has_columns(path: Path) -> bool:
    _, text = read_head(path)
    header = [name.strip().strip('"') for name in text.partition("\n")[0].split(",")]
    # with columns of another meaning (split, present) it is a table of somebody's own
    return all(name in header for name in NEEDED) and all(map(COLUMNS.fullmatch, header))


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The tables of a folder with the splits that their names begin with."""
    found = []
    for file in sorted(folder.glob("*.csv")):
        words = re.split(r"[^a-z]+", file.name.lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        if split and not file.name.startswith(".") and _has_columns(file):
            found.append((file, split))
    return found


def _read_rows(path: Path, split: str | None, found: _Found) -> None:
    """Add the rows of a table. Raises UsageError."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        image, label = (header.index(name) for name in NEEDED)
        confidence = header.index("Confidence") if "Confidence" in header else None
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UsageError(
                    f"{path}, row {reader.line_num}, has {len(row)} cells, its header {len(header)}"
                )
            value = "1" if confidence is None else row[confidence]
            if value not in ("0", "1"):
                value = _whole(value, path, reader.line_num)
            name, what = row[image].strip(), sys.intern(row[label].strip())
            if not name or not what:
                raise UsageError(f"{path}, row {reader.line_num}, has no ImageID or no LabelName")
            labels, present = found.labels_of.setdefault(name, {}), value == "1"
            found.absent += not present
            found.both += labels.get(what, present) != present
            labels[what] = labels.get(what, False) or present
            if split and found.split_of.setdefault(name, split) != split:
                raise UsageError(f"{path}: the image {name} is in {found.split_of[name]}, too")
    except csv.Error as error:
        raise UsageError(f"{path}, row {reader.line_num}, cannot be read ({error})") from None


def _whole(value: str, path: Path, row: int) -> str:
    """0 or 1 for 0.0 or 1.0. Raises UsageError for a machine's confidence, as 0.7."""
    try:
        number = float(value)
    except ValueError:
        number = None
    if number not in (0, 1):
        raise UsageError(
            f"{path}, row {row}, has Confidence {value!r}: only 0 and 1 are read; give the file of "
            "human labels (…-human-imagelabels.csv), not a machine's"
        )
    return str(int(number))


def _names(ids: set[str], path: Path, options: ReadOptions) -> dict[str, str]:
    """The name of each label id; a label that is no id is its own name. Raises UsageError."""
    unnamed = {x for x in ids if ID.fullmatch(x)}
    if not unnamed and options.label_names is None:
        return {x: " ".join(x.split()) for x in ids}
    source = options.label_names or _descriptions(unnamed, path)
    names = read_label_names(source)
    needed = unnamed if options.label_names is None else ids
    if lacking := needed - names.keys():
        raise UsageError(f"{source} has no name for the label {min(lacking)}, which {path} has")
    found = {x: names.get(x, x) for x in ids}
    example = min(needed)
    log(f"{path}: {source} names the labels: {example} is {found[example]!r}")
    if shared := [name for name, count in Counter(found.values()).items() if count > 1]:
        log(f"{path}: ids of one name are one label: {', '.join(sorted(shared)[:5])}")
    return found


def _descriptions(ids: set[str], path: Path) -> Path:
    """The file of class names beside the labels or in one of two folders above them."""
    start = path if path.is_dir() else path.absolute().parent
    for folder in (start, *start.absolute().parents[:2]):
        files = sorted(f for f in folder.glob(DESCRIPTIONS) if not f.name.startswith("."))
        complete = [f for f in files if ids <= read_label_names(f).keys()]
        if complete or files:
            return (complete or files)[0]
    raise UsageError(
        f"{path} has labels that are ids, as {min(ids)}: give their names, Open Images' "
        "class-descriptions.csv, with --label_names"
    )
