"""Speed as ratios: each row times this project and what it is compared with in turn, in one run.

    python benchmarks/speed/bench.py                # every topic, one table
    python benchmarks/speed/bench.py inference      # one topic: benchmarks/bench_inference.py

Prints a Markdown table; progress and the machine go to stderr. Images per second differ between
machines, ratios hardly do: the targets are ratios. A missed target is a result, not a failure.
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

import torch  # noqa: E402
from timing import Ratio  # noqa: E402

from util.device import autocast, pick_device  # noqa: E402
from util.log import log  # noqa: E402

TOPICS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = {"nargs": "*", "metavar": "TOPIC", "default": TOPICS}
    parser.add_argument("topics", help=f"of {', '.join(TOPICS)}; all if none is named", **choices)
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the table row by row, as the rows are measured."""
    log(describe_machine())
    print("| measure | ratio | target | | |\n|" + " --- |" * 5, flush=True)
    for topic in args.topics:
        log(f"measuring {topic}")
        rows: Iterator[Ratio] = importlib.import_module(f"bench_{topic}").measure()
        for row in rows:
            print(format_row(row), flush=True)


def describe_machine() -> str:
    """Processor, cores, GPU, versions and the precision that --amp auto takes here."""
    device = pick_device("auto")
    bf16 = autocast(device, "auto")._enabled
    precision = "bfloat16" if bf16 else "float32"
    return (
        f"{processor()}, {torch.get_num_threads()} threads{gpu(device)}; Python "
        f"{platform.python_version()}, torch {torch.__version__}; --amp auto: {precision}"
    )


def processor() -> str:
    """The CPU's name; only Linux has it in a file."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def gpu(device: torch.device) -> str:
    """Its name after a comma, if it is one."""
    return f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""


def format_row(row: Ratio) -> str:
    """One line of the table."""
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
    parser = get_args_parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.topics) - set(TOPICS):
        parser.error(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    main(arguments)
