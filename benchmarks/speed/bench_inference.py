"""Encoder and decoder against the encoder alone: the cost of decoding.

The time of decoding depends on how certain the model is. So classifier and decoder are first
trained on COCO's label sets for about a minute, with simulated image features: a linear map of
the true label vector plus noise. The noise is chosen so that the set NLL is that of a good COCO
model, 4 to 5 nats. The encoder is timed on random pixels, because its time does not depend on
them, and the decoder on simulated encodings of as many images. At last decoding given 50 rules
that these label sets never break, against decoding without.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from material import label_sets, wait
from timing import Ratio, side_by_side
from torch import Tensor

from inference.decoding import most_probable_sets, sample_label_sets
from inference.rules import LabelRules
from labels.find_rules import find_rules
from labels.rules import Rule
from model import DEFAULT_STAGES, Encoding, HybridNet, bernoulli_nll
from util.device import autocast, pick_device
from util.log import log

IMAGES, MANY = 64, 256  # in a batch; in a batch where decoding is timed alone
FEATURES = 512  # channels of ResNet-18's last stage
NOISE = 2.0  # standard deviation; see above
STEPS, BATCH_SIZE = 600, 256
NUM_RULES = 50


@torch.inference_mode()
def measure() -> Iterator[Ratio]:
    """Rows of encoding and decoding together, and of decoding alone."""
    device = pick_device("auto")
    with torch.inference_mode(False):
        model, encoding = trained_model(device)
    images = torch.randint(0, 256, (IMAGES, 3, 224, 224), dtype=torch.uint8, device=device)
    amp = autocast(device, "auto")

    def encode() -> Encoding:
        with amp:
            return wait(model.encode(images))

    few = Encoding(
        encoding.image_embedding[:IMAGES],
        encoding.cnn_logits[:IMAGES],
        [maps[:IMAGES] for maps in encoding.class_maps],
    )
    decoders = {
        "marginals (32 samples)": lambda e: wait(sample_label_sets(model, e, 32)),
        "5 most probable sets": lambda e: wait(most_probable_sets(model, e, num_sets=5)),
    }
    for what, decode in decoders.items():

        def both(decode=decode) -> None:
            encode()
            decode(few)

        row = side_by_side(f"encoder + {what} : encoder", both, encode, at_least=0.85)
        yield row.with_rates(IMAGES)
    for what, decode in decoders.items():

        def many(decode=decode) -> None:
            decode(encoding)

        def as_many_encoded() -> None:
            for _ in range(MANY // IMAGES):
                encode()

        name = f"{what} alone, {MANY} images at once : encoder"
        row = side_by_side(name, many, as_many_encoded, rounds=3)
        yield row.with_rates(MANY)
    yield from measure_rules(model, few)


def measure_rules(model: HybridNet, encoding: Encoding) -> Iterator[Ratio]:
    """Rows of decoding given the NUM_RULES rules with the most evidence in the label sets."""
    names = [str(i) for i in range(len(model.classifier.bias))]
    found = find_rules(label_sets().numpy(), names)[:NUM_RULES]
    rules = LabelRules(
        [Rule(r.kind, r.labels, r.reason, i) for i, r in enumerate(found)], len(names)
    )
    decoders = {
        "marginals (128 samples)": lambda r: sample_label_sets(model, encoding, 128, rules=r),
        "5 most probable sets": lambda r: most_probable_sets(model, encoding, 5, rules=r),
    }
    for what, decode in decoders.items():
        name = f"{what} given {len(found)} rules on {len(names)} labels : without rules"
        row = side_by_side(
            name,
            lambda decode=decode: wait(decode(rules)),
            lambda decode=decode: wait(decode(None)),
            rounds=9,
            at_most=1.5,
        )
        yield row.with_rates(IMAGES)


def trained_model(device: torch.device) -> tuple[HybridNet, Encoding]:
    """A chain decoder trained on COCO's label sets, and encodings of MANY other images."""
    torch.manual_seed(0)
    targets = label_sets().float().to(device)
    # features of each label
    looks = torch.randn(targets.shape[1], FEATURES, device=device) / 4
    frequencies = targets.mean(0).clamp(1e-4, 1 - 1e-4)
    logits = frequencies.logit().tolist()
    model = HybridNet(targets.shape[1], "resnet18", label_logits=logits, stages=DEFAULT_STAGES).to(
        device
    )
    held_out, targets = targets[:MANY], targets[MANY:]
    trained = [*model.classifier.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)

    def encode(truth: Tensor) -> Encoding:
        seen = truth @ looks + NOISE * torch.randn(len(truth), FEATURES, device=device)
        zeros = [seen.new_zeros(len(seen), width, 1, 1) for width in (128, 256)]
        return model.encode_features([*zeros, seen.relu()[..., None, None]])

    for _ in range(STEPS):
        batch = targets[torch.randint(len(targets), (BATCH_SIZE,))]
        encoding = encode(batch)
        set_nll = bernoulli_nll(model.set_logits(encoding, batch), batch).mean()
        optimizer.zero_grad()
        (set_nll + bernoulli_nll(encoding.cnn_logits, batch).mean()).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        encoding = encode(held_out)
        nll = bernoulli_nll(model.set_logits(encoding, held_out), held_out).mean()
    labels = float(held_out.sum(1).mean())
    log(f"decoder after {STEPS} steps: set NLL {float(nll):.2f} nats, {labels:.1f} labels an image")
    return model, encoding
