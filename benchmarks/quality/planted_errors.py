"""Plant errors in correct annotations: how many of them are among the first label issues?

    python benchmarks/quality/planted_errors.py scenes ccp

2 % of a data set's labels are removed, and as many wrong labels are added to images that lack them,
each as often as it occurs. Then --folds models are trained on these annotations, as `evaluate.py
--folds` does it: each judges the images that it was trained without. Precision at 100 is the share
of planted errors among the 100 most suspicious annotations. They are ranked in three ways:

    ours         evaluate.py --label_issues: P(annotation is right | image, its other annotations),
                 weighed with how often the label occurs
    probability  the same without the weight
    cleanlab     the label quality of the Python package cleanlab, from the marginals

Missing labels are harder to find than surplus ones, so the table counts both. It is mean ± standard
deviation over seeds: other errors and other folds. Finished trainings in runs/planted are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from quality_results import mean_and_deviation  # noqa: E402
from quality_sets import SETS, DataSet  # noqa: E402
from rivals import CONTENDERS  # noqa: E402

from evaluation.analysis import Questions, label_issues  # noqa: E402
from evaluation.choice import Chosen  # noqa: E402
from evaluation.judging import ImageReader, judge_images, load_part, restore_folds  # noqa: E402
from images.transforms import Preprocessing  # noqa: E402
from inference.checkpoint import load_checkpoint  # noqa: E402
from labels.read import read_labels  # noqa: E402
from labels.vocabulary import count_labels  # noqa: E402
from training.folds import make_folds, train_folds  # noqa: E402
from util.cli import ArgumentParser, fold_count, positive_int, run_script  # noqa: E402
from util.device import autocast, pick_device  # noqa: E402
from util.files import write_whole  # noqa: E402
from util.log import log  # noqa: E402

RUNS = ROOT / "runs/planted"
DECODERS = ("none", "chain")
MOST = 10_000  # annotations that are ranked
Pair = tuple[str, str]  # file name, label


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("data", nargs="+", choices=SETS, help="data sets; errors are planted in the training part")
    add("--share", type=float, default=0.02, help="share of the labels to remove, and to add")
    add("--folds", type=fold_count, default=3, help="models per data set and decoder")
    add("--label_issues", type=positive_int, default=100, help="how many label issues to look at")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="other errors for each")
    return parser


def main(args: argparse.Namespace) -> None:
    """Plant errors, train, rank, count, print the table."""
    print("| data set | ranked by | planted among the first | missing labels | wrong labels |")
    print("| --- | --- | --- | --- | --- |")
    for data in args.data:
        counts: dict[str, list[tuple[int, int]]] = {}
        for seed in args.seeds:
            annotations = RUNS / f"{data}-{seed}.json"
            planted = plant_file(SETS[data].train[1], annotations, args.share, seed)
            for decoder in DECODERS:
                folder = RUNS / f"{data}-{seed}-{args.folds}-folds-{decoder}"
                ranked = rank(SETS[data], annotations, decoder, args.folds, seed, folder)
                for name, pairs in ranked.items():
                    first = pairs[: args.label_issues]
                    found = [planted[pair] for pair in first if pair in planted]
                    counts.setdefault(name, []).append(
                        (found.count("missing"), found.count("surplus"))
                    )
        for name, found in counts.items():
            columns = [[sum(pair) for pair in found], *zip(*found, strict=True)]
            cells = [mean_and_deviation(list(column)) for column in columns]
            print(f"| {data} | {name} | " + " | ".join(cells) + " |", flush=True)
        log(f"{data}: {len(planted) // 2} missing and {len(planted) // 2} wrong labels planted")


def plant_file(clean: Path, annotations: Path, share: float, seed: int) -> dict[Pair, str]:
    """Write annotations with errors; returns the errors: "missing" or "surplus"."""
    content = json.loads(clean.read_text("utf-8"))
    with_errors, planted = plant(content, share, seed)
    text = json.dumps({**content, "annotations": with_errors})
    write_whole(annotations, text)
    return planted


def plant(clean: dict, share: float, seed: int) -> tuple[list[dict], dict[Pair, str]]:
    """Annotations with errors, and the errors."""
    rng = np.random.default_rng(seed)
    names = {c["id"]: c["name"] for c in clean["categories"]}
    files = {i["id"]: i["file_name"] for i in clean["images"]}
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
    return annotations, {(files[i], names[c]): kind for (i, c), kind in kinds}


def rank(
    data: DataSet, annotations: Path, decoder: str, num_folds: int, seed: int, folder: Path
) -> dict[str, list[Pair]]:
    """Train the folds and rank annotations, the most suspicious first, in several ways."""
    image_path = data.train[0]
    listed = read_labels(annotations, image_path)
    vocabulary = count_labels(listed.labelled().label_sets, listed.categories)
    chosen = Chosen(image_path, listed, list(range(len(listed))), "all")
    part = load_part(chosen, vocabulary, keep_unlabelled=True, limit=None, skip_bad=False)
    folds = make_folds(part.targets, num_folds, seed)
    names = [[part.images.file_names[i] for i in fold] for fold in folds]
    flags = vars(data.args(CONTENDERS["chain"], 0.002, seed))
    flags |= {"annotations": annotations, "decoder": decoder, "num_epochs": data.num_epochs}
    flags |= {"device": "cpu", "amp": "off", "num_workers": 0}
    best = train_folds(flags, vocabulary, names, folder)
    preprocessing = Preprocessing(**load_checkpoint(best[0])["preprocessing"])
    device = pick_device("cpu")
    judged = judge_images(
        restore_folds(best, folds, vocabulary),
        part,
        ImageReader(preprocessing, None, None, batch_size=64, num_workers=2, pin_memory=False),
        autocast(device, "off"),
        device,
        Questions(num_samples=128, flips=True),
    )
    targets, flips = part.targets, judged.decoded.flip_logit
    ours = [(i, c) for i, c, *_ in label_issues(flips, targets, MOST)]
    orders = {
        "ours": np.array(ours).T,
        "probability": first(-flips),
        "cleanlab": first(cleanlab_scores(targets, judged.decoded.predictions.marginals)),
    }
    return {
        f"{decoder}: {name}": [
            (part.images.file_names[i], vocabulary.labels[c]) for i, c in zip(*order, strict=True)
        ]
        for name, order in orders.items()
    }


def first(scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows and columns of the lowest scores N×C."""
    return np.unravel_index(np.argsort(scores, axis=None, kind="stable")[:MOST], scores.shape)


def cleanlab_scores(targets: np.ndarray, marginals: np.ndarray) -> np.ndarray:
    """N×C label quality, lowest first: cleanlab's issues by its score, then all others by it."""
    labels = [np.flatnonzero(row).tolist() for row in targets]
    probabilities = np.clip(marginals, 1e-6, 1 - 1e-6)
    quality = get_label_quality_scores_per_class(labels, probabilities)
    issues = find_multilabel_issues_per_class(labels, probabilities, n_jobs=1)
    return quality + ~np.asarray(issues)


if __name__ == "__main__":
    torch.set_num_threads(2)
    run_script(main, get_args_parser())
