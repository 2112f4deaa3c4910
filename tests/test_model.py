"""The model: its distribution against definitions written by hand, and its properties."""

import math

import pytest
import torch
import torchvision
from enumeration import ALL_SETS, NUM_LABELS, log_prob_of_all_sets, make_encoding, make_model
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from encoder import ARCHS
from model import DECODERS, Encoding, HybridNet, settings_of


@torch.no_grad()
def log_prob_token_by_token(model: HybridNet, encoding: Encoding, labels: list[int]) -> float:
    """log P(set | image) by its definition: next-token probabilities, one LSTM step at a time."""
    decoder, end = model.decoder, NUM_LABELS
    hidden = cell = torch.zeros(1, 8)
    last, total = -1, 0.0
    for token in [*labels, end]:
        x = torch.tanh(decoder.project_output(hidden) + encoding.image_embedding)
        s = (x @ decoder.label_embedding.T)[0]
        s[:end] += encoding.cnn_logits[0]
        if decoder.link == "softmax":
            total += float(s[last + 1 :].log_softmax(0)[token - last - 1])
        else:
            q = s.sigmoid()
            total += float(torch.log(1 - q[last + 1 : token]).sum())
            total += float(torch.log(q[token])) if token != end else 0.0
        if token != end:
            embedded = decoder.label_embedding[token].view(1, 1, -1)
            hidden, cell = (
                state[0] for state in decoder.lstm(embedded, (hidden[None], cell[None]))[1]
            )
            last = token
    return total


