"""Decoding under rules against brute force: all label sets of a few labels, listed and filtered."""

import functools
import itertools

import numpy as np
import pytest
import torch
from enumeration import make_encoding, make_model, train_decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import decoding
from inference.decoding import expected_f1_sets, most_probable_sets, sample_label_sets
from inference.predictions import decode, predicted_sets
from inference.rules import LabelRules, load_rules
from inference.set_probabilities import log_probs_of
from inference.valid_sets import nearest_valid_sets, valid_f1_sets
from labels.rules import EXCLUSIVE, IMPLIES, ONE_OF, Rule, parse_rules
from model import Encoding, bernoulli_nll
from util.errors import UsageError

KINDS = (IMPLIES, IMPLIES, EXCLUSIVE, EXCLUSIVE, ONE_OF)
IMAGES = 2


def every_set(num_labels: int) -> np.ndarray:
    """2^C×C bool."""
    return np.array(list(itertools.product([False, True], repeat=num_labels)))


def keeps(rule: Rule, label_set: np.ndarray) -> bool:
    """The meaning of a rule, said once more."""
    first, *others = (bool(label_set[i]) for i in rule.labels)
    if rule.kind == IMPLIES:
        return not first or all(others)
    count = first + sum(others)
    return count == 1 if rule.kind == ONE_OF else count <= 1


def valid_sets(rules: list[Rule], num_labels: int) -> np.ndarray:
    """N×C bool, by trying all sets."""
    sets = every_set(num_labels)
    return sets[[all(keeps(rule, s) for rule in rules) for s in sets]]


@st.composite
def rule_sets(draw, most_labels: int = 10) -> tuple[list[Rule], int]:
    """Random rules, and the number of labels."""
    num_labels = draw(st.integers(2, most_labels))
    rules = []
    for line in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(KINDS))
        most = min(num_labels, 4)
        labels = draw(st.permutations(range(num_labels)))[: draw(st.integers(2, most))]
        rules.append(Rule(kind, tuple(labels), f"rule {line}", line))
    return rules, num_labels


def as_set(sets) -> set[tuple[bool, ...]]:
    return {tuple(row) for row in np.asarray(sets).tolist()}


@functools.cache
def small_model(decoder: str, num_labels: int, is_trained: bool):
    """A model of random or, for 6 labels, trained weights, and its encodings of IMAGES images."""
    model = make_model(decoder, num_labels)
    if is_trained and num_labels == 6:
        model = train_decoder(model)
    return model, make_encoding(model, IMAGES)


@torch.no_grad()
def exact(model, encoding: Encoding, sets: np.ndarray) -> torch.Tensor:
    """log P(set | image) of sets N×C by teacher forcing, image by image: B×N."""
    targets = torch.tensor(sets).float()
    found = []
    for i in range(len(encoding.cnn_logits)):
        repeated = Encoding(
            encoding.image_embedding[[i] * len(sets)], encoding.cnn_logits[[i] * len(sets)], None
        )
        found.append(-bernoulli_nll(model.set_logits(repeated, targets), targets).double())
    return torch.stack(found)


@settings(max_examples=40, deadline=None)
@given(rule_sets(), st.data())
def test_what_may_come_next_is_brute_force(drawn, data):
    rules, num_labels = drawn
    sets = valid_sets(rules, num_labels)
    if not len(sets):
        with pytest.raises(UsageError, match="no label set can keep the rules"):
            LabelRules(rules, num_labels)
        return
    ours = LabelRules(rules, num_labels)
    found = ours.all_sets(len(sets))
    assert len(found) == len(sets)
    assert as_set(found) == as_set(sets)
    assert ours.all_sets(len(sets) - 1) is None
    np.testing.assert_array_equal(
        ours.keeps(every_set(num_labels)), [tuple(s) in as_set(sets) for s in every_set(num_labels)]
    )
    always, never = ours.fixed_labels()
    assert always == np.flatnonzero(sets.all(0)).tolist()
    assert never == np.flatnonzero(~sets.any(0)).tolist()
    facts = [data.draw(st.sampled_from([-1, 0, 0, 0, 1])) for _ in range(num_labels)]
    agree = sets[((2 * sets.astype(int) - 1) * facts >= 0).all(1)]
    assert ours.feasible(np.array([facts])).tolist() == [len(agree) > 0]
    if len(agree):  # label by label, no dead end: exactly these sets
        beginnings = torch.zeros(1, num_labels, dtype=torch.bool)
        for label in range(num_labels):
            known = torch.tensor([facts]).float().expand(len(beginnings), -1)
            fixed = ours.fixed(beginnings, known)[:, label]
            on = beginnings[fixed >= 0].clone()
            on[:, label] = True
            beginnings = torch.cat([beginnings[fixed <= 0], on])
        assert len(beginnings) == len(agree)
        assert as_set(beginnings) == as_set(agree)


