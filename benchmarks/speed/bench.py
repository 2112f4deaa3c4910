"""Speed as ratios: each row times this project and a reference in turn, in one run.

    python benchmarks/speed/bench.py                # every topic, one table
    python benchmarks/speed/bench.py inference      # one topic: bench_inference.py

Prints a Markdown table; progress and the machine go to stderr. Images per second depend on the
machine, ratios hardly do, so the targets are ratios. The exit code is 0 even if a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # the topics import the project's modules

from timing import Ratio  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from util.cli import ArgumentParser, run_script  # noqa: E402
from util.device import pick_device, resolve_amp  # noqa: E402
from util.errors import UsageError  # noqa: E402
from util.log import log  # noqa: E402

TOPICS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
for alone in ("sample", "serve"):  # they need a trained model, and kill a process
    TOPICS.remove(alone)


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    topics = f"any of {', '.join(TOPICS)}; all if none is given"
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=topics)
    return parser


def main(args: argparse.Namespace) -> None:
    """Print each row of the table as soon as it is measured."""
    if unknown := set(args.topics) - set(TOPICS):
        raise UsageError(f"no topic {', '.join(sorted(unknown))}; choose from {', '.join(TOPICS)}")
    device = pick_device("auto")
    precision = "bfloat16" if resolve_amp("auto", device, {}) == "on" else "float32"
    python = f"Python {platform.python_version()}"
    log(f"{describe_machine(device)}, {python}; --amp auto: {precision}")
    print("| measure | ratio | target | | |\n|" + " --- |" * 5, flush=True)
    for topic in args.topics or TOPICS:
        log(f"measuring {topic}")
        rows: Iterator[Ratio] = importlib.import_module(f"bench_{topic}").measure()
        for row in rows:
            print(format_row(row), flush=True)


def format_row(row: Ratio) -> str:
    """A line of the table."""
    target = ""
    if row.at_least is not None:
        target = f"at least {row.at_least:g}"
    if row.at_most is not None:
        target = f"at most {row.at_most:g}"
    verdict = ("met" if row.met else "missed") if target else ""
    return (
        f"| {row.name} | {row.value:.2f} ± {row.spread:.2f} | {target} | {verdict} | {row.note} |"
    )


if __name__ == "__main__":
    run_script(main, get_args_parser())
