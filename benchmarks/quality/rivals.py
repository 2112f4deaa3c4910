"""The models that quality.py compares HybridNet with; all have the same encoder.

Each is a subclass of HybridNet or has other arguments, so that data, augmentation, optimizer,
schedule, averaging of weights and metrics are the same code for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from timm.layers.ml_decoder import MLDecoder
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor

from labels.vocabulary import Vocabulary
from model import DEFAULT_STAGES, Encoding, HybridNet, PartialNLL, bernoulli_nll


class Average(HybridNet):
    """Plain average pooling, as in the original ResNet."""

    def pool(self, average: Tensor, maps: list[Tensor]) -> Tensor:
        return average


class Asymmetric(HybridNet):
    """Trained with the asymmetric loss (Ridnik et al., ICCV 2021), with the authors' constants.

    Its scores are not logits of probabilities; `calibrate` turns them into logits with two numbers.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        constants = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05}
        self.loss = AsymmetricLossMultiLabel(
            **constants, disable_torch_grad_focal_loss=True, reduction="none"
        )
        self.register_buffer("scale_and_shift", torch.tensor([1.0, 0.0]))

    def scores(self, features: list[Tensor]) -> Tensor:
        """Uncalibrated scores B×C."""
        return HybridNet.encode_features(self, features).cnn_logits

    def encode_features(self, stages: list[Tensor]) -> Encoding:
        scores = self.scores(stages)
        if not self.training:
            scores = scores * self.scale_and_shift[0] + self.scale_and_shift[1]
        return Encoding(self.decoder.embed_image(scores), scores, [])

    def forward(
        self, images: Tensor, targets: Tensor, partial_nll: PartialNLL | None = None
    ) -> dict[str, Tensor]:
        scores = self.encode(images).cnn_logits
        losses = self.loss(scores, targets.to(images.device, non_blocking=True)).sum(1)
        return {"set_nll": losses, "cnn_bce": losses.detach()}

    def calibrate(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """Platt scaling: fit scale and shift to scores and targets N×C of the hold-out."""
        scores, targets = torch.from_numpy(scores).double(), torch.from_numpy(targets)
        fitted = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([fitted], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = bernoulli_nll(scores * fitted[0] + fitted[1], targets).mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        self.scale_and_shift.copy_(fitted.detach())


class MLDecoderNet(Asymmetric):
    """timm's ML-Decoder (Ridnik et al., WACV 2023) on the last stage, asymmetric loss."""

    def __init__(self, *args: object, num_labels: int, **kwargs: object) -> None:
        super().__init__(*args, num_labels=num_labels, **kwargs)
        width = self.classifier.in_channels
        logits = self.classifier.bias.detach()
        del self.classifier
        self.head = MLDecoder(num_labels, initial_num_features=width)
        # today's torch passes arguments through its stack of layers that timm's layer does not take
        (self.head.decoder,) = self.head.decoder.layers
        self.head.duplicate_pooling_bias.data.copy_(logits)  # where all models start

    def scores(self, features: list[Tensor]) -> Tensor:
        # the head is larger than the ResNet, so it is trained in the ResNet's precision
        last, dtype = features[-1], features[-1].dtype
        low = self.training and dtype != torch.float32
        with torch.autocast(last.device.type, dtype if low else torch.bfloat16, enabled=low):
            return self.head(last.float()).float()


@dataclass(frozen=True)
class Contender:
    """A model, and how its training differs from HybridNet's."""

    about: str
    kind: type[HybridNet] = HybridNet
    settings: dict = field(default_factory=dict)  # arguments of HybridNet
    order: str = "frequent"  # of the labels: "frequent" or "rare" first, or "random"
    flags: dict = field(default_factory=dict)  # flags of train.py
    hidden_is_absent: bool = False  # instead of unknown, see hidden_labels.py

    def vocabulary(self, vocabulary: Vocabulary, seed: int) -> Vocabulary:
        """The vocabulary with its labels in this contender's order."""
        places = np.arange(len(vocabulary))
        if self.order == "rare":
            places = places[::-1]
        if self.order == "random":
            places = np.random.default_rng(seed).permutation(places)
        labels, counts = (
            tuple(of_each[i] for i in places) for of_each in (vocabulary.labels, vocabulary.counts)
        )
        return replace(vocabulary, labels=labels, counts=counts)

    def build(self, vocabulary: Vocabulary, arch: str = "resnet18") -> HybridNet:
        """The model with random weights."""
        settings = {"decoder": "none", "stages": DEFAULT_STAGES, **self.settings}
        return self.kind(
            arch=arch,
            num_labels=len(vocabulary),
            label_logits=vocabulary.prior_logits(),
            **settings,
        )


LAST = {"stages": 1}  # only the last stage, as published
CONTENDERS = {
    "chain": Contender("HybridNet", settings={"decoder": "chain"}),
    "average": Contender("average pooling, cross-entropy", Average, LAST),
    "none-last": Contender("average + maximum pooling, cross-entropy", settings=LAST),
    "asymmetric": Contender("the same, asymmetric loss", Asymmetric, LAST),
    "ml-decoder": Contender("ML-Decoder, asymmetric loss", MLDecoderNet, LAST),
    "softmax": Contender(
        "softmax CNN-RNN, frequent first", settings={"decoder": "softmax", **LAST}
    ),
    "softmax-rare": Contender(
        "softmax CNN-RNN, rare first", settings={"decoder": "softmax", **LAST}, order="rare"
    ),
    "softmax-random": Contender(
        "softmax CNN-RNN, random order", settings={"decoder": "softmax", **LAST}, order="random"
    ),
    # the stages without the decoder, and the decoder without the stages
    "none": Contender("HybridNet without its decoder"),
    "chain-last": Contender("HybridNet on the last stage", settings={"decoder": "chain", **LAST}),
}
