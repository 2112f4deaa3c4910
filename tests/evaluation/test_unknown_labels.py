"""Analyses, rules, sentences and comparisons where some labels are unknown."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import RANKED
from enumeration import ALL_SETS, NUM_IMAGES, NUM_LABELS, TRAINED, enumerate_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.analysis import co_occurrence, flip_each_label, label_issues, suspicions
from evaluation.kept_rules import breaking_labels, rule_results
from evaluation.promise_results import promise_results
from evaluation.ranking import pr_curve
from evaluation.results import metric_results, report_results
from inference.decoding import most_probable_sets
from inference.predictions import Predictions
from inference.promises import TARGETS
from inference.rules import LabelRules
from labels.find_rules import find_rules
from labels.rules import EXCLUSIVE, IMPLIES, parse_rules
from model import DECODERS
from report.gallery import _label_bars, choose_examples
from report.summary import summarise

SEEDS = st.integers(0, 2**32 - 1)


def masked(seed: int, num_images: int = 40, num_labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Targets and a mask of known pairs."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_images, num_labels)) < rng.uniform(0.1, 0.8, num_labels)
    return targets, rng.random(targets.shape) < rng.uniform(0.1, 0.9, num_labels)


def predictions(targets: np.ndarray, known: np.ndarray, seed: int = 0, **more) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = (rng.random(targets.shape) / 2 + targets / 3).astype(np.float32)
    nll = rng.exponential(3, len(targets)).astype(np.float32)
    some = scores > 0.5, scores > 0.4, np.ones(len(targets), bool)
    return Predictions(targets & known, scores, *some, nll, unknown=~known, **more)


@given(SEEDS)
def test_co_occurrence_counts_images_where_both_labels_are_known(seed):
    targets, known = masked(seed)
    ratio = co_occurrence(targets, known)
    assert np.array_equal(ratio, co_occurrence(np.where(known, targets, ~targets), known))
    share = [targets[known[:, c], c].mean() if known[:, c].any() else 0 for c in range(5)]
    for i, j in itertools.combinations(range(5), 2):
        rows, expected = known[:, i] & known[:, j], 0.0
        if 0 < share[i] < 1 and 0 < share[j] < 1:
            cells = []
            for a, b in ((1, 1), (0, 0), (1, 0), (0, 1)):
                counted = ((targets[rows, i] == a) & (targets[rows, j] == b)).sum()
                odds = (1 if a else 1 / share[i] - 1) * (1 if b else 1 / share[j] - 1)
                cells.append(counted + odds)
            expected = math.log(cells[0] * cells[1] / (cells[2] * cells[3]))
        assert ratio[i, j] == pytest.approx(ratio[j, i]) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(DECODERS), st.sampled_from([0, TRAINED]), st.integers(0, 63), st.data())
def test_flips_with_unknown_labels_agree_with_enumeration(decoder, seed, row, data):
    """Labels after the last known one are summed over, those before it are the most probable."""
    model, encoding, log_probs, _ = enumerate_sets(decoder, seed)
    unknown = torch.tensor(data.draw(st.lists(st.booleans(), min_size=6, max_size=6)))
    targets = torch.where(unknown, torch.nan, ALL_SETS[row]).expand(NUM_IMAGES, -1)
    facts = (2 * targets - 1).nan_to_num(0)
    filled = most_probable_sets(model, encoding, known=facts).label_sets[:, 0].float()
    assert torch.equal(filled[:, ~unknown], targets[:, ~unknown])
    end = max([c for c in range(NUM_LABELS) if not unknown[c]], default=-1) + 1
    flips = flip_each_label(model, encoding, targets)
    for image, label in itertools.product(range(NUM_IMAGES), range(NUM_LABELS)):
        if unknown[label]:
            continue
        log_p = []
        for flipped in (True, False):
            wanted = filled[image].clone()
            wanted[label] = 1 - wanted[label] if flipped else wanted[label]
            agrees = (ALL_SETS[:, :end] == wanted[:end]).all(1)
            log_p.append(float(log_probs[image, agrees].logsumexp(0)))
        expected = log_p[0] - log_p[1]
        assert float(flips.flip_logit[image, label]) == pytest.approx(expected, abs=1e-4)


@given(SEEDS)
def test_unknown_labels_are_never_listed_as_wrong(seed):
    targets, known = masked(seed)
    flip_logit = np.random.default_rng(seed).normal(size=targets.shape)
    flip_logit[~known] += 50
    found = list(label_issues(flip_logit, targets, targets.size, known=known))
    assert {(i, c) for i, c, *_ in found} == {*zip(*known.nonzero(), strict=True)}
    doubts = suspicions(flip_logit, targets & known, (targets & known).sum(0), known.sum(0))
    ranked = sorted(zip(*known.nonzero(), strict=True), key=lambda pair: -doubts[pair])
    assert [pair[:2] for pair in found] == ranked


RULES = "cat -> person\napple x zebra\nat most one of: cat dog zebra"


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([RULES, "one of: person, cat, dog", "cat -> person, dog"]))
def test_a_rule_is_broken_if_no_choice_of_the_unknown_labels_keeps_it(seed, text):
    rules = LabelRules(parse_rules(text, RANKED, "rules.txt"), len(RANKED))
    targets, known = masked(seed, num_images=12)
    kept = np.full(len(targets), -0.5, np.float32)
    p = predictions(targets, known, log_kept=kept)
    found = rule_results(p, rules, [str(i) for i in range(len(targets))])
    every = np.array(list(itertools.product([False, True], repeat=len(RANKED))))
    fits = [every[(every == t)[:, k].all(1)] for t, k in zip(targets, known, strict=True)]
    for rule, row in zip(rules.rules, found["broken"], strict=True):
        broken = [i for i, sets in enumerate(fits) if rule.is_broken(sets).all()]
        assert row["images"] == [str(i) for i in broken]
    keeps = np.array([rules.keeps(sets).any() for sets in fits])
    assert found["images_kept"] == keeps.sum()
    complete = keeps & known.all(1)
    expected = p.set_nll[complete].mean() if complete.any() else np.nan
    assert found["set_nll_without"] == pytest.approx(expected, nan_ok=True)
    first = breaking_labels(np.zeros(targets.shape), targets & known, rules, known)
    assert not first[~known].any()
    assert first.any(1)[[i for row in found["broken"] for i in map(int, row["images"])]].all()


def test_rules_are_found_where_both_labels_are_known():
    """Puppies are dogs, day is never night; half of all pairs are unknown and counted as absent."""
    rng = np.random.default_rng(0)
    dog, night, free = (rng.random(4000) < p for p in (0.3, 0.5, 0.4))
    targets = np.stack([dog, dog & (rng.random(4000) < 0.4), night, ~night, free], 1)
    unknown = rng.random(targets.shape) < 0.5
    found = {(rule.kind, rule.labels) for rule in find_rules(targets & ~unknown, "dpnyf", unknown)}
    assert found == {(IMPLIES, (1, 0)), (EXCLUSIVE, (2, 3))}
    assert (IMPLIES, (1, 0)) not in {
        (rule.kind, rule.labels) for rule in find_rules(targets & ~unknown, "dpnyf")
    }
    never_both = unknown.copy()
    never_both[:, 4] = ~unknown[:, 0]  # never known together: nothing follows
    found = find_rules(targets & ~never_both, "dpnyf", never_both)
    assert not any({0, 4} == {*rule.labels} for rule in found)


@given(SEEDS)
def test_a_promise_counts_known_pairs(seed):
    targets, known = masked(seed)
    said = np.random.default_rng(seed).random(targets.shape) < 0.5
    labels, thresholds = tuple("abcde"), np.full(5, 0.5)
    arguments = ("label_recall=0.9", {"num_images": 9}, thresholds, targets & known, said, labels)
    found = promise_results(*arguments, known)
    hits = (targets & said)[known].sum()
    assert found["said"] == said[known].sum()
    if said[known].any():
        assert found["precision"] == pytest.approx(100 * hits / said[known].sum())
    for c, row in enumerate(found["per_label"]):
        assert row["said"] == said[known[:, c], c].sum()
    assert 0.9 in TARGETS


def test_results_say_how_many_pairs_are_known():
    targets, known = masked(3)
    p, labels = predictions(targets, known), tuple("abcde")
    sets = {"threshold": p.marginals > 0.5}
    found = metric_results(p, sets, labels, "threshold")
    assert found["pairs"] == {"known": known.sum(), "all": known.size}
    found |= report_results(p, sets)
    sizes = found["label_set_sizes"]
    assert sizes["annotated"] == np.bincount((targets & known).sum(1)).tolist() + [0] * (
        len(sizes["annotated"]) - 1 - (targets & known).sum(1).max()
    )
    assert sum(b["count"] for b in found["calibration"]) == known.sum()
    low, high = found["intervals"]["predicted_sets"]["threshold"]["OF1"]
    assert low < found["predicted_sets"]["threshold"]["OF1"] < high
    complete = predictions(targets, np.ones_like(known))
    complete = Predictions(*(getattr(complete, n) for n in list(complete.__dict__)[:6]))
    assert "pairs" not in metric_results(complete, sets, labels, "threshold")


def test_sentences_about_known_tags():
    """Cat is given to every photo on which it is known; dog is missed where nothing is known."""
    targets, known = np.zeros((40, 2), bool), np.ones((40, 2), bool)
    targets[:10, 0], known[30:, 0], known[5:, 1] = True, False, False
    predicted = np.stack([np.ones(40, bool), np.zeros(40, bool)], 1)
    p = predictions(targets, known)
    results = metric_results(p, {"map": predicted}, ("cat", "dog"), "map")
    results |= {"folds": None, "threshold": 0.5, **report_results(p, {"map": predicted})}
    found = summarise(results, p.targets, predicted & known, known)
    assert (
        found["first"][0]
        == "Of the 30 tags it gives, 10 are right; of the 10 tags that are there, it finds 10."
    )
    assert "It gives cat to every photo, which says nothing." in found["first"]
    assert "All known tags are right on 20 of the 40 photos." in found["first"]
    assert found["notes"][0].startswith("The annotations say yes or no to 35 of the 80 pairs")
    cat, dog = found["labels"]
    assert cat["about"][0] == "It is on 10 of the 30 photos where this is known; only these count."
    assert dog["known"] == 5
    assert not found["best"], "cat is no better than if it were given to every photo"


def test_a_label_of_which_nothing_is_known():
    """No curve, no AP, no sentence that it is given to every photo."""
    assert pr_curve(np.zeros(0, bool), np.zeros(0)).shape == (0, 3)
    targets, known = np.ones((8, 2), bool), np.ones((8, 2), bool)
    known[:, 1] = False
    p, predicted = predictions(targets, known), np.ones((8, 2), bool)
    results = metric_results(p, {"map": predicted}, ("cat", "dog"), "map")
    assert results["mAP_labels"] == 1
    assert np.isnan(results["per_label"][1]["AP"])
    results |= {"folds": None, "threshold": 0.5, **report_results(p, {"map": predicted})}
    found = summarise(results, p.targets, predicted & known, known)
    assert "every photo" not in " ".join(found["labels"][1]["about"])


def test_the_gallery_calls_no_unknown_label_a_false_alarm():
    targets, known = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    targets[:, 0], known[:, 1] = True, False
    predicted = np.array([[True, True, False], [True, True, True]])
    p = predictions(targets, known)
    shown = choose_examples(p, predicted & known, ("a", "b", "c"))
    assert [caption for _, caption in shown["best"]] == ["all right", "one of the best"]
    assert [caption for _, caption in shown["typical"]] == ["“c” added (1 photo)"]
    rows = (_label_bars(p.select([i]), predicted[i], ("a", "b", "c")) for i in (0, 1))
    kinds = [{bar["label"]: bar["kind"] for bar in row} for row in rows]
    assert kinds[0] == {"a": "right", "b": "unknown", "c": "other"}
    assert kinds[1] == {"a": "right", "b": "unknown", "c": "added"}
