"""Plant errors in clean annotations and see how many of the first label issues are among them.

    python benchmarks/quality/planted_errors.py --image_path IMAGES --annotations JSON \\
        --checkpoints runs/coco/chain-0/best.pt runs/coco/none-0/best.pt

Of all labels 2 % are taken off their images, and as many wrong ones are put on images that lack
them, drawn as frequently as they come. `evaluate.py --label_issues 100` then lists what it finds
least likely; precision at 100 is the share of these that was planted. Missing labels are harder to
find than surplus ones, so the table counts both. Mean ± standard deviation over plantings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import spread

ROOT = Path(__file__).resolve().parents[2]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="images none of the models was trained on")
    add("--annotations", type=Path, required=True, help="their COCO json, free of errors")
    add("--checkpoints", type=Path, nargs="+", required=True, help="models to compare")
    add("--share", type=float, default=0.02, help="of the labels taken off, and put on")
    add("--label_issues", type=int, default=100, help="how many label issues are looked at")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one planting each")
    return parser


def main(args: argparse.Namespace) -> None:
    """Plant, evaluate, count, print the table."""
    clean = json.loads(args.annotations.read_text("utf-8"))
    counts = {path: [] for path in args.checkpoints}
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            planted_file = Path(folder) / "planted.json"
            annotations, planted = plant(clean, args.share, seed)
            planted_file.write_text(json.dumps({**clean, "annotations": annotations}), "utf-8")
            for path in args.checkpoints:
                found = look_for_suspects(path, planted_file, Path(folder), args)
                hits = [row["annotation"] for row in found if key(row) in planted]
                counts[path].append((hits.count("missing"), hits.count("surplus")))
        of_each = sum(kind == "missing" for *_, kind in planted)
    print(f"| checkpoint | precision at {args.label_issues} (%) | missing found | surplus found |")
    print("| --- | --- | --- | --- |")
    for path, found in counts.items():
        missing, surplus = (list(column) for column in zip(*found, strict=True))
        precision = [100 * sum(pair) / args.label_issues for pair in found]
        print(f"| {path} | " + " | ".join(map(spread, (precision, missing, surplus))) + " |")
    print(f"{of_each} missing and {of_each} surplus labels planted", file=sys.stderr)


def plant(clean: dict, share: float, seed: int) -> tuple[list[dict], set[tuple[str, str, str]]]:
    """Annotations with errors, and the (file, label, kind) of each error."""
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


def key(row: dict) -> tuple[str, str, str]:
    """What identifies an error: the file's name, the label, and what is wrong with it."""
    return Path(row["image"]).name, row["label"], row["annotation"]


def look_for_suspects(
    checkpoint: Path, annotations: Path, folder: Path, args: argparse.Namespace
) -> list[dict]:
    """The label issues that evaluate.py lists."""
    command = [sys.executable, ROOT / "evaluate.py", "--json", "--keep_unlabelled"]
    command += ["--checkpoint", checkpoint, "--image_path", args.image_path]
    command += [
        "--annotations",
        annotations,
        "--label_issues",
        args.label_issues,
        "--output_dir",
        folder,
    ]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(result.returncode)
    return json.loads(result.stdout)["label_issues"]


if __name__ == "__main__":
    main(get_args_parser().parse_args())
