"""Are promises kept? Many random splits of evaluated images into a hold-out and a test part.

    python evaluate.py --checkpoint runs/scenes-chain/best.pt
    python evaluate.py --checkpoint runs/scenes-none/best.pt
    python benchmarks/quality/promise.py runs/scenes-chain runs/scenes-none

Reads the predictions.npz of each folder. For each split the thresholds are fitted on the hold-out
part (evaluation/promise.py) and used on the test part. The table has a row for each rule:

    made        splits in which anything can be promised; where each label has a promise of its
                own, pairs of a split and a label on the test part
    kept        of these, those where the promise holds on the test part. Chance differs between
                the parts, too: a bound without slack would be kept in 82 % for equal parts
    precision, recall   in percent on the test parts, over all labels: means over the splits in
                which anything can be promised; then the recall over all splits, 0 where nothing is
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from evaluation.compare import PREDICTIONS  # noqa: E402
from evaluation.promise import fit_promises  # noqa: E402
from inference.promises import KINDS, NEVER, TARGETS, say  # noqa: E402
from util.cli import ArgumentParser, fraction, positive_int, run_script  # noqa: E402
from util.errors import UsageError  # noqa: E402
from util.log import progress  # noqa: E402

SHOWN = (0.8, 0.9, 0.95)
MEANS = ("precision", "recall")


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("results", type=Path, nargs="+", help="folders with predictions.npz, see evaluate.py")
    add("--splits", type=positive_int, default=200, help="random splits")
    add("--hold_out", type=fraction, default=0.5, help="share of the images in the hold-out part")
    add("--most_labels", type=positive_int, help="labels of an image at most; default: as found")
    return parser


def main(args: argparse.Namespace) -> None:
    """A table for each folder."""
    for folder in args.results:
        try:
            with np.load(folder / PREDICTIONS) as file:
                targets, marginals = file["targets"], file["marginals"]
                is_partial = "unknown" in file
        except (OSError, KeyError, ValueError):
            raise UsageError(f"{folder} has no {PREDICTIONS}: run evaluate.py first") from None
        if is_partial:
            raise UsageError(f"{folder} is of annotations with unknown labels: take complete ones")
        size = round(args.hold_out * len(targets))
        if not 0 < size < len(targets):
            raise UsageError(f"{folder} has too few images to split: {len(targets)}")
        most = args.most_labels or int(targets.sum(1).max())
        print(f"{folder}: {len(targets):,} images, {size:,} in the hold-out part")
        print(format_table(try_splits(targets, marginals, size, args.splits, most)))


def try_splits(
    targets: np.ndarray, marginals: np.ndarray, size: int, splits: int, most: int
) -> dict[str, list[dict]]:
    """For each rule: what each split finds, see `try_rule`. The split's number is its seed."""
    found: dict[str, list[dict]] = {}
    for seed in progress(range(splits), "splitting", "splits"):
        order = np.random.default_rng(seed).permutation(len(targets))
        hold_out, test = order[:size], order[size:]
        promises = fit_promises(targets[hold_out], marginals[hold_out], most)
        for kind in KINDS:
            for target in SHOWN:
                thresholds = promises[kind][TARGETS.index(target)].numpy()
                rule = f"{kind}={target:g}"
                result = try_rule(rule, thresholds, targets[test], marginals[test])
                found.setdefault(rule, []).append(result)
    return found


def try_rule(
    rule: str, thresholds: np.ndarray, targets: np.ndarray, marginals: np.ndarray
) -> dict[str, float]:
    """made, kept (counts), precision and recall (in 0..1) on the test part."""
    kind, _, target = rule.partition("=")
    said = say(marginals, thresholds, rule)
    axis = 0 if kind.startswith("label_") else None
    hits, num_said, num_true = ((s).sum(axis) for s in (said & targets, said, targets))
    total = num_true if kind.endswith("recall") else num_said
    # "always" keeps a recall for sure: that is no promise; and without a case there is no test
    is_made = (thresholds < NEVER) & (thresholds > 0)
    made = (is_made if axis == 0 else is_made.any()) & (total > 0)
    kept = made & (hits >= float(target) * total - 1e-9)
    return {
        "made": int(np.sum(made)),
        "kept": int(np.sum(kept)),
        "precision": float(np.sum(hits) / max(np.sum(num_said), 1)),
        "recall": float(np.sum(hits) / max(np.sum(num_true), 1)),
    }


def format_table(found: dict[str, list[dict]]) -> str:
    """The table of a folder."""
    head = f"{'promised':<22} {'made':>6} {'kept':>7} {'precision':>10} {'recall':>8} {'of all':>8}"
    lines = [head]
    for rule, results in found.items():
        made, kept = (sum(r[name] for r in results) for name in ("made", "kept"))
        some = [r for r in results if r["made"]]
        share = f"{100 * kept / made:.1f} %" if made else "-"
        means = [f"{100 * np.mean([r[k] for r in some]):.1f}" if some else "-" for k in MEANS]
        of_all = f"{100 * sum(r['recall'] for r in some) / len(results):.1f}"
        cells = f"{share:>7} {means[0]:>10} {means[1]:>8} {of_all:>8}"
        lines.append(f"{rule:<22} {made:>6,} {cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, get_args_parser())