@settings(max_examples=20, deadline=None)
@given(
    rule_sets(), st.sampled_from(["chain", "softmax"]), st.booleans(), st.integers(1, 5), st.data()
)
def test_all_answers_of_a_few_labels_are_exact(drawn, decoder, is_trained, num_sets, data):
    """Marginals, evidence, search, and every decision rule, with known labels or without."""
    rules, num_labels = drawn
    sets = valid_sets(rules, num_labels)
    if not len(sets):
        return
    ours, (model, encoding) = (
        LabelRules(rules, num_labels),
        small_model(decoder, num_labels, is_trained),
    )
    known = torch.zeros(IMAGES, num_labels)
    if data.draw(st.booleans()):
        of = sets[data.draw(st.integers(0, len(sets) - 1))]
        label = data.draw(st.integers(0, num_labels - 1))
        known[:, label] = float(2 * of[label] - 1)
    sets = sets[((2 * sets.astype(int) - 1) * known[0].numpy() >= 0).all(1)]
    log_probs = exact(model, encoding, sets)  # B×N
    evidence = log_probs.logsumexp(1)
    probabilities = (log_probs - evidence[:, None]).exp()

    samples = sample_label_sets(model, encoding, 8, known=known, rules=ours)
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4, check_dtype=False)
    close(samples.marginals, probabilities @ torch.tensor(sets).double())
    close(samples.log_evidence, evidence)
    close(samples.weights.sum(1), torch.ones(IMAGES))
    assert samples.effective_size.isinf().all()
    best = most_probable_sets(model, encoding, num_sets, known=known, rules=ours)
    expected = log_probs.sort(1, descending=True).values[:, :num_sets]
    there = best.log_probs.isfinite()
    assert ours.keeps(best.label_sets[there].numpy()).all()
    assert there.sum(1).tolist() == [expected.shape[1]] * IMAGES or not best.certain.all()
    for i in range(IMAGES):
        if best.certain[i]:
            close(best.log_probs[i][there[i]], expected[i])

    chosen = expected_f1_sets(samples.label_sets, samples.weights)
    chosen = valid_f1_sets(chosen, samples.label_sets, samples.weights, ours)
    candidates = valid_sets(rules, num_labels)
    truth = torch.tensor(sets).double()
    scores = f1(torch.tensor(candidates).double(), truth) @ probabilities.T  # N×B
    got = f1(chosen.double(), truth) * probabilities
    assert as_set(chosen) <= as_set(candidates)
    close(got.sum(1), scores.max(0).values)


