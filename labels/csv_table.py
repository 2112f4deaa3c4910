"""CSV -> which labels are on which image.

    file_name,labels,split              file_name,cat,dog
    a.jpg,cat|dog,train                 a.jpg,1,1
    b.jpg,,val                          b.jpg,0,0

Columns are separated by comma, semicolon, tab or |; Excel's first line `sep=;` is understood. A
label that contains the separator of labels stands in double quotes. CelebA's text files, with the
number of images in the first line, are tables, too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.column_names import FILE_NAMES
from labels.options import DEFAULTS, ReadOptions
from labels.rows import Table, listed, plain
from labels.table import images_from_table
from labels.text import PICTURE, read_head, read_text
from util.errors import UsageError

NAME = "CSV"
DELIMITERS = ",;\t|"  # of columns
SEP = re.compile(r'"?sep=(.)"?[,;\t]*\s*')  # names the delimiter for Excel
Block = tuple[Sequence[int], list[list[str]]]  # rows and their numbers in the file
BREAKS = re.compile(r"\r\n|\r|\n")
BLOCK = 1000  # rows that become columns at once: many lists are slow, as Python checks them all
SHOWN = 60  # letters of a line in a message


def matches(path: Path) -> bool:
    """Whether this is a file of text, other than XML."""
    _, text = read_head(path)
    return bool(text) and not text.startswith("<") and "\0" not in text


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and row."""
    return images_from_table(read_table(path, options), NAME, options, image_path)


def read_table(path: Path, options: ReadOptions) -> Table:
    """Raises UsageError naming file and row."""
    text = read_text(path)
    return _counted_table(text, path) or _table(text, path, options)


def _table(text: str, path: Path, options: ReadOptions) -> Table:
    """Cells without white space around them."""
    skipped = 0
    lines = text.split("\n", 1)
    delimiter = None
    if sep := SEP.fullmatch(lines[0].strip("\r")):
        delimiter, skipped, text = sep[1], 1, lines[1] if len(lines) > 1 else ""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "").rstrip()
    delimiter = delimiter or _delimiter(first, path, options)
    return table_of(_blocks(text, delimiter, skipped, path), path)


