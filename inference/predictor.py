"""A trained model in Python: from an image to its labels.

from inference.predictor import load

model = load("runs/scenes-chain/best.pt")
print(model.predict("photo.jpg")["predicted"])
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from images.decode import load_pixels
from images.to_rgb import pixels_of
from images.transforms import Transform
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.decoding import (
    BestSets,
    Samples,
    expected_f1_sets,
    most_probable_sets,
    sample_label_sets,
)
from inference.predictions import check_finite
from inference.promises import (
    decision,
    find_thresholds,
    is_promise,
    promises_of,
    say,
    split_promise,
)
from inference.rules import LabelRules, load_rules
from inference.valid_sets import nearest_valid_sets, valid_f1_sets
from labels.text import folded
from labels.vocabulary import Vocabulary
from model import Encoding, HybridNet
from util.device import autocast, pick_device, resolve_amp
from util.errors import UsageError

# images × samples × (labels + numbers in a decoder state) decoded at once: 64 MB for each tensor
LIMIT = 1 << 24


def load(
    path: str | Path, device: str = "auto", amp: str = "auto", rules: str | Path | None = None
) -> Predictor:
    """The model of a checkpoint, or of a run's folder, ready to predict.

    device: auto, cpu, cuda, cuda:1, …; amp: bfloat16 for the encoder, auto, on or off. rules: a
    text file, see labels/rules.py. Raises UsageError if a file or the device cannot be used.
    """
    path = find_checkpoint(Path(path))
    checkpoint, where = load_checkpoint(path), pick_device(device)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    return Predictor(
        model.to(where),
        vocabulary,
        preprocessing.eval_transform(),
        {"threshold": checkpoint["threshold"], "label_f1": checkpoint["label_thresholds"]},
        autocast(where, resolve_amp(amp, where, checkpoint["flags"])),
        checkpoint["flags"],
        load_rules(Path(rules), vocabulary.labels) if rules else None,
        promises_of(checkpoint),
    )


def check_samples(num_samples: int, standard_errors: bool) -> None:
    """Raise UsageError for the standard errors of one sample: its variance is unknown."""
    if standard_errors and num_samples < 2:
        raise UsageError("--standard_errors needs --num_samples 2 or more")


@dataclass(frozen=True)
class Predictor:
    """A model with all that it takes to label an image; `load` makes it."""

    model: HybridNet
    vocabulary: Vocabulary
    transform: Transform
    thresholds: dict[str, float | list[float]]  # by decision rule: one for all labels, or C
    amp: torch.autocast
    flags: dict  # of train.py
    rules: LabelRules | None = None  # all answers are given these
    promises: dict | None = None  # see inference/promises.py

    @property
    def labels(self) -> tuple[str, ...]:
        """C labels, the most frequent first."""
        return self.vocabulary.labels

    def predict(self, image: str | Path | Image.Image, **options: object) -> dict:
        """What `sample.py --json` prints for an image; options are those of `describe`.

        image: a file, or a PIL image of any mode; EXIF rotation is applied to both. Raises
        UsageError for a file that cannot be read.
        """
        return self.describe(self.encode(image), **options)

    @torch.no_grad()
    def encode(self, image: str | Path | Image.Image) -> Encoding:
        """One image -> Encoding with B = 1, for `describe` and `class_activation_maps`."""
        if isinstance(image, Image.Image):
            pixels = pixels_of(image)
        else:
            pixels = load_pixels(Path(image), self.transform.side)
        return self.encode_batch(self.transform(pixels, pixels.shape[1] / pixels.shape[0])[None])

    @torch.no_grad()
    def encode_batch(self, images: Tensor) -> Encoding:
        """Images B×3×S×S uint8, as `transform` makes them -> Encoding, for `describe_batch`.

        Raises UsageError if it is not finite.
        """
        with self.amp:
            encoding = self.model.encode(images.to(self.model.mean.device, non_blocking=True))
        check_finite(encoding.cnn_logits, encoding.image_embedding)
        return encoding

    def class_activation_maps(self, encoding: Encoding) -> dict[str, np.ndarray]:
        """Label -> h×w, the CNN's logit of the label at each place of the image."""
        maps = encoding.class_activation_map(0).cpu().numpy()
        return dict(zip(self.labels, maps, strict=True))

    def describe(self, encoding: Encoding, **options: object) -> dict:
        """`describe_batch` for the encoding of one image."""
        return self.describe_batch(encoding, **options)[0]

    def describe_batch(
        self,
        encoding: Encoding,
        known: Sequence[str] = (),
        absent: Sequence[str] = (),
        decide: str = "threshold",
        num_sets: int = 1,
        num_samples: int = 256,
        standard_errors: bool = False,
    ) -> list[dict]:
        """Predicted labels, label sets and probabilities of each image, in plain types.

        known, absent: labels that are known to be on the images, or not to be.
        decide: the rule for "predicted": threshold (one for all labels), label_f1 (one for each
        label), map (the most probable set), f1 (the set with the highest expected F1), or a promise
        such as precision=0.95, see inference/promises.py.
        num_sets: how many of the most probable sets to list.
        num_samples: label sets sampled for the probabilities.
        standard_errors: adds them, and if no label is known certain bounds of the probabilities.

        Images are decoded together, as many at once as LIMIT allows. Raises UsageError for labels
        that the model does not know, for standard errors of a single sample and for probabilities
        that are not finite; ValueError for another rule.
        """
        check_samples(num_samples, standard_errors)
        try:
            decide = decision(decide)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"decide is {decide!r}; it {error}") from None
        self.check_promise(decide, known, absent)
        facts = self.encode_known(known, absent)
        num_images, num_labels = encoding.cnn_logits.shape
        width = num_labels + self.model.decoder.initial_state(1).shape[1]
        at_once = max(1, LIMIT // (max(num_samples, num_sets) * width))
        results = []
        for start in range(0, num_images, at_once):
            part = rows_of(encoding, slice(start, start + at_once))
            few = facts.expand(len(part.cnn_logits), -1)
            samples = sample_label_sets(self.model, part, num_samples, known=few, rules=self.rules)
            check_finite(samples.marginals)
            best = most_probable_sets(self.model, part, num_sets, known=few, rules=self.rules)
            results += self._in_words(samples, best, decide, standard_errors, few)
        if known or absent:
            for result in results:
                result["known"], result["absent"] = list(known), list(absent)
        if self.rules:
            for result in results:
                result["rules"] = len(self.rules.rules)
        return results

    def _in_words(
        self, samples: Samples, best: BestSets, decide: str, errors: bool, known: Tensor
    ) -> list[dict]:
        """The result of each image. All tensors become lists at once: it is the hot path."""
        marginals = samples.marginals  # B×C
        order = marginals.argsort(1, descending=True)
        thresholds = None
        if (fixed := self.thresholds_of(decide)) is not None:
            thresholds = marginals.new_tensor(fixed).expand_as(marginals)
            chosen = marginals >= thresholds
            if self.rules:
                gains = (marginals.double() - thresholds.double()).cpu().numpy()
                valid = nearest_valid_sets(gains, self.rules, known.cpu().numpy())
                chosen = torch.from_numpy(valid).to(chosen.device)
        elif is_promise(decide):
            by_rank = find_thresholds(self.promises, decide, "this checkpoint")
            chosen = torch.from_numpy(say(marginals.cpu().numpy(), by_rank, decide))
            chosen = chosen.to(marginals.device)
        elif decide == "map":
            chosen = best.label_sets[:, 0]
        else:
            chosen = expected_f1_sets(samples.label_sets, samples.weights)
            if self.rules:
                chosen = valid_f1_sets(chosen, samples.label_sets, samples.weights, self.rules)
        ranked = order.tolist()
        covered = (best.covered / samples.log_evidence.exp()).clamp_max(1)
        columns = {
            "predicted": self._list_chosen(chosen, order),
            "decided_by": [decide] * len(ranked),
            "most_probable_sets": self._list_sets(best, samples),
            "sets_are_certain": best.certain.tolist(),
            "covered": covered.tolist(),
            "labels": self._by_label(marginals, ranked),
        }
        if thresholds is not None:
            columns["thresholds"] = self._by_label(thresholds, ranked)
        if errors:
            columns["standard_errors"] = self._by_label(samples.standard_errors, ranked)
            if best.lower is not None:
                bounds = torch.stack([best.lower, best.upper], 2)  # B×C×2
                columns["bounds"] = self._by_label(bounds, ranked)
        if self.rules or known.any():
            sizes = samples.effective_size.tolist()  # inf: exact
            columns["effective_sample_size"] = [None if n == math.inf else n for n in sizes]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def check_promise(self, decide: str, known: Sequence[str], absent: Sequence[str]) -> None:
        """Raise UsageError for a promise if anything is known."""
        if is_promise(decide) and (known or absent or self.rules):
            raise UsageError(
                f"{decide} holds if nothing is known: leave out --known, --absent and --rules"
            )

    def thresholds_of(self, decide: str) -> float | list[float] | None:
        """A rule's threshold for all labels, or C; None for a rule that has none by label.

        Raises UsageError for a promise that cannot be kept.
        """
        if not is_promise(decide):
            return self.thresholds.get(decide)
        found = find_thresholds(self.promises, decide, "this checkpoint").tolist()
        return None if split_promise(decide)[0] == "precision" else found

    def encode_known(self, known: Sequence[str], absent: Sequence[str]) -> Tensor:
        """1×C: 1 for known labels, -1 for absent labels, 0 for all others.

        Raises UsageError for a label that the model does not know, for one that is in both, and if
        the rules allow no set with these labels.
        """
        own = {folded(label): label for label in self.labels}  # accents may be written in two ways
        known, absent = ([own.get(folded(x), x) for x in each] for each in (known, absent))
        for label in (*known, *absent):
            if label not in self.labels:
                close = get_close_matches(label, self.labels, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UsageError(f"the model does not know the label {label!r}{hint}")
        if both := sorted(set(known) & set(absent)):
            raise UsageError(f"the label {both[0]!r} is given as known and as absent; choose one")
        facts = [[(label in known) - (label in absent) for label in self.labels]]
        if self.rules:
            self.rules.check_facts(np.array(facts), self.labels)
        return self.model.mean.new_tensor(facts)

    def _by_label(self, values: Tensor, ranked: list[list[int]]) -> list[dict[str, object]]:
        """B×C values, or rows of values, by label in the order given for each image."""
        return [
            {self.labels[i]: row[i] for i in order}
            for row, order in zip(values.tolist(), ranked, strict=True)
        ]

    def _list_chosen(self, chosen: Tensor, order: Tensor) -> list[list[str]]:
        """B×C bool -> the labels chosen for each image, the most probable first."""
        flags = chosen.gather(1, order).tolist()
        return [
            [self.labels[i] for i, flag in zip(ranks, row, strict=True) if flag]
            for ranks, row in zip(order.tolist(), flags, strict=True)
        ]

    def _list_sets(self, best: BestSets, samples: Samples) -> list[list[dict]]:
        """The most probable sets of each image with their probabilities given what is known."""
        evidence = samples.log_evidence[:, None]
        probabilities = (best.log_probs - evidence).double().exp().clamp_max(1).tolist()
        sets: list[list[list[str]]] = [[[] for _ in row] for row in probabilities]
        for image, number, label in best.label_sets.nonzero().tolist():
            sets[image][number].append(self.labels[label])
        exist = (best.log_probs > -torch.inf).tolist()  # a vocabulary of few labels has few sets
        return [
            [
                {"labels": names, "probability": p}
                for names, p, there in zip(*row, strict=True)
                if there
            ]
            for row in zip(sets, probabilities, exist, strict=True)
        ]


def rows_of(encoding: Encoding, rows: slice | list[int]) -> Encoding:
    """Some images of a batch."""
    return Encoding(
        encoding.image_embedding[rows],
        encoding.cnn_logits[rows],
        [maps[rows] for maps in encoding.class_maps],
    )
