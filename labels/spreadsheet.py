"""Tables in parquet and xlsx files -> which labels are on which image, as in CSV.

They need the packages pyarrow and openpyxl, which the project does not need otherwise.
"""

from __future__ import annotations

import importlib
import re
import string
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from labels.annotated import AnnotatedImages
from labels.csv_table import Block, table_of
from labels.options import DEFAULTS, ReadOptions
from labels.rows import Table
from labels.table import images_from_table
from labels.text import read_head
from util.errors import UsageError
from util.reading import check_ordinary

NAME = "parquet or xlsx"
PARQUET, ZIP, OLD_EXCEL = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
LETTERS = string.ascii_uppercase.encode()
OPEN_OFFICE = b"opendocument.spreadsheet"


def matches(path: Path) -> bool:
    """Whether a file begins as these do."""
    head, _ = read_head(path)
    sheet = path.suffix.lower() in (".xlsx", ".xlsm", ".xls", ".ods")
    return head.startswith(PARQUET) or (sheet and head.startswith((ZIP, OLD_EXCEL)))


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Raises UsageError naming file and row, or the package that is missing."""
    kind = "parquet" if read_head(path)[0].startswith(PARQUET) else "xlsx"
    return images_from_table(read_table(path, options), kind, options, image_path)


def read_table(path: Path, options: ReadOptions) -> Table:
    """Raises UsageError naming file and row, or the package that is missing."""
    head, _ = read_head(path)
    if head.startswith(PARQUET):
        return _parquet(path)
    if head.startswith(OLD_EXCEL) or OPEN_OFFICE in head[:200]:
        raise UsageError(f"{path} is an old or other spreadsheet: save it as .xlsx or as CSV UTF-8")
    return table_of(_sheet_rows(path), path)


def _package(name: str, path: Path) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(
            f"{path} needs the package {package}: pip install {package}, or save the file as CSV"
        ) from None


def _parquet(path: Path) -> Table:
    check_ordinary(path)
    parquet = _package("pyarrow.parquet", path)
    try:
        content = parquet.read_table(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be read ({reason}): copy it again") from None
    cells = {}
    for name in content.column_names:
        values = content[name].to_pylist()
        first = next((v for v in values if v is not None), None)
        if isinstance(first, dict) and "bytes" in first:
            raise UsageError(
                f"{path} holds the pictures themselves, in the column {name!r}: save them as "
                "files, with a table of their names and labels"
            )
        cells[name] = [_plain_value(value) for value in values]
    return Table(path, cells, range(1, content.num_rows + 1))


def _plain_value(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_plain_value, value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    plain = value is None or isinstance(value, (str, int, float))
    return value if plain else str(value)


def _sheet_rows(path: Path) -> Iterator[Block]:
    """The rows of the only sheet that has any. Raises UsageError."""
    openpyxl = _package("openpyxl", path)

    def sheets(results: bool) -> dict[str, list[tuple]]:
        book = openpyxl.load_workbook(path, read_only=True, data_only=results)
        found = {s.title: list(s.iter_rows(values_only=True)) for s in book.worksheets}
        book.close()
        return found

    try:
        results, formulas = sheets(True), sheets(False)
        merged = _merged_rows(path)
    except Exception as error:  # a damaged file raises any of a dozen
        raise UsageError(f"{path} cannot be read ({error}): save it again, or as CSV") from None
    if merged:
        raise UsageError(
            f"{path} has merged cells ({merged}): a value would count for the first row only; "
            "undo the merging and fill in every row"
        )
    titles = [t for t, rows in formulas.items() if any(v is not None for r in rows for v in r)]
    if len(titles) > 1:
        what = ", ".join(titles)
        raise UsageError(f"{path} has several sheets ({what}): save the right one as CSV UTF-8")
    for title in titles:
        rows = zip(results[title], formulas[title], strict=True)
        for number, (row, asked) in enumerate(rows, start=1):
            if any(v is None and text is not None for v, text in zip(row, asked, strict=True)):
                raise UsageError(
                    f"{path}, row {number}, has a formula without a result: open the file in a "
                    "spreadsheet program and save it again"
                )
            yield [number], [[_cell_text(value) for value in row]]


def _merged_rows(path: Path) -> str:
    """The first range of merged cells over several rows, such as B2:B4; or nothing."""
    with zipfile.ZipFile(path) as book:
        sheets = [book.read(n) for n in book.namelist() if n.startswith("xl/worksheets/")]
    for sheet in sheets:
        for first, last in re.findall(rb'<mergeCell ref="([A-Z]+\d+):([A-Z]+\d+)"', sheet):
            if first.lstrip(LETTERS) != last.lstrip(LETTERS):
                return f"{first.decode()}:{last.decode()}"
    return ""


def _cell_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)