def f1(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """F1 of every prediction (rows) and every target set (columns); 1 for two empty sets."""
    sizes = predicted.sum(1)[:, None] + truth.sum(1)
    return torch.where(sizes == 0, 1.0, 2 * predicted @ truth.T / sizes.clamp_min(1))


@settings(max_examples=30, deadline=None)
@given(rule_sets(), st.integers(0, 1000))
def test_the_nearest_valid_set_is_the_best_of_all(drawn, seed):
    rules, num_labels = drawn
    sets = valid_sets(rules, num_labels)
    if not len(sets):
        return
    gains = np.random.default_rng(seed).normal(size=(6, num_labels))
    found = nearest_valid_sets(gains, LabelRules(rules, num_labels))
    assert as_set(found) <= as_set(sets)
    np.testing.assert_allclose((gains * found).sum(1), (gains @ sets.T).max(1))
    gains[:] = sets[:6][[i % len(sets[:6]) for i in range(6)]] - 0.5
    np.testing.assert_array_equal(
        nearest_valid_sets(gains, LabelRules(rules, num_labels)), gains > 0
    )


@settings(max_examples=30, deadline=None)
@given(rule_sets(), st.integers(0, 1000))
def test_the_nearest_valid_set_has_what_is_known(drawn, seed):
    """Also where all other labels would save more without it."""
    rules, num_labels = drawn
    sets = valid_sets(rules, num_labels)
    if not len(sets):
        return
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(6, num_labels))
    signs = 2 * sets[rng.integers(len(sets), size=6)].astype(int) - 1
    known = signs * (rng.random(signs.shape) < 0.4)  # a valid set agrees with it
    found = nearest_valid_sets(gains, LabelRules(rules, num_labels), known)
    assert as_set(found) <= as_set(sets)
    for row, facts, chosen in zip(gains, known, found, strict=True):
        agrees = sets[((2 * sets.astype(int) - 1) * facts >= 0).all(1)]
        assert (row * chosen).sum() == pytest.approx((agrees @ row).max())
        assert ((2 * chosen.astype(int) - 1) * facts >= 0).all()


@settings(max_examples=15, deadline=None)
@given(rule_sets(), st.sampled_from(["chain", "softmax", "none"]), st.integers(1, 30), st.data())
def test_no_predicted_set_breaks_a_rule(drawn, decoder, budget, data):
    """Also if there are too many sets to list them, and whatever the budget of the search."""
    rules, num_labels = drawn
    if not len(valid_sets(rules, num_labels)):
        return
    ours, (model, encoding) = LabelRules(rules, num_labels), small_model(decoder, num_labels, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelRules, "all_sets", lambda self, most: None)
        samples = sample_label_sets(model, encoding, 12, rules=ours)
        p = decode(model, encoding, torch.zeros(IMAGES, num_labels), 12, ours)
    assert ours.keeps(samples.label_sets.flatten(0, 1).numpy()).all()
    assert ((samples.marginals >= 0) & (samples.marginals <= 1)).all()
    torch.testing.assert_close(samples.weights.sum(1), torch.ones(IMAGES))
    best = most_probable_sets(model, encoding, 1, budget, rules=ours)
    assert best.log_probs.isfinite().all()
    assert ours.keeps(best.label_sets[:, 0].numpy()).all()
    threshold = data.draw(st.floats(0.01, 0.99))
    for sets in predicted_sets(p, threshold, [threshold / 2] * num_labels, ours).values():
        assert ours.keeps(sets).all()


@pytest.mark.parametrize("decoder", ["chain", "softmax", "none"])
@pytest.mark.parametrize("is_trained", [False, True])
def test_sampling_agrees_with_enumeration(decoder, is_trained, monkeypatch):
    """When there are too many sets to list, estimates come near the exact values."""
    model, encoding = small_model(decoder, 6, is_trained)
    rules = [Rule(IMPLIES, (4, 1), "", 1), Rule(EXCLUSIVE, (0, 3), "", 2)]
    rules += [Rule(ONE_OF, (1, 2, 5), "", 3)]
    ours = LabelRules(rules, 6)
    exactly = sample_label_sets(model, encoding, rules=ours)
    monkeypatch.setattr(LabelRules, "all_sets", lambda self, most: None)
    samples = sample_label_sets(model, encoding, 20_000, rules=ours)
    error = (samples.marginals - exactly.marginals).abs()
    assert (error <= 4 * samples.standard_errors + 1e-3).all()
    torch.testing.assert_close(samples.log_evidence, exactly.log_evidence, atol=0.3, rtol=0)
    outcomes = (samples.weights[..., None] * samples.label_sets).sum(1)
    tolerance = 4 / samples.effective_size.sqrt()[:, None]  # if the rules contradict the model
    assert ((outcomes - exactly.marginals).abs() < tolerance).all()


