"""Plant errors in correct annotations: how many of them are among the first label issues?

    python benchmarks/quality/planted_errors.py --image_path IMAGES --annotations JSON \\
        --checkpoints runs/coco/chain-0/best.pt runs/coco/none-0/best.pt

2 % of all labels are removed, and as many wrong labels are added to images that lack them, each as
often as it occurs. `evaluate.py --label_issues 100` then lists the annotations that the model finds
least likely. Precision at 100 is the share of these that was planted. Missing labels are harder to
find than surplus ones, so the table counts both. Mean ± standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from quality_results import mean_and_deviation

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from util.cli import ArgumentParser, run_script  # noqa: E402
from util.errors import RunError  # noqa: E402

Issue = tuple[str, str, str]  # file name, label, "missing" or "surplus"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="images that no model was trained on")
    add("--annotations", type=Path, required=True, help="their COCO json, free of errors")
    add("--checkpoints", type=Path, nargs="+", required=True, help="models to compare")
    add("--share", type=float, default=0.02, help="share of the labels to remove, and to add")
    add("--label_issues", type=int, default=100, help="how many label issues to look at")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="other errors for each")
    return parser


def main(args: argparse.Namespace) -> None:
    """Plant errors, evaluate, count, print the table."""
    clean = json.loads(args.annotations.read_text("utf-8"))
    counts = {path: [] for path in args.checkpoints}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotations = folder / "planted.json"
        for seed in args.seeds:
            with_errors, planted = plant(clean, args.share, seed)
            annotations.write_text(json.dumps({**clean, "annotations": with_errors}), "utf-8")
            for path in args.checkpoints:
                issues = label_issues(path, args.image_path, annotations, args.label_issues, folder)
                found = [issue[2] for issue in issues if issue in planted]
                counts[path].append((found.count("missing"), found.count("surplus")))
    print(f"| checkpoint | precision at {args.label_issues} (%) | missing found | surplus found |")
    print("| --- | --- | --- | --- |")
    for path, found in counts.items():
        missing, surplus = (list(column) for column in zip(*found, strict=True))
        precision = [100 * sum(pair) / args.label_issues for pair in found]
        cells = map(mean_and_deviation, (precision, missing, surplus))
        print(f"| {path} | " + " | ".join(cells) + " |")
    number = len(planted) // 2
    print(f"{number} missing and {number} surplus labels planted", file=sys.stderr)


def plant(clean: dict, share: float, seed: int) -> tuple[list[dict], set[Issue]]:
    """Annotations with errors, and the errors."""
    rng = np.random.default_rng(seed)
    names = {c["id"]: c["name"] for c in clean["categories"]}
    files = {i["id"]: Path(i["file_name"]).name for i in clean["images"]}
    pairs = sorted({(a["image_id"], a["category_id"]) for a in clean["annotations"]})
    number = round(share * len(pairs))
    removed = {pairs[i] for i in rng.choice(len(pairs), number, replace=False)}
    added: set[tuple[int, int]] = set()
    known = set(pairs)
    while len(added) < number:
        image = pairs[rng.integers(len(pairs))][0]
        category = pairs[rng.integers(len(pairs))][1]
        if (image, category) not in known:
            added.add((image, category))
    kept = [(i, c) for i, c in pairs if (i, c) not in removed]
    annotations = [{"image_id": i, "category_id": c} for i, c in [*kept, *sorted(added)]]
    kinds = [(pair, "missing") for pair in removed] + [(pair, "surplus") for pair in added]
    return annotations, {(files[i], names[c], kind) for (i, c), kind in kinds}


def label_issues(
    checkpoint: Path, images: Path, annotations: Path, number: int, output_dir: Path
) -> list[Issue]:
    """The label issues that evaluate.py lists. Raises RunError if it fails."""
    flags = {
        "--checkpoint": checkpoint,
        "--image_path": images,
        "--annotations": annotations,
        "--label_issues": number,
        "--output_dir": output_dir,
    }
    command = [sys.executable, ROOT / "evaluate.py", "--json", "--keep_unlabelled"]
    command += [part for flag in flags.items() for part in flag]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise RunError("evaluate.py failed; the reason is above")
    rows = json.loads(result.stdout)["label_issues"]
    return [(Path(row["image"]).name, row["label"], row["annotation"]) for row in rows]


if __name__ == "__main__":
    run_script(main, get_args_parser())
