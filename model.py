"""HybridNet: from an image to a probability for every set of labels.

An encoder reads the image, an LSTM reads the labels chosen so far, and both meet in one space:

    I    = features of the encoder's last stages, averaged over the image    B×D
    b(I) = the CNN's own logits: the average of mean and maximum over       B×C
           the image of each stage's class maps, summed over the stages
    o_t  = LSTM(label_1 … label_t)                                          B×H
    x_t  = tanh(U_o o_t + U_I I)                                            B×E   joint space
    s_t  = U_l x_t + b(I)                                                   B×C   scores

U_l also embeds the labels that the LSTM reads. These are equations 4-6 of Wang et al., CNN-RNN,
CVPR 2016; b(I) and `chain` are ours. Labels are ordered by frequency, the most frequent first, so
each set is exactly one sequence:

    {dog, person}  ->  person dog END  ->  ranks 0, 15, END

The decoder is a normalised distribution over all 2^C sets. It is a classifier chain: z_j is the
logit of label j given the image and the true labels ranked before j, and -log P(set | image) is a
sum of C binary cross-entropies. The two decoders differ only in z:

    chain    z_j = s_j
    softmax  z_j = s_j - log(sum_{k>j} exp s_k + exp s_END)

In both, z_j is the logit of P(label j | the labels before j). `softmax` is the classic decoder; it
chooses one token after the other, and compares the score of j with the scores of all that can still
come instead: later labels and END. Decoding needs only z, so it is the same for both.

After training each logit becomes z / T + w p, with a temperature T (Guo et al., ICML 2017) and the
log-odds p of the label's frequency in the training images. T and w are fitted on images that the
network was not trained on, because a network trained on little data is overconfident: T alone would
move its probabilities towards 1/2, and w p moves them towards the label's own frequency.

U_o and U_I start at zero: with `chain`, training begins at the independent CNN classifier (`none`).
To change the LSTM see `ChainDecoder`, the loss `HybridNet.forward`, the encoder encoder.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from encoder import NUM_STAGES, build_encoder

DECODERS = ("chain", "softmax", "none")
DEFAULT_STAGES = 3
SIZES = range(1, 2**16 + 1)  # of an embedding or a hidden state


@dataclass(frozen=True)
class Encoding:
    """What decoding needs of a batch of images; computed once for any number of questions."""

    image_embedding: Tensor  # B×E  U_I I, the images in the joint space
    cnn_logits: Tensor  # B×C  b(I)
    class_maps: list[Tensor]  # B×C×h×w of each stage, finest first; without the bias of b(I)

    def class_activation_map(self, image: int) -> Tensor:
        """The stages' class maps of one image, summed on the finest grid: C×h×w."""
        size = self.class_maps[0].shape[2:]
        maps = [maps[image, None].float() for maps in self.class_maps]
        return sum(F.interpolate(m, size, mode="bilinear") for m in maps)[0]


PartialNLL = Callable[["HybridNet", Encoding, Tensor], Tensor]  # targets B×C with NaN -> B nats


