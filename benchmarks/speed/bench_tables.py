"""How long a table of a million rows takes to read, and the memory, against pandas.read_csv.

pandas returns the cells as text; read_labels finds the columns and the separator, and returns the
label set of each image.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from timing import Ratio, side_by_side

from labels.read import read_labels

ROOT = Path(__file__).resolve().parents[2]
NUM_ROWS, NUM_LABELS, NUM_COLUMNS = 1_000_000, 80, 20
# prints the megabytes that one reading adds to a process. Not ru_maxrss: on Linux it includes what
# the process that started this one had
PEAK = """
import re, sys
from pathlib import Path
{imports}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
before = peak()
value = {call}
print(peak() - before)
"""
OURS = {"imports": "from labels.read import read_labels", "call": "read_labels(Path(sys.argv[1]))"}
THEIRS = {"imports": "import pandas", "call": "pandas.read_csv(sys.argv[1])"}


def measure() -> Iterator[Ratio]:
    """A column of labels; then a 0/1 column for each of 20 labels, as text pandas must parse."""
    for what, write in (("labels in a cell", write_cells), ("0/1 columns", write_columns)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.csv"
            write(path)
            yield _compare(f"{what}, {NUM_ROWS:,} rows: pandas.read_csv ÷ read_labels", path)


def _compare(name: str, path: Path) -> Ratio:
    row = side_by_side(
        name, lambda: read_labels(path), lambda: pd.read_csv(path), rounds=3, warm_up=0
    )
    note = f"{path.stat().st_size / 1e6:.0f} MB in {row.ours:.1f} and {row.reference:.1f} s"
    if Path("/proc/self/status").exists():
        ours, theirs = (_peak_megabytes(code, path) for code in (OURS, THEIRS))
        note += f", {ours:,.0f} and {theirs:,.0f} MB memory"
    return replace(row, note=note)


def _peak_megabytes(code: dict[str, str], path: Path) -> float:
    """What reading the file adds to the memory of a new process."""
    command = [sys.executable, "-c", PEAK.format(**code), str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(result.stdout)


def write_cells(path: Path) -> None:
    """file_name,labels: 1 to 5 of 80 labels, separated by |."""
    rng = np.random.default_rng(0)
    names = [f"label {i}" for i in range(NUM_LABELS)]
    cells = ["|".join(rng.choice(names, n, replace=False)) for n in rng.integers(1, 6, 10_000)]
    chosen = rng.integers(len(cells), size=NUM_ROWS).tolist()
    _write(path, "file_name,labels", lambda i: cells[chosen[i]])


def write_columns(path: Path) -> None:
    """file_name and 20 columns of 0 and 1."""
    rng = np.random.default_rng(0)
    cells = [",".join(row) for row in rng.integers(0, 2, (10_000, NUM_COLUMNS)).astype(str)]
    chosen = rng.integers(len(cells), size=NUM_ROWS).tolist()
    header = ",".join(["file_name", *(f"label {i}" for i in range(NUM_COLUMNS))])
    _write(path, header, lambda i: cells[chosen[i]])


def _write(path: Path, header: str, cells: Callable[[int], str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{header}\n")
        file.writelines(f"images/{i:08d}.jpg,{cells(i)}\n" for i in range(NUM_ROWS))
