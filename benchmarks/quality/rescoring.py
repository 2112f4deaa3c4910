"""What it is worth that each answer of a user changes the other labels: a simulation.

    python benchmarks/quality/rescoring.py --image_path IMAGES --annotations JSON \\
        --chain runs/scenes-chain/best.pt --none runs/scenes-none/best.pt

The annotations play the user, on images that the models were not trained on. Three ways to work:

    correct   labels above a threshold are shown as on: the checkpoint's own, which is fitted for
              F1, or 1/2, which makes the expected number of corrections smallest. The user corrects
              the most probable wrong label, then the next, until all are right. `chain` updates the
              rest after each correction, by P(rest | what is known); the others do not change it.
    missing   labels are shown in order of probability. The rank of the first true label that is
              not yet on, after 0, 1, 2, … true labels were switched on: 1 is the best.
    asked     the model asks about one label at a time, the one closest to 1/2: its answer removes
              most of the uncertainty about the set, which is exactly that label's entropy. It stops
              when its most probable set is sure enough. Questions per image until 95 % of the sets
              are right; the limit for "sure enough" is chosen on these images for each model.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from data_loader import LabelledImages, load_data_set, make_loader  # noqa: E402
from inference.checkpoint import load_checkpoint, restore  # noqa: E402
from inference.decoding import most_probable_sets, sample_label_sets  # noqa: E402
from inference.predictions import encode_batches  # noqa: E402
from labels.read import read_labels  # noqa: E402
from labels.targets import encode_targets  # noqa: E402
from model import Encoding, HybridNet  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402
from util.device import autocast  # noqa: E402
from util.log import progress  # noqa: E402

SAMPLES = 128
RIGHT = 0.95  # share of the sets that must be right
SHOWN = 4  # switched-on labels in the table of ranks
MOST = 42  # questions per image


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="images that no model was trained on")
    add("--annotations", type=Path, required=True, help="their labels")
    add("--chain", type=Path, required=True, help="checkpoint of a model with --decoder chain")
    add("--none", type=Path, required=True, help="checkpoint of a model with --decoder none")
    add("--limit", type=positive_int, default=500, help="only the first N images")
    add("--names", type=Path, help="text file with the names of the images to use, a line each")
    return parser


@dataclass(frozen=True)
class User:
    """A batch of images and a user who knows their labels."""

    model: HybridNet
    encoding: Encoding
    targets: np.ndarray  # B×C bool

    def marginals(self, known: np.ndarray) -> np.ndarray:
        """B×C  P(label in set | image, known); known is B×C: 1 on, -1 off, 0 not known."""
        given = torch.from_numpy(known.astype(np.float32)) if known.any() else None
        return sample_label_sets(self.model, self.encoding, SAMPLES, known=given).marginals.numpy()

    def corrections(self, threshold: float, rescored: bool) -> np.ndarray:
        """B: how many labels the user corrects until all are right."""
        known = np.zeros(self.targets.shape, int)
        shown = scores = self.marginals(known)
        count = np.zeros(len(known), int)
        while True:
            on = np.where(known != 0, known > 0, shown >= threshold)
            wrong = on != self.targets
            if not wrong.any():
                return count
            rows = np.flatnonzero(wrong.any(1))
            first = np.where(wrong, scores, -1)[rows].argmax(1)
            known[rows, first] = np.where(self.targets[rows, first], 1, -1)
            count[rows] += 1
            if rescored:
                shown = scores = self.marginals(known)

    def ranks(self, rescored: bool) -> list[np.ndarray]:
        """For 0, 1, … true labels that are on: ranks of the first that is not, among those off."""
        known = np.zeros(self.targets.shape, int)
        scores, found = self.marginals(known), []
        for _ in range(SHOWN):
            left = self.targets & (known == 0)
            rows = np.flatnonzero(left.any(1))
            off = np.where(known == 0, scores, -1)
            first = np.where(left, off, -1).argmax(1)
            highest = off[np.arange(len(off)), first]
            found.append(1 + (off > highest[:, None]).sum(1)[rows])
            known[rows, first[rows]] = 1
            if rescored:
                scores = self.marginals(known)
        return found

    def questions(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(most+1)×B, before each question: P(best set | known), and whether that set is right."""
        known = np.zeros(self.targets.shape, int)
        sure, right = [], []
        for _ in range(most + 1):
            given = torch.from_numpy(known.astype(np.float32))
            samples = sample_label_sets(self.model, self.encoding, SAMPLES, known=given)
            best = most_probable_sets(self.model, self.encoding, known=given)
            sure.append((best.log_probs[:, 0] - samples.log_evidence).exp().numpy())
            right.append((best.label_sets[:, 0].numpy() == self.targets).all(1))
            doubt = np.where(known == 0, np.abs(samples.marginals.numpy() - 0.5), np.inf)
            rows, label = np.arange(len(known)), doubt.argmin(1)
            known[rows, label] = np.where(self.targets[rows, label], 1, -1)
        return np.stack(sure), np.stack(right)


