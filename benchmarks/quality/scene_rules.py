"""The true rules of the default set's scenes, as a rules file: what they change in every metric.

    python benchmarks/quality/scene_rules.py > true_rules.txt
    python evaluate.py --checkpoint runs/scenes-chain
    python evaluate.py --checkpoint runs/scenes-chain --rules true_rules.txt
    python evaluate.py --compare runs/scenes-chain/metrics.json runs/scenes-chain/rules/metrics.json

It draws label sets from data/drawing/scene_rules.py without painting them, so many that what never
occurs is impossible, or nearly so, and prints the rules that none of them breaks. For rules that
are found on annotations take `evaluate.py --find_rules` instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "data")]
from drawing.scene_rules import SCENES, default_sizes, sample_things  # noqa: E402

from labels.annotated import AnnotatedImages  # noqa: E402
from labels.find_rules import rules_file  # noqa: E402
from labels.vocabulary import count_labels  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--num_sets", type=positive_int, default=200_000, help="label sets to draw")
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw label sets, print the rules that hold for all of them."""
    rng, sizes, names = np.random.default_rng(0), default_sizes(), list(SCENES)
    drawn = []
    for _ in range(args.num_sets):
        _, *rules = SCENES[rng.choice(names)]
        drawn.append(tuple({thing.name for thing in sample_things(tuple(rules), sizes, rng)}))
    label_sets = [labels for labels in drawn if labels]  # evaluate.py leaves out empty ones, too
    files = [f"{i}" for i in range(len(label_sets))]
    vocabulary = count_labels(label_sets, [])
    images = AnnotatedImages("the scenes' own rules", files, label_sets, [*vocabulary.labels])
    print(rules_file(images, vocabulary))


if __name__ == "__main__":
    run_script(main, get_args_parser())
