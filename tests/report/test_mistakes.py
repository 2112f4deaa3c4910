"""The examples of mistakes that train.py prints after each epoch."""

from pathlib import Path

import numpy as np

from inference.predictions import Predictions
from report.training_log import format_mistakes


def test_unknown_labels_are_no_mistakes():
    targets = np.array([[True, False, False]])
    marginals = np.array([[0.2, 0.9, 0.8]])
    sets = np.zeros_like(targets)
    p = Predictions(targets, marginals, sets, sets, sets[:, 0], np.ones(1))
    lines = format_mistakes(p, 0.5, [Path("a.jpg")], ("cat", "dog", "hat"))
    assert lines == ["  a.jpg: missed cat; added dog, hat"]
    unknown = np.array([[False, True, False]])
    p = Predictions(targets, marginals, sets, sets, sets[:, 0], np.ones(1), unknown=unknown)
    lines = format_mistakes(p, 0.5, [Path("a.jpg")], ("cat", "dog", "hat"))
    assert lines == ["  a.jpg: missed cat; added hat; not known dog"]
