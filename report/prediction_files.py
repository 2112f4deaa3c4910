"""The tables that sample.py writes for many pictures, and goes on with after an interruption.

    sample.json         what made them: checkpoint, flags, the folder of the pictures
    predictions.jsonl   a line for each picture, as --json prints it, without the thresholds, which
                        are in sample.json; "image" is relative to the folder of the pictures
    predictions.csv     file_name, labels, and each label's probability: labels to train on
    unreadable.jsonl    pictures that could not be read, and why; those of the last run only

Lines are appended, predictions.jsonl first. So after a kill it has all finished pictures and at
most half a line more, and predictions.csv is the beginning of what follows from it. A
predictions.csv that is anything else was corrected by its user, and is never touched.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from labels.write import LabelCells, name_cell
from report.marked import PROGRAM
from report.sidecars import RECORD
from util.errors import RunError, UsageError
from util.files import BOM, write_whole
from util.log import counted, log
from util.marked import SHEET
from util.reading import check_ordinary, lines_of, parse_json, read_json

ABOUT, LINES, TABLE = "sample.json", "predictions.jsonl", "predictions.csv"
UNREADABLE = "unreadable.jsonl"


class About(msgspec.Struct):
    """The entries of sample.json that are compared."""

    program: Literal[PROGRAM]
    root: str
    checkpoint: str
    checkpoint_sha256: str
    flags: dict[str, Any]


class LabelSet(msgspec.Struct):
    """A label set and its probability."""

    labels: list[str]
    probability: float


class Line(msgspec.Struct):
    """A line of predictions.jsonl, as far as tables and slides need it."""

    image: str
    predicted: list[str]
    decided_by: str
    most_probable_sets: list[LabelSet]
    labels: dict[str, float]
    true: list[str] | None = None
    right: list[str] = []
    missed: list[str] = []
    added: list[str] = []
    not_known: list[str] = []
    known: list[str] = []
    absent: list[str] = []


def cannot_be_listed(name: str) -> str | None:
    """Why a table cannot have this file name; None if it can."""
    try:
        name_cell(name)
    except UsageError as error:
        return str(error)
    return None


class PredictionFiles:
    """The tables in a folder. Use it as a context; nobody else may write there meanwhile.

    about: what made the predictions, as sample.json keeps it; see `check_about`.
    labels: the labels in the order of the table's columns.
    """

    def __init__(self, folder: Path, about: dict, labels: Sequence[str]) -> None:
        self.folder, self.about, self.cells = folder, about, LabelCells(labels)
        self.names: list[str] = []  # of the pictures that have predictions, in order
        self.num_unreadable = 0

    def __enter__(self) -> PredictionFiles:
        """Check what is there and go on with it. Raises UsageError for what is not ours."""
        if not check_about(self.folder, self.about):
            text = json.dumps(self.about, indent=1)
            write_whole(self.folder / ABOUT, text + "\n")
        for name in (LINES, TABLE):
            check_ordinary(self.folder / name)
        with contextlib.ExitStack() as stack:
            self.lines, self.table = (
                stack.enter_context(open(self.folder / name, "a+b")) for name in (LINES, TABLE)
            )
            self._go_on()
            (self.folder / UNREADABLE).unlink(missing_ok=True)  # they are tried again
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _go_on(self) -> None:
        """Drop half a line of predictions.jsonl; add what predictions.csv lacks."""
        self.table.seek(0)
        _complete(self.table, self._header(), self.folder / TABLE)
        end = 0
        for number, line in enumerate(_whole_lines(self.lines, self.folder / LINES), 1):
            result = _read_line(line, self.folder / LINES, number, self.cells.labels)
            _complete(self.table, self._row(result), self.folder / TABLE)
            self.names.append(result["image"])
            end += len(line)
        if self.table.read(1):
            raise _corrected(self.folder / TABLE)
        self.lines.truncate(end)
        self.table.flush()

    def add(self, results: list[dict]) -> None:
        """Append pictures; "image" is the name in the folder of the pictures. Raises RunError."""
        lines = "".join(
            json.dumps({k: v for k, v in r.items() if k != "thresholds"}) + "\n" for r in results
        )
        rows = b"".join(map(self._row, results))
        for file, content, name in (
            (self.lines, lines.encode(), LINES),
            (self.table, rows, TABLE),
        ):
            _append(file, content, self.folder / name)
        self.names += [r["image"] for r in results]

    def add_unreadable(self, name: str, reason: str) -> None:
        """List a picture that cannot be read. Raises RunError."""
        path = self.folder / UNREADABLE
        line = json.dumps({"image": name, "reason": reason}) + "\n"
        with open(path, "ab") as file:
            _append(file, line.encode(), path)
        self.num_unreadable += 1

    def first(self, number: int) -> list[dict]:
        """The first pictures' results, with the thresholds."""
        constant = {k: v for k, v in self.about.items() if k == "thresholds"}
        lines = islice(_whole_lines(self.lines, self.folder / LINES), number)
        return [json.loads(line) | constant for line in lines]

    def all(self) -> Iterator[dict]:
        """All pictures' results, one after the other, without the thresholds."""
        return map(json.loads, _whole_lines(self.lines, self.folder / LINES))

    def _header(self) -> bytes:
        header = self.cells.header(probabilities=True, splits=False)
        return BOM.encode() + _csv_row(header)

    def _row(self, result: dict) -> bytes:
        probabilities = (f"{result['labels'][label]:.4f}" for label in self.cells.labels)
        names = name_cell(result["image"]), self.cells.join(result["predicted"])
        return _csv_row([*names, *probabilities])