def fewest_questions(sure: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """The lowest limit of `sure` at which RIGHT of the sets are right, and its questions per image.

    sure, right: Q×N, before each question.
    """
    for limit in np.unique(np.concatenate([np.linspace(0, 1, 401), 1 - np.logspace(-3, -6, 31)])):
        enough = sure >= limit
        stop = np.where(enough.any(0), enough.argmax(0), len(sure) - 1)
        share = right[stop, np.arange(right.shape[1])].mean()
        if share >= RIGHT:
            return {"questions": float(stop.mean()), "limit": float(limit), "right": float(share)}
    return {"questions": float("nan"), "limit": 1.0, "right": float(right[-1].mean())}


def main(args: argparse.Namespace) -> None:
    """Simulate all ways of work with both models; print JSON."""
    found: dict[str, object] = {}
    for decoder in ("none", "chain"):
        path = getattr(args, decoder)
        checkpoint = load_checkpoint(path)
        model, vocabulary, preprocessing = restore(checkpoint, path)
        listed = read_labels(args.annotations, args.image_path)
        if args.names:
            names = {*args.names.read_text("utf-8").splitlines()}
            listed = listed.select([i for i, n in enumerate(listed.file_names) if n in names])
        images, paths = load_data_set(args.image_path, listed, limit=args.limit)
        targets = encode_targets(images, vocabulary, training=False)
        loader = make_loader(LabelledImages(paths, targets, preprocessing), 64, num_workers=0)
        parts: dict[str, list] = {}
        batches = progress(loader, decoder)
        for encoding, true, _ in encode_batches(
            model, batches, autocast(torch.device("cpu"), "off")
        ):
            user = User(model, encoding, true.bool().numpy())
            rescored = decoder == "chain"
            for name, changes in (("fixed", False), ("rescored", True))[: 1 + rescored]:
                for limit, words in ((checkpoint["threshold"], "its threshold"), (0.5, "1/2")):
                    count = user.corrections(limit, changes)
                    parts.setdefault(f"corrections {name}, {words}", []).append(count)
                parts.setdefault(f"ranks {name}", []).append(user.ranks(changes))
            parts.setdefault("questions", []).append(user.questions(min(MOST, true.shape[1])))
        results = {"labels": float(targets.sum(1).mean()), "images": len(targets)}
        for name in [name for name in parts if name.startswith("corrections")]:
            results[name] = float(np.concatenate(parts[name]).mean())
        for name in [name for name in parts if name.startswith("ranks")]:
            columns = zip(*parts[name], strict=True)
            results[name] = [round(float(np.concatenate(c).mean()), 2) for c in columns]
        sure, right = (np.concatenate(c, 1) for c in zip(*parts["questions"], strict=True))
        results["asked"] = fewest_questions(sure, right)
        results["right without a question"] = float(right[0].mean())
        found[decoder] = results
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_script(main, get_args_parser())