def _blocks(text: str, delimiter: str, skipped: int, path: Path) -> Iterator[Block]:
    """Blocks of rows, and the number of each row's first line. Raises UsageError."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start, failed = skipped + 1, None
    while failed is None:
        rows: list[list[str]] = []
        try:
            rows.extend(islice(reader, BLOCK))  # keeps the rows before a mistake
        except csv.Error as error:
            failed = error
        end = reader.line_num + skipped + 1
        numbers: Sequence[int] = range(start, start + len(rows))
        if failed or end - start != len(rows):  # line breaks in cells
            lines = [1 + sum(len(BREAKS.findall(cell)) for cell in row) for row in rows]
            numbers = list(accumulate(lines, initial=start))
        if failed:
            what = "a cell of more than 131,072 letters" if "field" in str(failed) else str(failed)
            row = numbers[-1] if rows else start
            raise UsageError(
                f"{path}, row {row}, cannot be read ({what}): is a double quote missing?"
            )
        if not rows:
            return
        yield numbers[: len(rows)], rows
        start = end


def table_of(blocks: Iterable[Block], path: Path) -> Table:
    """Blocks of rows of text, the first row a header, as columns. Raises UsageError."""
    header: list[str] = []
    columns: list[list[str]] = []
    kept: list[int] = []
    for numbers, rows in blocks:
        if not header:
            at = next((i for i, row in enumerate(rows) if any(map(str.strip, row))), None)
            if at is None:
                continue
            header, numbers, rows = _header(rows[at], path), numbers[at + 1 :], rows[at + 1 :]
            columns = [[] for _ in header]
        if {*map(len, rows)} - {len(header)} or not all(row[0].strip() for row in rows):
            filled = [i for i, row in enumerate(rows) if any(map(str.strip, row))]
            rows = [_fitted(rows[i], len(header), f"{path}, row {numbers[i]},") for i in filled]
            numbers = [numbers[i] for i in filled]
        _append(columns, rows)
        kept.extend(numbers)
    return Table(path, _named(header, columns, path), kept)


def _append(columns: list[list[str]], rows: list[list[str]]) -> None:
    for column, values in zip(columns, zip(*rows, strict=True), strict=bool(rows)):
        column.extend(values)


def _header(cells: list[str], path: Path) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1:
        shown = header[0][:SHOWN]
        raise UsageError(f"{path} has no column of labels: its first row is {shown!r}")
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise UsageError(f"{path} has two columns {repeated[0]!r} in its first row")
    return header


def _fitted(cells: list[str], width: int, where: str) -> list[str]:
    """A row with as many cells as the header: spreadsheets add or leave out empty ones."""
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    if len(cells) > width:
        raise UsageError(
            f"{where} has {len(cells)} cells, its header {width}: put cells that contain a "
            "separator in double quotes, or separate labels with |"
        )
    return cells + [""] * (width - len(cells))


def _named(header: list[str], columns: Iterable[Sequence[str]], path: Path) -> dict[str, list[str]]:
    """The columns with their names; those without a name only if they hold anything."""
    named: dict[str, list[str]] = {}
    for name, column in zip(header, columns, strict=True):
        cells = list(map(str.strip, column))
        if name or any(cells):
            if name in named:
                raise UsageError(f"{path} has two columns without a name")
            named[name] = cells
    return named


def _delimiter(first: str, path: Path, options: ReadOptions) -> str:
    """The delimiter of the first line, which must be a header."""
    wanted = {plain(name) for name in (options.file_column, *options.label_columns) if name}
    several = []
    for delimiter in DELIMITERS:
        names = [plain(cell) for cell in _cells(first, delimiter)]
        if len(names) > 1:
            if wanted & {*names} or {*FILE_NAMES} & {*names}:
                return delimiter
            several.append(delimiter)
    shown = first if len(first) < SHOWN else first[:SHOWN] + "…"
    if any(PICTURE.search(cell.strip().strip('"')) for cell in re.split("[,;\t|]", first)):
        raise UsageError(
            f"{path} has no header: add a first row that names the columns, as in file_name,labels"
        )
    if len(several) == 1:
        return several[0]
    if plain(first) in FILE_NAMES:
        raise UsageError(f"{path} has no column of labels: its first row is {shown!r}")
    raise UsageError(
        f"{path} has no column file_name (its first row is {shown!r}): name the columns in the "
        f"first row, separated by comma, semicolon or tab, as in file_name,labels; other names "
        f"for file_name are {listed([*FILE_NAMES][1:])}"
    )


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line; the line itself if it is none of a table."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [line]


def _counted_table(text: str, path: Path) -> Table | None:
    """CelebA's layout: the number of images, the names of the labels, then the images."""
    lines = text.split("\n")
    if not lines[0].strip().isdigit() or len(lines) < 3:
        return None
    names = lines[1].split()
    rows, numbers = [], []
    for number, line in enumerate(lines[2:], start=3):
        if not line.strip():
            continue
        cells = line.split()
        if len(cells) != len(names) + 1:
            raise UsageError(
                f"{path}, row {number}, has {len(cells)} cells instead of a file name and "
                f"{len(names)} values, one for each name in row 2"
            )
        rows.append(cells)
        numbers.append(number)
    if len(rows) != int(lines[0]):
        raise UsageError(
            f"{path} has {len(rows):,} rows, its first line says {int(lines[0]):,}: correct it or "
            "copy the file again"
        )
    if not rows or len(set(names)) < len(names) or "file_name" in names:
        raise UsageError(f"{path} must have different names in row 2, and then rows of images")
    columns = [list(column) for column in zip(*rows, strict=True)]
    return Table(path, dict(zip(["file_name", *names], columns, strict=True)), numbers)