def report_written(files: PredictionFiles, num_slides: int, root: Path) -> None:
    """Say on stderr what was written, and how to train on it. root: the folder of the pictures."""
    output, images = files.folder, counted(len(files.names), "image")
    log(f"{output}: {TABLE} and {LINES} ({images}), {counted(num_slides, 'slide')}, {SHEET}")
    if files.num_unreadable:
        log(f"{output / UNREADABLE} lists what cannot be read: {files.num_unreadable:,}")
    paths = shlex.quote(str(root)), shlex.quote(str(output / TABLE))
    log("to train on these labels, correct them first and run")
    log("  python train.py --image_path {} --annotations {}".format(*paths))


def check_about(folder: Path, about: dict) -> bool:
    """Whether the folder has predictions that may be continued; False if it has none.

    about: "root", "checkpoint", "checkpoint_sha256" and "flags" of the predictions to make. Raises
    UsageError for predictions of another kind, and for files that this program did not write.
    """
    if not os.path.lexists(folder / ABOUT):
        for name in (LINES, TABLE, UNREADABLE, RECORD):
            if os.path.lexists(folder / name):
                raise _foreign(folder / name)
        return False
    try:
        old = read_json(folder / ABOUT, About)
    except (OSError, UsageError, ValueError):
        raise _foreign(folder / ABOUT) from None
    if differences := _differences(old, about):
        raise UsageError(
            f"{folder} has predictions {', '.join(differences)}: choose another --output"
        )
    return True


def _differences(old: dict, new: dict) -> list[str]:
    """What made the old predictions, where it differs."""
    found = []
    if old["root"] != new["root"]:
        found.append(f"of the pictures in {old['root']}")
    if old["checkpoint_sha256"] != new["checkpoint_sha256"]:
        same = old["checkpoint"] == new["checkpoint"]
        found.append(f"by {'an earlier' if same else 'the checkpoint'} {old['checkpoint']}")
    for flag in {**old["flags"], **new["flags"]}:
        a, b = (about["flags"].get(flag) for about in (old, new))
        if a != b:
            words = ", ".join(map(str, a)) if isinstance(a, list) else a
            found.append(f"with --{flag} {words}" if words else f"without --{flag}")
    if not found and old.get("labels_sha256") != new.get("labels_sha256"):
        found.append("with the true labels that --annotations had then")
    return found


def _foreign(path: Path) -> UsageError:
    return UsageError(
        f"{path} was not written by this program and is not replaced: choose another --output"
    )


def _corrected(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not as it was written: if you corrected it, it is yours and stays as it is. "
        f"Train on it with train.py --annotations {path}, or choose another --output, or move it "
        "away to have it written again"
    )


def _complete(table: BinaryIO, row: bytes, path: Path) -> None:
    """Compare the next row of predictions.csv; append what its end lacks. Raises UsageError."""
    there = table.read(len(row))
    if there != row:
        if not row.startswith(there):
            raise _corrected(path)
        table.write(row[len(there) :])


def _append(file: BinaryIO, content: bytes, path: Path) -> None:
    try:
        file.write(content)
        file.flush()  # to the system: a killed process loses nothing
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror})") from None


def _whole_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines from the start of a file, without half a line at its end."""
    file.seek(0)
    for line in lines_of(file, path):
        if line.endswith(b"\n"):
            yield line


def _read_line(line: bytes, path: Path, number: int, labels: Sequence[str]) -> dict:
    """A line of predictions.jsonl, which has all `labels`. Raises UsageError."""
    try:
        found = parse_json(line, Line)
        fits = {*labels} == {*found["labels"]} >= {*found["predicted"]}
        has_truth = found.get("true") is not None
        if fits and found["most_probable_sets"] and has_truth <= ("not_known" in found):
            return found
        raise ValueError("other labels")
    except ValueError:
        wrong = f"{path}, line {number}, is damaged"
        raise UsageError(f"{wrong}: choose another --output") from None


def _csv_row(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
