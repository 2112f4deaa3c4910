"""Decoding against brute-force enumeration of all 2^C sets, and its properties."""

import pytest
import torch
from enumeration import (
    ALL_SETS,
    NUM_IMAGES,
    NUM_LABELS,
    TRAINED,
    enumerate_sets,
    make_encoding,
    make_model,
    rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.decoding import expected_f1_sets, most_probable_sets, sample_label_sets
from model import DECODERS, Encoding


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seed", [0, 1, TRAINED])
def test_sampled_marginals_agree_with_enumeration(decoder, seed):
    model, encoding, _, marginals = enumerate_sets(decoder, seed)
    samples = sample_label_sets(model, encoding, num_samples=20_000, seed=seed)
    error = (samples.marginals - marginals).abs()
    assert (error <= 4 * samples.standard_errors + 1e-6).all()
    assert (samples.standard_errors < 0.004).all()
    outcomes = samples.label_sets.double().mean(1)
    assert (outcomes - marginals).abs().max() < 0.02  # the sets are samples from P, too


@pytest.mark.parametrize("decoder", DECODERS)
def test_sampled_sets_have_the_right_frequencies(decoder):
    model, encoding, log_probs, _ = enumerate_sets(decoder)
    num_samples = 20_000
    samples = sample_label_sets(model, encoding, num_samples)
    weights = 2 ** torch.arange(NUM_LABELS).flip(0)
    for i in range(NUM_IMAGES):
        counts = torch.bincount((samples.label_sets[i] * weights).sum(1), minlength=2**NUM_LABELS)
        p = log_probs[i].exp()
        deviation = (counts / num_samples - p).abs() / (p * (1 - p) / num_samples).sqrt()
        assert deviation.max() < 5


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seed", [0, 1, TRAINED])
def test_marginals_given_known_labels_agree_with_enumeration(decoder, seed):
    """P(label | image, known labels) by likelihood weighting against the exact value."""
    model, encoding, log_probs, _ = enumerate_sets(decoder, seed)
    facts = torch.zeros(NUM_IMAGES, NUM_LABELS)
    facts[0, 3], facts[1, 0], facts[2, [1, 4]] = 1, -1, torch.tensor([1.0, -1.0])
    samples = sample_label_sets(model, encoding, 20_000, seed, facts)
    for i in range(NUM_IMAGES):
        agrees = ((2 * ALL_SETS - 1) * facts[i] >= 0).all(1)
        p = log_probs[i].exp() * agrees
        exact = (p @ ALL_SETS.double()) / p.sum()
        error = (samples.marginals[i] - exact).abs()
        assert (error <= 4 * samples.standard_errors[i] + 1e-5).all()
        assert (samples.standard_errors[i] < 0.02).all()
        assert float(samples.log_evidence[i].exp()) == pytest.approx(float(p.sum()), rel=0.05)
        best = most_probable_sets(model, encoding, 2**NUM_LABELS, known=facts)
        found = best.log_probs[i].isfinite()
        expected = log_probs[i][agrees].sort(descending=True).values
        torch.testing.assert_close(best.log_probs[i][found].double(), expected, atol=1e-5, rtol=0)
        assert (2 * best.label_sets[i][found] - 1).mul(facts[i]).ge(0).all()
    present, absent = facts == 1, facts == -1
    assert (samples.marginals[present] > 1 - 1e-5).all()
    assert (samples.marginals[absent] == 0).all()
    assert samples.label_sets.all(1)[present].all()
    assert not samples.label_sets.any(1)[absent].any()
    assert samples.effective_size[3] == pytest.approx(20_000, rel=1e-4)  # nothing known
    assert (samples.effective_size <= 20_001).all()


def test_one_sample_of_the_independent_control_is_exact():
    model = make_model("none")
    encoding = make_encoding(model, 3)
    samples = sample_label_sets(model, encoding, num_samples=1)
    scores = model.decoder.calibrated(encoding.cnn_logits)
    torch.testing.assert_close(samples.marginals, scores.sigmoid())


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(DECODERS),
    st.sampled_from([0, 1, TRAINED]),
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=NUM_LABELS, max_size=NUM_LABELS),
    st.integers(1, 40),
)
def test_sampling_properties_whatever_is_known(decoder, seed, facts, num_samples):
    model, encoding, _, _ = enumerate_sets(decoder, seed)
    known = torch.tensor(facts).expand(NUM_IMAGES, -1)
    samples = sample_label_sets(model, encoding, num_samples, seed, known)
    assert ((samples.marginals >= 0) & (samples.marginals <= 1)).all()
    assert (samples.standard_errors >= 0).all() or num_samples == 1
    torch.testing.assert_close(samples.weights.sum(1), torch.ones(NUM_IMAGES))
    assert (samples.effective_size >= 1 - 1e-4).all()
    assert (samples.effective_size <= num_samples * (1 + 1e-4)).all()
    assert (samples.log_evidence <= 1e-5).all()
    torch.testing.assert_close(samples.marginals[known == 1], (known[known == 1] + 1) / 2)
    assert not samples.marginals[known == -1].any()
    if decoder == "none":  # labels are independent: one sample is exact
        free = known == 0
        expected = model.decoder.calibrated(encoding.cnn_logits).sigmoid()
        torch.testing.assert_close(samples.marginals[free], expected[free], atol=1e-5, rtol=0)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seed", [0, TRAINED])