@pytest.mark.parametrize("decoder", ["chain", "softmax", "none"])
def test_set_probabilities_sum_to_one(decoder):
    model = make_model(decoder)
    for seed in range(3):
        log_probs = log_prob_of_all_sets(model, make_encoding(model, seed=seed))
        assert float(log_probs.double().exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("decoder", ["chain", "softmax"])
def test_teacher_forcing_is_the_product_of_next_token_probabilities(decoder):
    model = make_model(decoder)
    model.decoder.temperature, model.decoder.prior_weight = 1.0, 0.0
    encoding = make_encoding(model)
    log_probs = log_prob_of_all_sets(model, encoding)
    for targets, log_prob in zip(ALL_SETS, log_probs, strict=True):
        expected = log_prob_token_by_token(model, encoding, targets.nonzero()[:, 0].tolist())
        assert float(log_prob) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("decoder", ["chain", "softmax", "none"])
def test_all_logits_are_calibrated(decoder):
    model = make_model(decoder)
    prior = torch.tensor([0.0, -0.25, -0.5, -0.75, -1, -1.25])
    encoding, state = make_encoding(model, 3), model.decoder.initial_state(3)
    targets = ALL_SETS[[5, 63, 0]]
    found = {}
    for calibration in ((1.0, 0.0), (2.5, 0.4)):
        model.decoder.temperature, model.decoder.prior_weight = calibration
        step = model.decoder.logits(state, encoding.image_embedding, encoding.cnn_logits)
        found[calibration] = step, model.set_logits(encoding, targets)
    for plain, calibrated in zip(*found.values(), strict=True):
        torch.testing.assert_close(calibrated, plain / 2.5 + 0.4 * prior)


@pytest.mark.parametrize("decoder", ["chain", "softmax", "none"])
def test_loss_of_an_image_does_not_depend_on_its_batch(decoder):
    model = make_model(decoder)
    encoding = make_encoding(model, num_images=9)
    targets = (torch.rand(9, NUM_LABELS, generator=torch.Generator().manual_seed(3)) < 0.4).float()
    targets[4] = 0
    targets[5] = 1
    together = model.set_logits(encoding, targets)
    for i in range(9):
        one = Encoding(encoding.image_embedding[i : i + 1], encoding.cnn_logits[i : i + 1], None)
        alone = model.set_logits(one, targets[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_batch_without_any_label():
    model = make_model("chain")
    z = model.set_logits(make_encoding(model, 3), torch.zeros(3, NUM_LABELS))
    assert z.shape == (3, NUM_LABELS)
    assert z.isfinite().all()


@pytest.mark.parametrize("decoder", ["chain", "none"])
def test_training_starts_at_the_independent_classifier(decoder):
    """And b(I) starts at the labels' frequencies, apart from random features."""
    torch.manual_seed(0)
    logits = [math.log(p / (1 - p)) for p in (0.5, 0.2, 0.1)]
    model = HybridNet(3, "resnet18", decoder, 8, 8, label_logits=logits).eval()
    torch.testing.assert_close(model.classifier.bias.detach(), torch.tensor(logits))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    losses = model(images, targets)
    torch.testing.assert_close(losses["set_nll"], losses["cnn_bce"])


def test_every_trained_parameter_gets_a_gradient_after_one_step():
    """U_o and U_I start at zero: the LSTM gets a gradient from the second step on."""
    torch.manual_seed(0)
    model = HybridNet(5, "resnet18", "chain", 8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    targets = torch.tensor([[1.0, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    for _ in range(3):
        optimizer.zero_grad()
        model(images, targets)["set_nll"].mean().backward()
        optimizer.step()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_pixels_are_normalised_inside_the_model():
    model = HybridNet(2, "resnet18", "none").eval()
    seen = []
    model.encoder.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model.encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        model.encode(images)
    expected = normalize(images.double() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], expected.float())
    torch.testing.assert_close(seen[1], expected.bfloat16())


def test_encoder_is_torchvisions():
    """Same values, gradients and running statistics, although maxpool is before relu here."""
    torch.manual_seed(0)
    ours = HybridNet(2, "resnet18", "none").encoder.double()
    resnet = torchvision.models.resnet18().double()
    resnet.load_state_dict(ours.state_dict(), strict=False)
    theirs = torch.nn.Sequential(*list(resnet.children())[:-2])
    images = torch.randn(4, 3, 96, 96, dtype=torch.float64)
    found, expected = ours(images)[-1], theirs(images)
    torch.testing.assert_close(found, expected)
    for out in (found, expected):
        (out * torch.arange(out.numel()).view_as(out).cos()).sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_arch_encodes(arch):
    model = HybridNet(4, arch, "chain", 8, 8, stages=4).eval()
    for head in model.stage_heads:
        torch.nn.init.normal_(head.weight, std=head.in_features**-0.5)
    with torch.no_grad():
        encoding = model.encode(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    assert [tuple(maps.shape) for maps in encoding.class_maps] == [
        (1, 4, 16, 16),
        (1, 4, 8, 8),
        (1, 4, 4, 4),
        (1, 4, 2, 2),
    ]
    assert encoding.cnn_logits.shape == (1, 4)
    pooled = sum(maps.mean((2, 3)) / 2 + maps.amax((2, 3)) / 2 for maps in encoding.class_maps)
    # the logits are in the hundreds, and summed in another order
    torch.testing.assert_close(
        encoding.cnn_logits, pooled + model.classifier.bias, rtol=1e-5, atol=1e-5
    )
    assert encoding.class_activation_map(0).shape == (4, 16, 16)


def test_another_encoder_needs_only_build_encoder(monkeypatch):
    """Any module that says its widths and the pixels it expects, and returns its stages."""

    class Encoder(nn.Module):
        widths, mean, std = [5, 3, 7], (0.5, 0.5, 0.5), (0.5, 0.25, 0.5)

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (
                nn.Conv2d(3, 5, 3, 4),
                nn.Conv2d(5, 3, 3, 2),
                nn.Conv2d(3, 7, 1),
            )

        def forward(self, x: Tensor) -> list[Tensor]:
            a = self.a(x)
            b = self.b(a)
            return [a, b, self.c(b)]

    monkeypatch.setattr("model.build_encoder", lambda arch, pretrained, image_size: Encoder())
    model = HybridNet(4, stages=2)
    assert model.std.flatten().tolist() == [127.5, 63.75, 127.5]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    encoding = model.encode(images)
    assert [maps.shape[1:] for maps in encoding.class_maps] == [(4, 3, 3), (4, 3, 3)]
    assert model.decoder.project_image.in_features == 3 + 7
    model(images, torch.ones(2, 4))["set_nll"].sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arch", "no_such_net"),
        ("decoder", "lstm"),
        ("embed_size", 0),
        ("hidden_size", 2**16 + 1),
        ("stages", 5),
    ],
)
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; possible are "):
        HybridNet(2, **{name: value})


def test_settings_rebuild_the_model():
    defaults = settings_of({})
    assert defaults.keys() >= {"arch", "decoder", "embed_size", "hidden_size", "stages"}
    assert not defaults.keys() & {"num_labels", "label_logits", "pretrained"}
    assert settings_of({"arch": "resnet34", "epochs": 3}) == defaults | {"arch": "resnet34"}
    settings = settings_of({"embed_size": 4, "hidden_size": 6, "decoder": "softmax", "stages": 2})
    assert [p.shape for p in HybridNet(3, **settings).parameters()] == [
        p.shape
        for p in HybridNet(3, decoder="softmax", embed_size=4, hidden_size=6, stages=2).parameters()
    ]


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_state_is_one_row_of_numbers(decoder):
    """Rows are independent: a state read alone is the state read beside others."""
    model = make_model(decoder)
    state = model.decoder.initial_state(5)
    assert state.shape == (5, 0 if decoder == "none" else 16)
    for labels in torch.tensor([[0, 1, 2, 0, 1], [3, 4, 5, 2, 2]]):
        one = model.decoder.advance(state[3:4], labels[3:4])
        state = model.decoder.advance(state, labels)
        torch.testing.assert_close(one, state[3:4])


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_earlier_stages_start_without_effect(stages):
    torch.manual_seed(0)
    plain = HybridNet(4, "resnet18", "none", stages=1).eval()
    model = HybridNet(4, "resnet18", "none", stages=stages).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model.encode(images).cnn_logits, plain.encode(images).cnn_logits)


def test_frozen_encoder_stays_bit_identical_in_training():
    model = HybridNet(3, "resnet18", "chain", 8, 8, freeze_encoder=True)
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    losses = model(images, torch.ones(4, 3))
    sum(loss.sum() for loss in losses.values()).backward()
    optimizer.step()
    after = model.encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
