"""Compare train.py's defaults for pretrained encoders with other recipes, on the hold-out.

    python benchmarks/quality/recipe.py ccp-lite0 --layer_decays 1 0.8
    python benchmarks/quality/recipe.py posters --augmentations light strong --table
    python benchmarks/quality/recipe.py ccp --learning_rates 0.001 0.002    # a ResNet-18

Trains HybridNet (chain, seed 0) with every combination that is given and not in results.jsonl yet,
then prints a line for each. The val images have no say.
Needs the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from quality import RESULTS, run_missing  # noqa: E402
from quality_results import METRICS, Run, look_up, read_results  # noqa: E402
from quality_sets import SETS, DataSet, tuned_flags  # noqa: E402

from training.recipe import PRETRAINED  # noqa: E402
from util.cli import ArgumentParser, non_negative_int, positive_int, run_script  # noqa: E402

VARIED = ("learning_rate", "layer_decay", "augmentation", "start_decay")  # in this order


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    names = [name for name, data in SETS.items() if data.tuned or "--weights" in data.flags]
    add("data", choices=names, help="data set, most with a pretrained encoder")
    for name in VARIED:
        default = PRETRAINED[name]
        add(f"--{name}s", nargs="+", type=type(default), default=[default], help="to be compared")
    add("--num_epochs", nargs="+", type=positive_int, help="instead of the data set's own number")
    add("--seeds", nargs="+", type=int, default=[0], help="one run for each")
    add("--threads", type=positive_int, default=1, help="threads of this process")
    add("--num_workers", type=non_negative_int, default=0, help="processes that load images")
    add("--table", action="store_true", help="train nothing")
    return parser


def vary(data: DataSet, layer_decay: float, augmentation: str, start_decay: float) -> DataSet:
    """The data set with these flags. A set without `tuned` has the default ones."""
    tuned = tuned_flags(layer_decay, augmentation)
    plain = tuned_flags(PRETRAINED["layer_decay"], PRETRAINED["augmentation"])
    tuned = data.tuned if tuned == plain and not data.tuned else tuned
    return replace(data, tuned=tuned, start_decay=start_decay)


def main(args: argparse.Namespace) -> None:
    """Train what is missing, then print the table."""
    torch.set_num_threads(args.threads)
    data = SETS[args.data]
    all_epochs = args.num_epochs or [data.num_epochs]
    names = [name.replace("_", " ") for name in VARIED]
    columns = [*names, "epochs", "seed", "set NLL", "mAP", "OF1", "EM"]
    print(f"| {' | '.join(columns)} |\n|" + " --- |" * len(columns))
    values = [getattr(args, f"{name}s") for name in VARIED]
    for rate, *tuned, epochs, seed in itertools.product(*values, all_epochs, args.seeds):
        varied = vary(data, *tuned)
        run = Run(args.data, varied.recipe, None, epochs, "chain", rate, seed)
        if not args.table:
            run_missing([run], varied, args.num_workers)
        found = read_results(RESULTS).get(run)
        cells = [v if type(v) is str else f"{v:g}" for v in (rate, *tuned, epochs, seed)]
        for name in ("set NLL", "mAP", "OF1", "EM"):
            value = look_up(found["holdout"], METRICS[name]) if found and "val" in found else None
            cells.append("–" if value is None else f"{value:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run_script(main, get_args_parser())
