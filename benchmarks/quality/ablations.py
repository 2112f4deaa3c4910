"""HybridNet with one thing changed, so that quality.py can measure what each part gains."""

from __future__ import annotations

import torch
from rivals import CONTENDERS, Asymmetric, Average, Contender
from torch import Tensor, nn

from model import ChainDecoder, HybridNet, PartialNLL, bernoulli_nll

CHAIN, FROZEN = {"decoder": "chain"}, {"freeze_encoder": True}


class Maximum(HybridNet):
    """Maximum pooling."""

    def pool(self, average: Tensor, maps: list[Tensor]) -> Tensor:
        return 2 * super().pool(average, maps) - average


class RandomStart(HybridNet):
    """The decoder starts at random instead of at zero."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.decoder.project_output.reset_parameters()
        self.decoder.project_image.reset_parameters()


class SampledPrefixes(HybridNet):
    """Reads some of the model's own labels, as in scheduled sampling (Bengio et al., 2015).

    Unlike there it takes one pass and has no schedule: each label is sampled given the true labels
    before it.
    """

    SHARE = 0.25  # of the labels read

    def forward(
        self, images: Tensor, targets: Tensor, partial_nll: PartialNLL | None = None
    ) -> dict[str, Tensor]:
        encoding, targets = self.encode(images), targets.to(images.device)
        with torch.no_grad():
            own = self.set_logits(encoding, targets).sigmoid().bernoulli()
        read = torch.where(torch.rand_like(own) < self.SHARE, own, targets)
        return {
            "set_nll": bernoulli_nll(self.set_logits(encoding, read), targets),
            "cnn_bce": bernoulli_nll(encoding.cnn_logits, targets),
        }


class UntiedDecoder(ChainDecoder):
    """One matrix embeds the labels that are read, another one scores labels."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        start = torch.randn_like(self.label_embedding) * self.label_embedding.shape[1] ** -0.5
        self.output_embedding = nn.Parameter(start)

    def logits(self, state: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        x = torch.tanh(self.project_output(state[..., : self.hidden_size]) + image_embedding)
        return self.calibrated(x @ self.output_embedding.T + cnn_logits)


class AtStartDecoder(ChainDecoder):
    """The image embedding is used only until the first label is read; b(I) is always used."""

    def logits(self, state: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        nothing_read = (state == 0).all(-1, keepdim=True)
        return super().logits(state, image_embedding * nothing_read, cnn_logits)


class _OtherDecoder(HybridNet):
    """HybridNet with another kind of chain decoder."""

    kind: type[ChainDecoder]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        own = self.decoder
        embed_size, image_features = own.project_image.weight.shape
        self.decoder = self.kind(
            image_features, own.num_labels, embed_size, own.hidden_size, own.link
        )
        self.decoder.prior.copy_(own.prior)


class Untied(_OtherDecoder):
    """See UntiedDecoder."""

    kind = UntiedDecoder


class AtStart(_OtherDecoder):
    """See AtStartDecoder."""

    kind = AtStartDecoder


ABLATIONS = {
    "asymmetric-stages": Contender("no decoder, asymmetric loss", Asymmetric),
    "chain-2-stages": Contender("two stages", settings={**CHAIN, "stages": 2}),
    "chain-4-stages": Contender("four stages", settings={**CHAIN, "stages": 4}),
    "chain-average": Contender("average pooling", Average, CHAIN),
    "chain-maximum": Contender("maximum pooling", Maximum, CHAIN),
    "softmax-stages": Contender("softmax instead of chain", settings={"decoder": "softmax"}),
    "chain-rare": Contender("rare labels first", settings=CHAIN, order="rare"),
    "chain-random": Contender("random order", settings=CHAIN, order="random"),
    "chain-64": Contender("64 LSTM units", settings={**CHAIN, "hidden_size": 64}),
    "chain-512": Contender("512 LSTM units", settings={**CHAIN, "hidden_size": 512}),
    "chain-no-ema": Contender("no average of weights", settings=CHAIN, flags={"ema_decay": 0.0}),
    "chain-no-cnn-loss": Contender(
        "no loss of the CNN's own", settings=CHAIN, flags={"cnn_loss_weight": 0.0}
    ),
    "chain-untied": Contender("labels read and scored by two matrices", Untied, CHAIN),
    "chain-image-first": Contender("image embedding before the first label only", AtStart, CHAIN),
    "chain-random-start": Contender("decoder not started at zero", RandomStart, CHAIN),
    "chain-sampled": Contender("a fourth of the labels read are sampled", SampledPrefixes, CHAIN),
    "chain-frozen": Contender("the encoder is not trained", settings=CHAIN | FROZEN),
    "none-frozen": Contender("CNN alone, the encoder is not trained", settings=FROZEN),
    "chain-absent": Contender(
        "hidden labels count as absent", settings=CHAIN, hidden_is_absent=True
    ),
}
EVERYONE = {**CONTENDERS, **ABLATIONS}
