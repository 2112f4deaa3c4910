"""Small models whose probabilities of all label sets are known, by enumeration."""

import functools
import itertools

import torch
from torch import Tensor

from model import Encoding, HybridNet, bernoulli_nll

NUM_LABELS = 6
ALL_SETS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=NUM_LABELS)))  # 2^C×C
NUM_IMAGES = 4
TRAINED = 7  # the seed for which get_model trains the decoder


def make_model(decoder: str, num_labels: int = NUM_LABELS, seed: int = 0) -> HybridNet:
    """A small model with a random, calibrated decoder; a new one would start at zero."""
    torch.manual_seed(seed)
    model = HybridNet(num_labels, "resnet18", decoder, 8, 8, stages=1).eval()
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    model.decoder.temperature, model.decoder.prior_weight = 1.3, 0.2
    model.decoder.prior.copy_(-torch.arange(num_labels) / 4)
    return model


def make_encoding(model: HybridNet, num_images: int = 1, seed: int = 1) -> Encoding:
    """Random encodings, without the cost of an encoder."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_images, 512, generator=generator) / 8
    scores = torch.randn(num_images, len(model.classifier.bias), generator=generator)
    with torch.no_grad():
        return Encoding(model.decoder.embed_image(features), scores, [scores[..., None, None]])


def train_decoder(model: HybridNet, num_steps: int = 60) -> HybridNet:
    """Fit the decoder to labels that come in threes, so that some sets are very probable."""
    generator = torch.Generator().manual_seed(5)
    scenes = torch.rand(64, 2, generator=generator) < 0.5
    noise = torch.rand(64, NUM_LABELS, generator=generator) < 0.1
    targets = (scenes.repeat_interleave(NUM_LABELS // 2, dim=1) ^ noise).float()
    if not list(model.decoder.parameters()):
        return model
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=0.05)
    features = torch.randn(64, 512, generator=generator) / 8
    scores = torch.randn(64, NUM_LABELS, generator=generator)
    for _ in range(num_steps):
        encoding = Encoding(model.decoder.embed_image(features), scores, None)
        loss = bernoulli_nll(model.set_logits(encoding, targets), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def repeat(encoding: Encoding, times: int) -> Encoding:
    """The encoding of one image as `times` rows."""
    return Encoding(
        encoding.image_embedding.expand(times, -1), encoding.cnn_logits.expand(times, -1), None
    )


@torch.no_grad()
def log_prob_of_all_sets(model: HybridNet, encoding: Encoding) -> Tensor:
    z = model.set_logits(repeat(encoding, len(ALL_SETS)), ALL_SETS)
    return -bernoulli_nll(z, ALL_SETS)


def rows(encoding: Encoding, index) -> Encoding:
    return Encoding(encoding.image_embedding[index], encoding.cnn_logits[index], None)


@functools.cache
def get_model(decoder: str, seed: int):
    """Random weights or, for the seed TRAINED, weights fitted to dependent labels."""
    model = make_model(decoder, seed=seed)
    return train_decoder(model) if seed == TRAINED else model


def enumerate_sets(decoder: str, seed: int = 0):
    """Model, encodings, exact log-probabilities B×2^C and exact marginals B×C."""
    model = get_model(decoder, seed)
    encoding = make_encoding(model, NUM_IMAGES, seed=seed + 1)
    log_probs = torch.stack(
        [log_prob_of_all_sets(model, rows(encoding, slice(i, i + 1))) for i in range(NUM_IMAGES)]
    ).double()
    return model, encoding, log_probs, log_probs.exp() @ ALL_SETS.double()