class Decoder(nn.Module):
    """The decoder `none`: z = b(I), labels are independent. `ChainDecoder` is based on it.

    The state, N rows of S numbers, holds what is known of the labels read so far; here S is 0.
    prior: C, the log-odds of each label's frequency in the training images.
    temperature, prior_weight: 1 and 0 in training; fitted afterwards on the hold-out.
    """

    temperature, prior_weight = 1.0, 0.0
    reads_labels = False  # whether a logit depends on the labels read

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(num_labels), persistent=False)

    def calibrated(self, z: Tensor) -> Tensor:
        """Logits N×C of the trained network -> calibrated logits N×C."""
        return z / self.temperature + self.prior_weight * self.prior

    def embed_image(self, features: Tensor) -> Tensor:
        """Averaged features B×D -> images in the joint space B×E; here E is 0."""
        return features.new_empty(len(features), 0)

    def initial_state(self, num_rows: int) -> Tensor:
        """The state before any label, N×S."""
        return self.prior.new_empty(num_rows, 0)

    def advance(self, state: Tensor, labels: Tensor) -> Tensor:
        """States N×S after one more label each; labels N are ranks."""
        return state

    def logits(self, state: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        """z, N×C, where entry j is the logit of label j given exactly the labels read so far.

        Only the entries ranked after the last label read have a meaning. Takes states N×S, image
        embeddings N×E and the CNN's logits N×C.
        """
        return self.calibrated(cnn_logits)

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """z under teacher forcing, B×C: entry j is given the true labels ranked before j."""
        return self.calibrated(encoding.cnn_logits)


class ChainDecoder(Decoder):
    """An LSTM over the labels read so far; `link` is 'chain' or 'softmax'."""

    reads_labels = True

    def __init__(
        self, image_features: int, num_labels: int, embed_size: int, hidden_size: int, link: str
    ) -> None:
        super().__init__(num_labels)
        self.num_labels, self.hidden_size, self.link = num_labels, hidden_size, link
        num_tokens = num_labels + (link == "softmax")  # END; the chain decides on every label
        self.label_embedding = nn.Parameter(torch.randn(num_tokens, embed_size) * embed_size**-0.5)
        self.lstm = nn.LSTM(embed_size, hidden_size, batch_first=True)
        self.project_output = nn.Linear(hidden_size, embed_size, bias=False)  # U_o
        self.project_image = nn.Linear(image_features, embed_size)  # U_I
        for parameter in (*self.project_output.parameters(), *self.project_image.parameters()):
            nn.init.zeros_(parameter)

    def embed_image(self, features: Tensor) -> Tensor:
        return self.project_image(features)

    def initial_state(self, num_rows: int) -> Tensor:
        return self.label_embedding.new_zeros(num_rows, 2 * self.hidden_size)  # hidden, cell

    def advance(self, state: Tensor, labels: Tensor) -> Tensor:
        read, state = self.label_embedding[labels], state.chunk(2, dim=1)
        # for one step lstm_cell is many times faster than nn.LSTM, which repacks its weights
        return torch.cat(torch.lstm_cell(read, state, *self.lstm.all_weights[0]), dim=1)

    def logits(self, state: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        x = torch.tanh(self.project_output(state[..., : self.hidden_size]) + image_embedding)  # N×E
        scores = x @ self.label_embedding[: self.num_labels].T + cnn_logits  # N×C
        if self.link == "chain":
            return self.calibrated(scores)
        end = x @ self.label_embedding[self.num_labels :].T  # N×1
        later = torch.cat([scores[:, 1:], end], dim=1)  # N×C  scores of what follows label j
        return self.calibrated(scores - later.flip(1).logcumsumexp(1).flip(1))

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """Reads each label and scores each step once; waits for the GPU if targets are there."""
        device = encoding.cnn_logits.device
        read, sizes, row, image = _schedule(targets.cpu().bool())
        read, row, image = (x.to(device, non_blocking=True) for x in (read, row, image))
        hidden = self.label_embedding.new_zeros(len(targets), self.hidden_size)  # before any label
        if len(read):
            steps = PackedSequence(self.label_embedding[read], sizes[1:])
            hidden = torch.cat([hidden, self.lstm(steps)[0].data])  # M×H
        else:  # no labels: the LSTM gets a gradient of 0, as DistributedDataParallel needs one
            hidden = hidden + 0 * sum(weight.sum() for weight in self.lstm.parameters())
        z = self.logits(hidden, encoding.image_embedding[image], encoding.cnn_logits[image])  # M×C
        return z.gather(0, row)


def _schedule(targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In which order a batch of label sets is read: targets B×C, bool -> read, sizes, row, image.

    A row is one step of one image, in PackedSequence's order: the first step of all images, then
    the second step of those that have one, … {0, 2} and {1} of C = 3 labels make M = 5 rows:

        row          0     1      2      3     4
        image        0     1      0      1     0
        labels read  -     -      0      1     0, 2
        decides on   0     0, 1   1, 2   2     -

    read: M-B, the label that leads to each row after the first step. sizes: the rows of each step.
    row: B×C, the row that decides on each label. image: M, the image of each row.
    """
    counts = targets.sum(1)  # B  labels per image
    order = counts.argsort(descending=True)
    place = order.argsort()  # B  of an image among the rows of a step
    most = max(counts.tolist(), default=0)
    sizes = (counts >= torch.arange(most + 1)[:, None]).sum(1)
    first = sizes.cumsum(0) - sizes  # first row of each step
    step = targets.cumsum(1) - targets.long()  # B×C  labels read before position j
    images, ranks = targets.nonzero(as_tuple=True)
    read = torch.empty_like(ranks)
    read[first[step[images, ranks] + 1] + place[images] - len(targets)] = ranks
    row = first[step] + place[:, None]
    image = torch.cat([order[:size] for size in sizes])
    return read, sizes, row, image


class HybridNet(nn.Module):
    """Images B×3×H×W uint8 RGB -> a distribution over label sets.

    arch: an encoder, see `encoder.build_encoder`; pretrained and image_size (S, for encoders that
    take one size only) are for it alone. stages: how many of its last stages are read. In most
    encoders the last one sees cells of 32 pixels, too coarse for small objects; each earlier one
    halves that.
    label_logits: C floats, the log-odds of each label's frequency in the training images: the
    start of b(I) and the prior of calibration.
    Raises ValueError for arguments that make no model. A checkpoint keeps those of `settings_of`.
    """

    def __init__(
        self,
        num_labels: int,
        arch: str = "resnet18",
        decoder: str = "chain",
        embed_size: int = 256,
        hidden_size: int = 256,
        stages: int = DEFAULT_STAGES,
        freeze_encoder: bool = False,
        label_logits: list[float] | None = None,
        pretrained: bool = False,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        _check("decoder", decoder, DECODERS)
        _check("embed_size", embed_size, SIZES)
        _check("hidden_size", hidden_size, SIZES)
        _check("stages", stages, range(1, NUM_STAGES + 1))
        self.encoder = build_encoder(arch, pretrained, image_size)
        _check("stages", stages, range(1, len(self.encoder.widths) + 1))
        self.stages = stages
        widths = self.encoder.widths[: -stages - 1 : -1]  # the last stage first
        self.classifier = nn.Conv2d(widths[0], num_labels, kernel_size=1)  # of the last stage
        # of the stages before it, the latest first; at zero they do not change b(I)
        self.stage_heads = nn.ModuleList(nn.Linear(w, num_labels, bias=False) for w in widths[1:])
        for head in self.stage_heads:
            nn.init.zeros_(head.weight)
        if decoder == "none":
            self.decoder = Decoder(num_labels)
        else:
            self.decoder = ChainDecoder(sum(widths), num_labels, embed_size, hidden_size, decoder)
        if label_logits is not None:
            for start in (self.classifier.bias.data, self.decoder.prior):
                start.copy_(torch.tensor(label_logits))
        self.freeze_encoder = freeze_encoder
        self.encoder.requires_grad_(not freeze_encoder)
        self.register_buffer("mean", 255 * torch.tensor(self.encoder.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(self.encoder.std).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> HybridNet:
        """A frozen encoder stays in test mode, or its BatchNorm statistics would change."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def encode(self, images: Tensor) -> Encoding:
        """Images B×3×H×W uint8 -> Encoding.

        Under autocast only the encoder and the class maps of its earlier stages use low precision.
        """
        device, dtype = images.device.type, self.mean.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)  # bfloat16 holds all 256 values exactly
        images = images.to(dtype, memory_format=torch.channels_last)
        # (images - mean) / std in one pass; written as arithmetic it takes two
        x = F.batch_norm(images, self.mean.flatten(), self.std.square().flatten(), eps=1e-12)
        stages = self.forward_features(x)
        with torch.autocast(device, enabled=False):
            return self.encode_features(stages)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Normalised images B×3×H×W -> features B×D×h×w of the stages read, the last one last."""
        return self.encoder(x)[-self.stages :]

    def encode_features(self, stages: list[Tensor]) -> Encoding:
        """Features B×D×h×w of the stages read, the last one last -> Encoding."""
        # B×h×w×D, the order in memory of channels_last; the last stage first, as the heads are
        places = [features.permute(0, 2, 3, 1) for features in reversed(stages)]
        weights = [self.classifier.weight.flatten(1), *(c.weight for c in self.stage_heads)]
        features = torch.cat([x.mean((1, 2), dtype=torch.float32) for x in places], dim=1)  # B×D
        # the mean of a class map is the logit of the mean features: this saves a pass over the map
        average = F.linear(features, torch.cat(weights, dim=1), self.classifier.bias)
        # The last stage's maps are exact: bfloat16 makes the set NLL on scenes 0.1 worse. The
        # earlier stages have 20 times as many places and keep the encoder's precision.
        places[0] = places[0].float()
        maps = [F.linear(x, w.to(x.dtype)) for x, w in zip(places, weights, strict=True)]
        return Encoding(
            self.decoder.embed_image(features),
            self.pool(average, maps),
            [m.permute(0, 3, 1, 2) for m in reversed(maps)],
        )

    def pool(self, average: Tensor, maps: list[Tensor]) -> Tensor:
        """Averages B×C and class maps B×h×w×C, which lack the bias -> logits B×C."""
        # max, not amax: the gradient of amax, which is shared between equal places, is slow
        highest = sum(m.flatten(1, 2).max(1).values.float() for m in maps) + self.classifier.bias
        return (average + highest) / 2

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """Logits B×C of each label, given the image and the true labels ranked before it."""
        with torch.autocast(encoding.cnn_logits.device.type, enabled=False):
            return self.decoder.set_logits(encoding, targets)

    def forward(
        self, images: Tensor, targets: Tensor, partial_nll: PartialNLL | None = None
    ) -> dict[str, Tensor]:
        """The training losses of images B×3×H×W uint8 and targets B×C: B nats each.

        set_nll   -log P(targets | image), with teacher forcing; trains the decoder
        cnn_bce   binary cross-entropy of b(I) alone; equals set_nll for `none`

        Targets are 1, 0 or NaN, for unknown: then `partial_nll` gives the set_nll of the batch (see
        inference/unknown.py), and cnn_bce has the known labels only. Keep targets on the CPU.
        """
        encoding, known = self.encode(images), None  # None: all
        if targets.isnan().any():
            set_nll = partial_nll(self, encoding, targets)
            known, targets = ~targets.isnan(), targets.nan_to_num(0)
        else:
            set_nll = bernoulli_nll(self.set_logits(encoding, targets), targets)
        return {"set_nll": set_nll, "cnn_bce": bernoulli_nll(encoding.cnn_logits, targets, known)}


def bernoulli_nll(logits: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy summed over the labels that are `counted`, or all: N×C -> N nats."""
    targets = targets.float().to(logits.device, non_blocking=True)
    nats = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (nats if counted is None else nats * counted.to(logits.device)).sum(1)


def settings_of(flags: Mapping[str, object]) -> dict[str, object]:
    """HybridNet's arguments that a checkpoint keeps, from `flags` or else their defaults.

    These are all but num_labels and label_logits, which the vocabulary gives, image_size, which the
    preprocessing gives, and pretrained.
    """
    elsewhere = ("num_labels", "label_logits", "image_size", "pretrained")
    parameters = inspect.signature(HybridNet).parameters.values()
    return {p.name: flags.get(p.name, p.default) for p in parameters if p.name not in elsewhere}


def _check(name: str, value: object, allowed: Sequence) -> None:
    if value not in allowed:
        values = f"{allowed[0]} to {allowed[-1]}" if type(allowed) is range else ", ".join(allowed)
        raise ValueError(f"{name} is {value!r}; possible are {values}")
