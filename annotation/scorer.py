"""What the network says of a photo: probabilities given what is known, doubts, where it looked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy
import torch

from annotation.order import NEVER, Issue, Rating
from evaluation.analysis import flip_each_label, suspicions
from inference.decoding import sample_label_sets
from inference.predictor import Predictor
from inference.valid_sets import nearest_valid_sets
from model import Encoding

MOST_SAMPLES = 128  # label sets: as evaluate.py
DECISIONS = 32_000  # on labels in all samples: within 100 ms on two cores
ON = 0.5  # labels of this probability are switched on: then the fewest corrections are expected
ROUGH = 16  # for the order of the photos, which needs no more
KEPT = 8  # encodings of the photos that were shown last


class Scorer:
    """A model that answers questions on the photos of a folder, given by their numbers."""

    def __init__(self, predictor: Predictor, paths: Sequence[Path]) -> None:
        self.predictor, self.paths = predictor, paths
        self.labels = predictor.labels
        self._known = frozenset(self.labels)
        self.num_samples = max(ROUGH, min(MOST_SAMPLES, DECISIONS // len(self.labels)))
        self.encode = functools.lru_cache(KEPT)(self._encode)

    def _encode(self, photo: int) -> Encoding:
        """Raises UsageError for an unreadable photo."""
        return self.predictor.encode(self.paths[photo])

    def probabilities(
        self, photo: int, known: Collection[str] = (), absent: Collection[str] = ()
    ) -> dict[str, float]:
        """P(label | photo, what is known) of all labels, most probable first.

        Labels that the model does not know say nothing. Raises UsageError for an unreadable photo,
        and if what is known breaks the rules.
        """
        facts = self.predictor.encode_known(
            [label for label in known if label in self._known],
            [label for label in absent if label in self._known],
        )
        encoding, model = self.encode(photo), self.predictor.model
        samples = sample_label_sets(
            model, encoding, self.num_samples, known=facts, rules=self.predictor.rules
        )
        marginals = samples.marginals[0].tolist()
        order = sorted(range(len(self.labels)), key=lambda i: -marginals[i])
        return {self.labels[i]: marginals[i] for i in order}

    def predicted(
        self, found: Mapping[str, float], known: Collection[str], absent: Collection[str]
    ) -> set[str]:
        """The labels to switch on, given `probabilities`: a set that keeps the rules."""
        if not self.predictor.rules:
            return {label for label, p in found.items() if p >= ON}
        facts = {**dict.fromkeys(known, 1), **dict.fromkeys(absent, -1)}
        gains = np.array([[found[label] - ON for label in self.labels]])
        facts = np.array([[facts.get(label, 0) for label in self.labels]])
        chosen = nearest_valid_sets(gains, self.predictor.rules, facts)[0]
        return {self.labels[i] for i in np.flatnonzero(chosen)}

    def rate_uncertainty(self, photo: int) -> Rating:
        """The sum of the labels' entropies, in nats. Raises UsageError for an unreadable photo."""
        model, rules = self.predictor.model, self.predictor.rules
        samples = sample_label_sets(model, self._encode(photo), ROUGH, rules=rules)
        p = samples.marginals[0].double().clamp(1e-9, 1 - 1e-9)
        return Rating(float(-(p * p.log() + (1 - p) * (1 - p).log()).sum()))

    def issue_rating(self, labels_of: Callable[[int], Collection[str]]) -> Callable[[int], Rating]:
        """A function that rates a photo by its doubtful annotations; `labels_of` gives them.

        An annotation is doubtful if its `suspicions` are above 0, given the photo and all other
        annotations. The function raises UsageError for an unreadable photo.
        """
        vocabulary = self.predictor.vocabulary
        counts, totals = np.array(vocabulary.counts), np.array(vocabulary.totals())

        def rate(photo: int) -> Rating:
            annotated = {*labels_of(photo)}
            on = [[label in annotated for label in self.labels]]
            targets = torch.tensor(on, device=self.predictor.model.mean.device)
            flips = flip_each_label(self.predictor.model, self._encode(photo), targets)
            flip_logit = flips.flip_logit.double().cpu().numpy()  # 1×C
            doubts = suspicions(flip_logit, np.array(on), counts, totals)[0]
            issues = [
                Issue(label, "surplus" if label in annotated else "missing", p, doubt)
                for label, p, doubt in zip(
                    self.labels,
                    scipy.special.expit(-flip_logit[0]).tolist(),
                    doubts.tolist(),
                    strict=True,
                )
                if doubt > 0
            ]
            return Rating.of(issues) if issues else NEVER

        return rate

    def seen_at(self, photo: int, label: str) -> list[list[float]] | None:
        """Where the network saw a label: rows of 0 to 1; None for a label it does not know.

        Raises UsageError for an unreadable photo.
        """
        if label not in self._known:
            return None
        logits = self.predictor.class_activation_maps(self.encode(photo))[label]
        low, high = float(logits.min()), float(logits.max())
        return ((logits - low) / max(high - low, 1e-6)).round(2).tolist()
