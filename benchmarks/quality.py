"""Chain against the independent control on the default set: same data, encoder and budget.

    python benchmarks/quality.py --seeds 0 1 2 -- --num_epochs 8

Trains (or finds, under --output_dir) one run per decoder and seed, evaluates each on the val
images, and prints mean ± standard deviation over seeds. What follows `--` goes to train.py, so
other data (--image_path, --annotations, …) are compared the same way; --evaluate_on then names
the val images. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = {  # column -> where it stands in metrics.json
    "set NLL": ("set_nll",),
    "mAP": ("mAP",),
    "CF1": ("predicted_sets", "threshold", "CF1"),
    "OF1": ("predicted_sets", "threshold", "OF1"),
    "EM": ("predicted_sets", "map", "EM"),
    "EBF1": ("predicted_sets", "f1", "EBF1"),
    "ECE": ("ECE",),
}


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoders", nargs="+", default=["none", "chain"], help="to compare")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run each")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/quality"), help="of the runs")
    parser.add_argument(
        "--evaluate_on",
        nargs=2,
        metavar=("IMAGES", "ANNOTATIONS"),
        help="val images and their annotations; default: those of the default set",
    )
    parser.add_argument("train_flags", nargs="*", help="after --: flags of train.py")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run what is missing, then print the table."""
    rows = {}
    for decoder in args.decoders:
        results = [run(args, decoder, seed) for seed in args.seeds]
        rows[decoder] = [look_up(results, path) for path in FIGURES.values()]
    print("| decoder | " + " | ".join(FIGURES) + " |\n|" + " --- |" * (len(FIGURES) + 1))
    for decoder, columns in rows.items():
        print(f"| {decoder} | " + " | ".join(spread(values) for values in columns) + " |")


def run(args: argparse.Namespace, decoder: str, seed: int) -> dict:
    """metrics.json of one run; trained and evaluated only if that has not been done."""
    folder = args.output_dir / f"{decoder}-{seed}"
    script(
        "train.py", "--decoder", decoder, "--seed", seed, "--output_dir", folder, *args.train_flags
    )
    data = args.evaluate_on
    where = ("--image_path", data[0], "--annotations", data[1]) if data else ()
    script("evaluate.py", "--checkpoint", folder / "best.pt", *where)
    return json.loads((folder / "metrics.json").read_text())


def script(name: str, *flags: object) -> None:
    """Run one of the project's scripts; its data go to stderr, the table alone to stdout."""
    print("$ python", name, *flags, file=sys.stderr, flush=True)
    result = subprocess.run([sys.executable, ROOT / name, *map(str, flags)], stdout=sys.stderr)
    if result.returncode:
        sys.exit(result.returncode)


def look_up(results: list[dict], path: tuple[str, ...]) -> list[float]:
    """One figure of every run."""
    values = []
    for value in results:
        for key in path:
            value = value[key]
        values.append(value)
    return values


def spread(values: list[float]) -> str:
    """mean ± sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main(get_args_parser().parse_args())
