"""The photos of a folder, and what is known of them: annotations, doubts, a list of labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from annotation.order import Issue, Rating
from annotation.store import Answer, Store
from images.find import find_images
from labels.options import ReadOptions
from labels.read import read_labels
from labels.text import folded, read_text
from labels.write import LabelCells, name_cell
from util.errors import UsageError
from util.files import is_file, is_picture, left_out, plain_cell, walk
from util.log import counted, log, some

COLUMNS = {"file_name", "label", "annotation", "probability"}  # of label_issues.csv


def list_photos(folder: Path) -> tuple[list[str], list[Path]]:
    """The pictures in a folder, at any depth: names relative to it, with /, and paths.

    Names that no table can hold are left out, with a note. Raises UsageError if there are none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name the folder of the photos")
    found = [
        f"{below}/{entry.name}" if below else entry.name
        for below, entries in walk(folder)
        for entry in entries
        if is_file(entry)
    ]
    others = left_out(name for name in found if not is_picture(name))
    names, odd = [], []
    for name in filter(is_picture, found):
        try:
            name_cell(name)
            names.append(name)
        except UsageError:
            odd.append(name)
    if odd:
        log(f"note: left out, as no table can hold the name: {some(odd)}; rename them")
    if not names:
        raise UsageError(f"there are no photos in {folder}" + (f": {others}" if others else ""))
    return sorted(names), [folder / name for name in sorted(names)]


@dataclass(frozen=True)
class Annotations:
    """Labels to start from. number_of: the photo that each of their file names means."""

    source: str
    answers: dict[str, Answer]
    number_of: dict[str, int]


def read_annotations(
    annotations: Path, folder: Path, options: ReadOptions, names: Sequence[str]
) -> Annotations:
    """The labels of the photos `names` in a folder, from a file of any format.

    Labels of images that are not there are left out, with a note. Raises UsageError.
    """
    images = read_labels(annotations, folder, options)
    numbers = {name: number for number, name in enumerate(names)}
    answers, number_of, missing = {}, {}, []
    paths = find_images(folder, images, allow_missing=True)
    splits = images.splits or [None] * len(images)
    known = images.known() or [None] * len(images)
    rows = zip(images.file_names, paths, images.label_sets, splits, known, strict=True)
    for given, path, labels, split, of_known in rows:
        name = path.relative_to(folder).as_posix() if isinstance(path, Path) else ""
        if name in numbers:
            number_of[given] = numbers[name]
            answers[name] = Answer(labels, False, split, of_known)
        else:
            missing.append(given)
    if not answers:
        raise UsageError(f"no image of {annotations} is in {folder}, for example {missing[0]}")
    if missing:
        what = f"{len(missing):,} of the {len(images):,} images of {annotations}"
        log(f"note: {what} are not in {folder}, and not in the output: {some(missing)}")
    if images.splits and len(answers) < len(names):
        log(f"note: photos that {annotations} does not list get the split train")
    return Annotations(str(annotations), answers, number_of)


def read_issues(path: Path, names: Sequence[str], about: Annotations) -> dict[int, Rating]:
    """The ratings of photos by evaluate.py's label_issues.csv. Raises UsageError."""
    try:
        reader = csv.DictReader(io.StringIO(_read(path), newline=""))
        rows, columns = [(reader.line_num, row) for row in reader], {*(reader.fieldnames or ())}
    except csv.Error as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    if not columns >= COLUMNS:
        raise UsageError(f"{path} is not a label_issues.csv of evaluate.py --label_issues")
    number_of = {name: number for number, name in enumerate(names)} | about.number_of
    found: dict[int, list[Issue]] = {}
    others = 0
    for place, (line, row) in enumerate(rows):
        name, label = (plain_cell(row[key] or "") for key in ("file_name", "label"))
        try:
            issue = Issue(label, row["annotation"], float(row["probability"]), -place)
            if issue.kind not in ("surplus", "missing") or not 0 <= issue.probability <= 1:
                raise ValueError
        except (TypeError, ValueError):
            raise UsageError(f"{path}, row {line}, is damaged") from None
        if name in number_of:
            found.setdefault(number_of[name], []).append(issue)
        else:
            others += 1
    if not found:
        raise UsageError(f"{path} names no image of {about.source}")
    if others:
        one, several = f"row of {path} is", f"rows of {path} are"
        log(f"note: {counted(others, one, several)} about other images")
    return {photo: Rating.of(issues) for photo, issues in found.items()}


def without_corrected(
    ratings: Mapping[int, Rating], names: Sequence[str], store: Store
) -> dict[int, Rating]:
    """Without the issues that fit the annotations no longer; says on stderr how many these are."""
    kept, gone = {}, 0
    for photo, rating in ratings.items():
        answer = store.get(names[photo]) or Answer()
        still = [i for i in rating.issues if (i.kind == "surplus") == (i.label in answer.labels)]
        gone += len(rating.issues) - len(still)
        if still:
            kept[photo] = Rating.of(still)
    if gone:
        what = counted(gone, "issue does", "issues do")
        log(f"note: {what} not fit the annotations: corrected already, or spelled in another way")
    return kept


def read_label_list(path: Path) -> list[str]:
    """A text file with a label on each line. Raises UsageError."""
    labels = [*dict.fromkeys(label for line in _read(path).splitlines() if (label := folded(line)))]
    if not labels:
        raise UsageError(f"{path} has no labels: write one on each line")
    LabelCells(labels)
    return labels


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
