"""The answers on disk: a label table with a column `verified`, written again after each answer.

The table is the only memory. It is replaced in one step, so a kill at any time leaves the table
before or after an answer. A photo without a row is not answered yet.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from labels.csv_table import NAME, read_table
from labels.options import DEFAULTS, ReadOptions
from labels.table import images_from_table
from labels.write import CHECKED, VERIFIED, LabelCells, write_table
from util.errors import RunError, UsageError

START = ["file_name", "labels"]
COLUMNS = [[*START, *s, *c, VERIFIED] for s in ([], ["split"]) for c in ([], [CHECKED])]


@dataclass(frozen=True)
class Answer:
    """The labels of a photo; verified: a person has confirmed them on the page.

    known: the labels that the annotations say are there or not; None if all are known, as they are
    once a person has confirmed the photo.
    """

    labels: tuple[str, ...] = ()
    verified: bool = False
    split: str | None = None
    known: tuple[str, ...] | None = None


class StaleError(Exception):
    """The photo was answered elsewhere since the page was shown."""


class Store:
    """All answers, by the photo's name; safe for several threads.

    A version names what a page saw of a photo. It changes with each answer, and with each start of
    annotate.py, so that no page overwrites what it did not show.
    """

    def __init__(self, output: Path, annotated: Mapping[str, Answer]) -> None:
        """output: the table to write, or to continue. annotated: answers to start from.

        Verified rows of the table count more than `annotated`. Raises UsageError for a table that
        annotate.py did not write, and if another process writes it.
        """
        self.output = output
        self._start, self._counts = secrets.token_hex(4), dict[str, int]()
        self._before = dict[str, list[Answer | None]]()  # each photo's earlier answers
        self._guard = threading.Lock()
        self._file_lock = FileLock(output.with_name(f".{output.name}.lock"))
        self._lock_file()
        written = read_answers(output) if output.exists() else {}
        self._written = _stamp(output)
        fresh = {n: a for n, a in annotated.items() if n not in written or not written[n].verified}
        self._answers = {**annotated, **written, **fresh}

    def _lock_file(self) -> None:
        try:
            self._file_lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another annotate.py is writing {self.output}: stop it, or name another --output"
            ) from None
        except OSError as error:
            raise UsageError(f"cannot write {self.output} ({error.strerror})") from None

    def close(self) -> None:
        """Let another process write the table."""
        self._file_lock.release()

    def get(self, name: str) -> Answer | None:
        """The answer of a photo; None if it has none, not even an old annotation."""
        return self._answers.get(name)

    def is_verified(self, name: str) -> bool:
        """Whether a person has confirmed the labels of this photo."""
        answer = self._answers.get(name)
        return answer is not None and answer.verified

    def count_verified(self) -> int:
        """How many photos a person has confirmed, also those that left the folder."""
        return sum(answer.verified for answer in self._answers.values())

    def version(self, name: str) -> str:
        """What a page has to give with its answer."""
        return f"{self._start}-{self._counts.get(name, 0)}"

    def labels(self) -> list[str]:
        """All labels, the most frequent first; ties go by name."""
        counts: dict[str, int] = {}
        with self._guard:
            for answer in self._answers.values():
                for label in answer.labels:
                    counts[label] = counts.get(label, 0) + 1
        return sorted(counts, key=lambda label: (-counts[label], label))

    def answer(self, name: str, labels: Sequence[str], version: str) -> None:
        """Save the verified labels of a photo; they are on disk when this returns.

        Raises StaleError for an old version, UsageError for labels that no table can hold, and
        RunError if the table cannot be written or was changed elsewhere. Nothing has changed then.
        """
        LabelCells(labels).join(labels)
        with self._guard:
            self._check(name, version)
            old = self._answers.get(name)
            split = old.split if old else self._split_of_new()
            self._change(name, Answer(tuple(dict.fromkeys(labels)), True, split))
            self._before.setdefault(name, []).append(old)

    def undo(self, name: str, version: str) -> None:
        """Take back the last answer of this start. Raises StaleError, also if there is none."""
        with self._guard:
            self._check(name, version)
            if not self._before.get(name):
                raise StaleError
            self._change(name, self._before[name][-1])
            self._before[name].pop()

    def _check(self, name: str, version: str) -> None:
        if version != self.version(name):
            raise StaleError

    def _split_of_new(self) -> str | None:
        """A table has splits for all photos or for none."""
        return "train" if any(answer.split for answer in self._answers.values()) else None

    def _change(self, name: str, answer: Answer | None) -> None:
        if _stamp(self.output) not in (None, self._written):
            raise RunError(
                f"another program has changed {self.output}: start annotate.py again to go on from "
                "its table"
            )
        changed = {**self._answers, name: answer}
        if answer is None:
            del changed[name]
        write_answers(self.output, changed)
        self._written = _stamp(self.output)
        self._answers = changed
        self._counts[name] = self._counts.get(name, 0) + 1


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def write_answers(path: Path, answers: Mapping[str, Answer]) -> None:
    """Write the table in one step. Raises RunError, UsageError for a name no table can hold."""
    rows = answers.values()
    has_splits = any(answer.split for answer in rows)
    has_unknown = any(answer.known is not None for answer in rows)
    every = sorted({label for answer in rows for label in (*answer.labels, *(answer.known or ()))})
    write_table(
        path,
        [*answers],
        [answer.labels for answer in rows],
        [answer.split or "train" for answer in rows] if has_splits else None,
        [answer.verified for answer in rows],
        [every if answer.known is None else answer.known for answer in rows]
        if has_unknown
        else None,
    )


def read_answers(path: Path) -> dict[str, Answer]:
    """The answers in a table that annotate.py wrote. Raises UsageError for any other file."""
    try:
        table = read_table(path, DEFAULTS)
        ours = [*table.cells] in COLUMNS and {*table.cells[VERIFIED]} <= {"yes", ""}
    except UsageError:
        ours = False
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
    if not ours:
        raise UsageError(
            f"--output {path} exists and is not a table of annotate.py: it is never overwritten; "
            "name another file, and give this one as --annotations to start from it"
        )
    if not len(table):
        return {}
    images = images_from_table(table, NAME, ReadOptions(blank="absent"))
    splits = images.splits or [None] * len(images)
    verified = [cell == "yes" for cell in table.cells[VERIFIED]]
    if len(verified) != len(images):
        raise UsageError(f"{path} lists an image twice: delete one of the rows")
    known = images.known() or [None] * len(images)
    rows = zip(images.file_names, images.label_sets, verified, splits, known, strict=True)
    return {
        name: Answer(labels, is_verified, split, None if is_verified else known)
        for name, labels, is_verified, split, known in rows
    }