def test_a_set_of_more_labels_than_expansions_is_found():
    """The search must go on until it has a set that keeps the rules."""
    num_labels = 100
    model = make_model("chain", num_labels)
    encoding = make_encoding(model, IMAGES)
    rules = [Rule(IMPLIES, (0, *range(1, num_labels)), "", 1)]
    known = torch.zeros(IMAGES, num_labels)
    known[:, 0] = 1
    best = most_probable_sets(model, encoding, known=known, rules=LabelRules(rules, num_labels))
    assert best.label_sets.all()
    assert not best.certain.any() or best.log_probs.isfinite().all()
    full = np.ones((1, num_labels), bool)
    expected = exact(model, encoding, full)
    torch.testing.assert_close(best.log_probs.double(), expected, atol=1e-3, rtol=1e-5)


def test_probabilities_of_given_sets_are_those_of_teacher_forcing():
    for decoder in ("chain", "softmax", "none"):
        model, encoding = small_model(decoder, 6, False)
        sets = every_set(6)
        found = log_probs_of(model, encoding, torch.tensor(sets))
        torch.testing.assert_close(found, exact(model, encoding, sets), atol=1e-5, rtol=1e-5)


def test_rules_that_always_hold_change_nothing():
    """With extreme logits the model keeps the rule by itself."""
    model, encoding = small_model("none", 6, False)
    encoding.cnn_logits[:, 3] = -1e4
    rules = LabelRules([Rule(IMPLIES, (3, 5), "", 1)], 6)
    plain = sample_label_sets(model, encoding, 64)
    given_rules = sample_label_sets(model, encoding, 64, rules=rules)
    torch.testing.assert_close(plain.marginals, given_rules.marginals, atol=1e-5, rtol=0)
    assert given_rules.log_evidence.abs().max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(rule_sets(5))
def test_a_contradiction_names_rules_of_which_each_is_needed(drawn):
    rules, num_labels = drawn
    if len(valid_sets(rules, num_labels)):
        return
    with pytest.raises(UsageError) as error:
        LabelRules(rules, num_labels)
    named = [rule for rule in rules if f"`{rule.text}`" in str(error.value)]
    assert not len(valid_sets(named, num_labels))
    for rule in named:
        assert len(valid_sets([other for other in named if other is not rule], num_labels))


def test_too_many_choices_are_refused():
    """Two groups of 20 that only exclude one pair of labels: 399 choices."""
    groups = [Rule(ONE_OF, tuple(range(i, i + 20)), "", i) for i in (0, 20)]
    LabelRules(groups, 40)
    with pytest.raises(UsageError, match="more than 300 choices"):
        LabelRules([*groups, Rule(EXCLUSIVE, (0, 20), "", 3)], 40)


def test_a_contradiction_beside_too_many_choices_is_named():
    """Without one of its rules, the others leave more than 300 choices."""
    labels = ["c", "d", *(f"a{i}" for i in range(20)), *(f"b{i}" for i in range(20))]
    lines = ["c x d", *(f"one of: {', '.join(labels[i : i + 20])}" for i in (2, 22)), "a0 x b0"]
    lines += [f"a{i} -> c, d" for i in range(20)]
    with pytest.raises(UsageError, match=r"no label set can keep the rules `c x d` \(line 1\) and"):
        LabelRules(parse_rules("\n".join(lines), labels, "rules.txt"), len(labels))


def test_labels_without_a_choice_are_said(tmp_path, capsys):
    path = tmp_path / "rules.txt"
    path.write_text("dog -> cat\ndog x cat\none of: bird, dog\n")
    load_rules(path, ("dog", "cat", "bird"))
    said = capsys.readouterr().err
    assert f"by the rules of {path}, on every image: bird" in said
    assert f"by the rules of {path}, on no image: dog" in said


def test_facts_that_break_rules_are_refused():
    rules = LabelRules([Rule(IMPLIES, (1, 0), "puppy -> dog", 1)], 2)
    rules.check_facts(np.array([[1, 1], [0, 1], [-1, -1]]), ("dog", "puppy"))
    with pytest.raises(
        UsageError, match="`puppy -> dog` cannot be kept on an image with no dog, pu"
    ):
        rules.check_facts(np.array([[-1, 1]]), ("dog", "puppy"))
    with pytest.raises(UsageError, match=r"^b\.jpg: the rule"):
        rules.check_facts(np.array([[1, 1], [-1, 1]]), ("dog", "puppy"), ["a.jpg", "b.jpg"])


def test_few_sets_is_enough_for_ten_labels():
    assert decoding.FEW_SETS == 2**10
