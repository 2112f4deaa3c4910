"""labels_to_merge.csv -> which labels to rename: `--labels_to_merge`.

from,to
Dog,dog
doggo,dog
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.tags import respell
from labels.text import folded, read_text
from util.errors import UsageError
from util.files import csv_text, plain_cell
from util.log import counted, log, some

COLUMNS = ["from", "to"]


def merge_labels(images: AnnotatedImages, path: Path) -> AnnotatedImages:
    """Rename labels as a file says, and say on stderr what it did. Raises UsageError."""
    merges = read_merges(path)
    used = [old for old in merges if old in set(images.categories)]
    renamed = sum(any(label in merges for label in labels) for labels in images.label_sets)
    log(f"{path}: {counted(len(used), 'label')} renamed, on {counted(renamed, 'image')}")
    if unused := [repr(old) for old in merges if old not in used]:
        log(f"note: {path} renames labels that {images.source} lacks: {some(unused)}")
    return respell(images, merges)


def merges_as_csv(pairs: list[tuple[str, str]]) -> bytes:
    """Pairs (from, to) as a file that `read_merges` reads, and Excel shows with umlauts."""
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *(map(csv_text, pair) for pair in pairs)])
    return text.getvalue().encode("utf-8-sig", "replace")


def read_merges(path: Path) -> dict[str, str]:
    """From labels to what they become. Raises UsageError naming file and row.

    Columns may also be separated by semicolon or tab, as some spreadsheets write them.
    """
    try:
        text = read_text(path)
        first = text.partition("\n")[0]
        delimiter = next((d for d in ",;\t" if d in first), ",")
        lines = io.StringIO(text, newline="")
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except OSError as error:
        raise UsageError(
            f"cannot read --labels_to_merge {path} ({error.strerror or error})"
        ) from None
    except csv.Error as error:
        raise UsageError(f"{path} is not CSV ({error})") from None
    if not rows or [cell.strip().lower() for cell in rows[0]] != COLUMNS:
        raise UsageError(f"--labels_to_merge {path} must begin with the row from,to")
    merges: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        old, *new = (_label(cell) for cell in row)
        if len(new) != 1 or not old or not new[0]:
            raise UsageError(f"{path}, row {number}, must have two labels: from,to")
        if merges.setdefault(old, new[0]) != new[0]:
            raise UsageError(f"{path}, row {number}, renames {old!r} a second time")
    if chained := sorted({new for old, new in merges.items() if merges.get(new, new) != new}):
        raise UsageError(f"{path} renames {chained[0]!r}, to which other labels are renamed")
    return merges


def _label(cell: str) -> str:
    """A label as `read_labels` gives it, without the quote of `csv_text`."""
    return plain_cell(folded(cell))
