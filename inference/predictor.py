"""A trained model in Python: from an image to its labels.

from inference.predictor import load

model = load("runs/scenes-chain/best.pt")
print(model.predict("photo.jpg")["predicted"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from images.decode import load_pixels, pixels_of
from images.transforms import Transform
from inference.checkpoint import find_checkpoint, load_checkpoint, restore
from inference.decoding import (
    BestSets,
    Samples,
    expected_f1_sets,
    most_probable_sets,
    sample_label_sets,
)
from inference.predictions import DECISIONS
from model import Encoding, HybridNet
from util.device import autocast, pick_device, resolve_amp
from util.errors import UsageError


def load(path: str | Path, device: str = "auto", amp: str = "auto") -> Predictor:
    """The model of a checkpoint, or of a run's folder, ready to predict.

    device: auto, cpu, cuda, cuda:1, …; amp: bfloat16 for the encoder, auto, on or off. Raises
    UsageError if the file or the device cannot be used.
    """
    path = find_checkpoint(Path(path))
    checkpoint, where = load_checkpoint(path), pick_device(device)
    model, vocabulary, preprocessing = restore(checkpoint, path)
    return Predictor(
        model.to(where),
        vocabulary.labels,
        preprocessing.eval_transform(),
        {"threshold": checkpoint["threshold"], "label_f1": checkpoint["label_thresholds"]},
        autocast(where, resolve_amp(amp, where, checkpoint["flags"])),
    )


@dataclass(frozen=True)
class Predictor:
    """A model with all that it takes to label an image; `load` makes it."""

    model: HybridNet
    labels: tuple[str, ...]  # C, the most frequent first
    transform: Transform
    thresholds: dict[str, float | list[float]]  # by decision rule: one for all labels, or C
    amp: torch.autocast

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
        batch = self.transform(pixels, pixels.shape[1] / pixels.shape[0])[None]  # 1×3×S×S
        with self.amp:
            return self.model.encode(batch.to(self.model.mean.device))

    def class_activation_maps(self, encoding: Encoding) -> dict[str, np.ndarray]:
        """Label -> h×w, the CNN's logit of the label at each place of the image."""
        maps = encoding.class_activation_map(0).cpu().numpy()
        return dict(zip(self.labels, maps, strict=True))

    def describe(
        self,
        encoding: Encoding,
        known: Sequence[str] = (),
        absent: Sequence[str] = (),
        decide: str = "threshold",
        num_sets: int = 1,
        num_samples: int = 256,
        standard_errors: bool = False,
    ) -> dict:
        """Predicted labels, label sets and probabilities of one image, in plain types.

        known, absent: labels that are known to be on the image, or not to be.
        decide: the rule for "predicted": threshold (one for all labels), label_f1 (one for each
        label), map (the most probable set), f1 (the set with the highest expected F1).
        num_sets: how many of the most probable sets to list.
        num_samples: label sets sampled for the probabilities.
        standard_errors: adds them, and if no label is known certain bounds of the probabilities.

        Raises UsageError for labels that the model does not know, ValueError for another rule.
        """
        if decide not in DECISIONS:
            raise ValueError(f"decide is {decide!r}; possible are {', '.join(DECISIONS)}")
        facts = self.encode_known(known, absent)
        samples = sample_label_sets(self.model, encoding, num_samples, known=facts)
        best = most_probable_sets(self.model, encoding, num_sets, known=facts)
        marginals = samples.marginals[0]
        order = marginals.argsort(descending=True).tolist()
        if decide in self.thresholds:
            thresholds = marginals.new_tensor(self.thresholds[decide]).expand_as(marginals)
            chosen = marginals >= thresholds
        elif decide == "map":
            chosen = best.label_sets[0, 0]
        else:
            chosen = expected_f1_sets(samples.label_sets, samples.weights)[0]
        result = {
            "predicted": [self.labels[i] for i in order if chosen[i]],
            "decided_by": decide,
            "most_probable_sets": self._list_sets(best, samples),
            "sets_are_certain": bool(best.certain[0]),
            "covered": min(1.0, float(best.covered[0] / samples.log_evidence[0].exp())),
            "labels": self._by_label(marginals, order),
        }
        if decide in self.thresholds:
            result["thresholds"] = self._by_label(thresholds, order)
        if standard_errors:
            result["standard_errors"] = self._by_label(samples.standard_errors[0], order)
            if best.lower is not None:
                bounds = torch.stack([best.lower[0], best.upper[0]], 1)  # C×2
                result["bounds"] = self._by_label(bounds, order)
        if known or absent:
            result["known"], result["absent"] = list(known), list(absent)
            result["effective_sample_size"] = float(samples.effective_size[0])
        return result

    def encode_known(self, known: Sequence[str], absent: Sequence[str]) -> Tensor:
        """1×C: 1 for known labels, -1 for absent labels, 0 for all others.

        Raises UsageError for a label that the model does not know and for one that is in both.
        """
        for label in (*known, *absent):
            if label not in self.labels:
                close = get_close_matches(label, self.labels, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UsageError(f"the model does not know the label {label!r}{hint}")
        if both := sorted(set(known) & set(absent)):
            raise UsageError(f"the label {both[0]!r} is given as known and as absent; choose one")
        facts = [(label in known) - (label in absent) for label in self.labels]
        return self.model.mean.new_tensor([facts])

    def _by_label(self, values: Tensor, order: list[int]) -> dict[str, object]:
        """C values, or C rows of values, by label in the order given."""
        values = values.tolist()
        return {self.labels[i]: values[i] for i in order}

    def _list_sets(self, best: BestSets, samples: Samples) -> list[dict]:
        """The most probable sets with their probabilities given what is known."""
        probabilities = (best.log_probs[0] - samples.log_evidence).double().exp().clamp_max(1)
        exist = best.log_probs[0] > -torch.inf  # a vocabulary of few labels has few sets
        return [
            {
                "labels": [self.labels[i] for i in chosen.nonzero().squeeze(1)],
                "probability": float(probability),
            }
            for chosen, probability in zip(
                best.label_sets[0][exist], probabilities[exist], strict=True
            )
        ]
