"""Unknown labels against enumeration: what is drawn for them, the loss and its gradient."""

import dataclasses
import functools

import pytest
import torch
from enumeration import (
    ALL_SETS,
    NUM_IMAGES,
    NUM_LABELS,
    TRAINED,
    enumerate_sets,
    get_model,
    make_encoding,
    make_model,
    repeat,
    rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import unknown
from inference.decoding import sample_label_sets
from inference.predictions import Predictions, decode
from inference.unknown import complete_targets, partial_nll
from model import DECODERS, bernoulli_nll

NAN = float("nan")
PARTLY_KNOWN = torch.tensor([[NAN, 1, NAN, NAN, 0, NAN], [0, NAN, NAN, NAN, NAN, 1]])
INDICES = torch.arange(NUM_IMAGES)
CHAINS = [d for d in DECODERS if d != "none"]


def agrees(targets: torch.Tensor) -> torch.Tensor:
    """Which of ALL_SETS have the known targets (C): 2^C."""
    return ((targets == ALL_SETS) | targets.isnan()).all(1)


def known_nll(model, encoding, targets):
    """-log P(known labels | image), by enumeration; has a gradient."""
    z = model.set_logits(repeat(encoding, len(ALL_SETS)), ALL_SETS)
    return -(-bernoulli_nll(z, ALL_SETS))[agrees(targets)].logsumexp(0)


def gradients(model, encoding, loss):
    """Of the decoder's weights and the encoding, as one vector."""
    leaves = [*model.decoder.parameters(), encoding.image_embedding, encoding.cnn_logits]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    return torch.cat([(torch.zeros_like(x) if g is None else g).flatten() for x, g in pairs])


def make_leaves(model):
    """An encoding of one image that has gradients."""
    encoding = make_encoding(model)
    encoding.image_embedding.requires_grad_()
    encoding.cnn_logits.requires_grad_()
    return encoding


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("row", [0, 1])
def test_gradient_of_the_loss_is_that_of_the_known_labels(decoder, row):
    """Exact, since the sets are listed."""
    model = get_model(decoder, TRAINED)
    encoding, targets = make_leaves(model), PARTLY_KNOWN[row]
    found = gradients(model, encoding, partial_nll(model, encoding, targets[None]).sum())
    expected = gradients(model, encoding, known_nll(model, encoding, targets))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", CHAINS)
def test_mean_gradient_of_sampled_sets_is_that_of_the_known_labels(decoder, monkeypatch):
    """But for a small bias; and with `chance` the errors are smaller than without."""
    assert unknown.NUM_SAMPLES < 2 ** (NUM_LABELS - 1)  # else the sets would be listed
    model = get_model(decoder, TRAINED)
    encoding, targets = make_leaves(model), torch.tensor([[NAN] * (NUM_LABELS - 1) + [1.0]])
    expected = gradients(model, encoding, known_nll(model, encoding, targets[0]))

    def draw(seeds):
        losses = (partial_nll(model, encoding, targets, seed).sum() for seed in seeds)
        return torch.stack([gradients(model, encoding, loss) for loss in losses])

    found = draw(range(60))
    norm = expected.norm()
    assert (found.mean(0) - expected).norm() < 0.2 * norm  # 16 samples have a bias of about 1/16
    complete = unknown.complete
    without = dataclasses.replace
    monkeypatch.setattr(
        unknown, "complete", lambda *a: without(c := complete(*a), chance=0 * c.chance)
    )
    errors = [(g - expected).norm(dim=1).mean() for g in (found[:20], draw(range(20)))]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("num_samples", [unknown.NUM_SAMPLES, 2])
@pytest.mark.parametrize("decoder", CHAINS)
def test_what_is_drawn_has_the_right_frequencies(decoder, num_samples, monkeypatch):
    """Exact with the sets listed. With two samples not: the test can tell the difference."""
    monkeypatch.setattr(unknown, "NUM_SAMPLES", num_samples)
    model, encoding, log_probs, _ = enumerate_sets(decoder, TRAINED)
    targets, number = PARTLY_KNOWN[:1], 4000
    one = rows(encoding, slice(0, 1))
    drawn = complete_targets(
        model, repeat(one, number), targets.expand(number, -1), torch.arange(number), seed=3
    )
    p = log_probs[0].exp() * agrees(targets[0])
    # what comes after the last known label, the fifth, is not drawn
    p = (p / p.sum()).view(-1, 2).sum(1)
    weights = 2.0 ** torch.arange(NUM_LABELS - 1).flip(0)
    places = (drawn[:, :-1] @ weights).long()
    counts = torch.bincount(places, minlength=len(p))
    deviation = (counts / number - p).abs() / (p * (1 - p) / number).sqrt().clamp_min(1e-9)
    assert not counts[p == 0].any()
    if num_samples == 2:
        assert deviation.max() > 5
    else:
        assert deviation.max() < 4


@pytest.mark.parametrize("number", [3, 30, 62, 63, 64, 65, 100, 130])
def test_many_unknown_labels(number):
    """2^63 and more sets: their number is no int64."""
    model = make_model("chain", number + 1)
    encoding = make_encoding(model, NUM_IMAGES)
    targets = torch.full((NUM_IMAGES, number + 1), NAN)
    targets[:, -1] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    found = [unknown.complete(model, encoding, targets, seed) for seed in range(20)]
    each = [(c.label_sets * c.weights[..., None]).sum(1) for c in found]
    facts = targets.nan_to_num(0.5) * 2 - 1
    expected = sample_label_sets(model, encoding, 4096, known=facts).marginals
    assert (torch.stack(each).mean(0) - expected)[:, :-1].abs().mean() < 0.05
    for one in found:
        assert (one.label_sets[..., -1] == targets[:, None, -1].bool()).all()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_draws_keep_known_labels_and_do_not_depend_on_the_batch(data):
    decoder = data.draw(st.sampled_from(DECODERS))
    values = st.sampled_from([0.0, 1.0, NAN])
    row = st.lists(values, min_size=NUM_LABELS, max_size=NUM_LABELS)
    targets = torch.tensor(data.draw(st.lists(row, min_size=NUM_IMAGES, max_size=NUM_IMAGES)))
    model = get_model(decoder, 0)
    encoding = make_encoding(model, NUM_IMAGES)
    drawn = complete_targets(model, encoding, targets, INDICES, seed=2)
    known = ~targets.isnan()
    assert (drawn[known] == targets[known]).all()
    assert ((drawn == 0) | (drawn == 1)).all()
    for i in range(NUM_IMAGES):
        one = rows(encoding, slice(i, i + 1))
        alone = complete_targets(model, one, targets[i : i + 1], INDICES[i : i + 1], seed=2)
        assert (alone[0] == drawn[i]).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_set_nll_is_that_of_the_known_labels(decoder):
    model, encoding, _, _ = enumerate_sets(decoder, TRAINED)
    targets = torch.cat([PARTLY_KNOWN, ALL_SETS[[5, 40]]])
    found = decode(model, encoding, targets, num_samples=4096)
    for i in range(NUM_IMAGES):
        with torch.no_grad():
            exact = known_nll(model, rows(encoding, slice(i, i + 1)), targets[i])
        assert abs(found.set_nll[i] - exact) < (0.05 if targets[i].isnan().any() else 1e-4)
    assert (found.unknown == targets.isnan().numpy()).all()
    assert not found.targets[found.unknown].any()


def test_batches_with_and_without_unknown_labels_join():
    model, encoding, _, _ = enumerate_sets("chain")
    targets = torch.cat([PARTLY_KNOWN, ALL_SETS[[5, 40]]])
    part = functools.partial(decode, model)
    halves = [part(rows(encoding, slice(i, i + 2)), targets[i : i + 2]) for i in (0, 2)]
    assert halves[1].unknown is None
    joined = Predictions.join(halves)
    assert (joined.unknown == targets.isnan().numpy()).all()
    assert (joined.select([2, 3]).known == True).all()  # noqa: E712
    assert Predictions.join(halves[1:]).known is None


def test_unknown_labels_need_their_own_loss():
    model = get_model("chain", 0)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(TypeError):
        model(images, PARTLY_KNOWN)