def test_search_over_all_sets_is_enumeration(decoder, seed):
    model, encoding, log_probs, marginals = enumerate_sets(decoder, seed)
    best = most_probable_sets(model, encoding, num_sets=2**NUM_LABELS)
    ordered = log_probs.sort(1, descending=True).values
    torch.testing.assert_close(best.log_probs.double(), ordered, atol=1e-5, rtol=0)
    assert best.certain.all()
    torch.testing.assert_close(best.covered, torch.ones(NUM_IMAGES), atol=1e-5, rtol=0)
    torch.testing.assert_close(best.lower.double(), marginals, atol=1e-5, rtol=0)
    torch.testing.assert_close(best.upper.double(), marginals, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DECODERS), st.integers(0, 1000), st.integers(1, 20), st.integers(1, 40))
def test_search_properties(decoder, seed, num_sets, budget):
    """Exact probabilities, no duplicates, sorted, true bounds; `certain` is never wrong."""
    model, encoding, log_probs, marginals = enumerate_sets(decoder, seed)
    best = most_probable_sets(model, encoding, num_sets, budget)
    ordered = log_probs.sort(1, descending=True).values
    weights = 2 ** torch.arange(NUM_LABELS).flip(0)
    for i in range(NUM_IMAGES):
        found = best.log_probs[i].isfinite()
        codes = (best.label_sets[i] * weights).sum(1)[found]
        assert len(codes.unique()) == len(codes)
        exact = log_probs[i, codes]
        torch.testing.assert_close(best.log_probs[i][found].double(), exact, atol=1e-5, rtol=0)
        if best.certain[i]:
            torch.testing.assert_close(exact, ordered[i, : len(exact)], atol=1e-5, rtol=0)
    assert (best.log_probs.diff(dim=1).nan_to_num(0) <= 0).all()
    assert (best.lower <= marginals + 1e-5).all()
    assert (marginals <= best.upper + 1e-5).all()
    more = most_probable_sets(model, encoding, num_sets + 3, budget + 5)
    assert (more.covered >= best.covered - 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DECODERS), st.integers(0, 1000), st.permutations(range(NUM_IMAGES)))
def test_results_do_not_depend_on_the_batch(decoder, seed, order):
    model = make_model(decoder, seed=seed)
    encoding = make_encoding(model, NUM_IMAGES, seed)
    whole = sample_label_sets(model, encoding, 50)
    best = most_probable_sets(model, encoding, 3)
    part = rows(encoding, torch.tensor(order[:2]))
    samples = sample_label_sets(model, part, 50)
    again = most_probable_sets(model, part, 3)
    assert torch.equal(samples.label_sets, whole.label_sets[order[:2]])
    torch.testing.assert_close(samples.marginals, whole.marginals[order[:2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(again.log_probs, best.log_probs[order[:2]], atol=1e-5, rtol=0)


def test_extreme_logits_give_empty_and_full_sets():
    model = make_model("none")
    sure = torch.full((2, NUM_LABELS), 40.0)
    sure[0] = -40
    encoding = Encoding(torch.zeros(2, 0), sure, None)
    assert most_probable_sets(model, encoding).label_sets[:, 0].sum(1).tolist() == [0, NUM_LABELS]
    samples = sample_label_sets(model, encoding, 10)
    assert samples.label_sets.float().mean((1, 2)).tolist() == [0, 1]


def test_same_seed_same_samples():
    model = make_model("chain")
    encoding = make_encoding(model, 2)
    first, again, other = (sample_label_sets(model, encoding, 20, seed) for seed in (1, 1, 2))
    assert torch.equal(first.label_sets, again.label_sets)
    assert not torch.equal(first.label_sets, other.label_sets)


def f1(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """F1 of every prediction (rows) and every target set (columns); 1 for two empty sets."""
    sizes = predicted.sum(1)[:, None] + truth.sum(1)
    return torch.where(sizes == 0, 1.0, 2 * predicted @ truth.T / sizes.clamp_min(1))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("seed", [0, 1, 2, 3, TRAINED])
def test_expected_f1_sets_are_the_best_of_all_sets(decoder, seed):
    _, _, log_probs, _ = enumerate_sets(decoder, seed)
    every_set = ALL_SETS.bool().expand(NUM_IMAGES, -1, -1)
    chosen = expected_f1_sets(every_set, log_probs.exp().float())
    expected = f1(ALL_SETS, ALL_SETS).double() @ log_probs.exp().T  # 2^C×B
    ours = (f1(chosen.float(), ALL_SETS).double() * log_probs.exp()).sum(1)
    torch.testing.assert_close(ours, expected.max(0).values, atol=1e-5, rtol=0)


def test_expected_f1_may_predict_more_labels_than_any_set_has():
    either = torch.tensor([[[1, 0, 0], [0, 1, 0]]]).bool()
    assert expected_f1_sets(either, torch.full((1, 2), 0.5)).tolist() == [[True, True, False]]
    nothing = torch.zeros(1, 4, 3).bool()
    assert expected_f1_sets(nothing, torch.full((1, 4), 0.25)).tolist() == [[False, False, False]]
