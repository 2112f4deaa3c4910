"""Print the tables of docs/RELIABILITY.md that benchmarks here have measured.

    python benchmarks/robustness/tables.py

mutations.py, kills.py and awkward_pictures.py print one table each. With --save they also keep it
in results.json, which this command reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from util.cli import ArgumentParser, code_commit, command_line, run_script  # noqa: E402
from util.files import write_whole  # noqa: E402

RESULTS = Path(__file__).with_name("results.json")


def print_table(name: str, columns: Iterable[str], rows: Iterable[Iterable], save: bool) -> None:
    """Print a Markdown table. save: keep it under this name, in the place of an earlier one."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    lines = [f"| {' | '.join(row)} |" for row in cells]
    print(*lines, sep="\n", flush=True)
    if save:
        table = {"command": command_line(), "commit": code_commit(), "lines": lines}
        text = json.dumps(read_tables() | {name: table}, indent=1, ensure_ascii=False) + "\n"
        write_whole(RESULTS, text)


def read_tables() -> dict[str, dict]:
    """Name -> command, commit and the lines of each table that was kept."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}


def add_save_flag(parser: argparse.ArgumentParser) -> None:
    """--save of each benchmark."""
    parser.add_argument("--save", action="store_true", help="keep the table for tables.py")


def get_args_parser() -> argparse.ArgumentParser:
    return ArgumentParser(__doc__)


def main(args: argparse.Namespace) -> None:
    """Print all tables, each below its command and commit."""
    for name, table in sorted(read_tables().items()):
        print(f"{name}: {table['command']} (commit {table['commit']})\n")
        print(*table["lines"], "", sep="\n")


if __name__ == "__main__":
    run_script(main, get_args_parser())
