"""HybridNet: a ResNet sees, an LSTM remembers the labels said so far, both meet in one space.

    I    = features of the ResNet's last stages, averaged           B×D
    b(I) = the CNN's own class scores: average + max over places    B×C
           of each of these stages' class maps, added up
    o_t  = LSTM(label_1 … label_t)                                  B×H   labels in frequency order
    x_t  = tanh(U_o o_t + U_I I)                                    B×E   joint image-label space
    s_t  = U_l x_t + b(I)                                           B×C   U_l also feeds the LSTM

(Wang et al., CNN-RNN, CVPR 2016, equations 4-6; b(I) and the links below are ours.)

Labels come most frequent first, so a set has exactly one sequence:

    {dog, person}  ->  person dog END  ->  ranks 0, 15, END

and the decoder is a normalised distribution over all 2^C sets. Whatever the link, it is a
classifier chain: given the true labels ranked before j, label j is on the image with log-odds
z_j, and -log P(set | image) is a sum of C binary cross-entropies. The links differ in z:

    chain    z_j = s_j                                     each score is a log-odds
    softmax  z_j = s_j - log(sum_{k>j} exp s_k + exp s_END)

The second is the classic decoder: softmax over {labels after the last one, END}. The chance to
stop at j having come past everything before j is a ratio in which the labels already passed
cancel, so one line turns the softmax into a chain, and every algorithm serves both.

Trained, every log-odds becomes z / T + w p: T the temperature (Guo et al., ICML 2017), p the
log-odds of the label's share of the training images. T and w are fitted to images that the network
did not learn from, so that what it says of a label comes true as often as it says; what a small
data set made it too sure of is drawn towards the label's own rate, where T alone draws to 1/2.

U_o and U_I start at zero: with `chain`, training begins at the independent CNN classifier
(`none`), and the decoder only ever adds to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from util.amx_conv import use_matmul_convs

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
DECODERS = ("chain", "softmax", "none")
# relu before maxpool, as in the paper, would be the same on four times as many numbers
ENCODER_PARTS = ("conv1", "bn1", "maxpool", "relu", "layer1", "layer2", "layer3", "layer4")
NUM_STAGES = 4  # of a ResNet: layer1 to layer4
DEFAULT_STAGES = 3  # unless train.py is told otherwise


@dataclass(frozen=True)
class Encoding:
    """All that decoding needs of a batch of images; computed once, however much is asked."""

    image_embedding: Tensor  # B×E  U_I I, the images in the joint space
    cnn_logits: Tensor  # B×C  b(I)
    class_maps: list[Tensor]  # B×C×h×w of each stage, finest first: where b(I) - bias comes from

    def __len__(self) -> int:
        return len(self.cnn_logits)

    def class_activation_map(self, image: int) -> Tensor:
        """C×h×w: the stages' maps of one image added up on the finest grid."""
        size = self.class_maps[0].shape[2:]
        maps = [maps[image, None].float() for maps in self.class_maps]
        return sum(F.interpolate(m, size, mode="bilinear") for m in maps)[0]


class Decoder(nn.Module):
    """What all decoders share: how log-odds are calibrated.

    prior: C, log-odds of each label's training frequency, from the vocabulary (HybridNet fills it).
    temperature, prior_weight: 1 and 0 in training, then fitted, see `epochs.calibrate`.
    """

    temperature, prior_weight = 1.0, 0.0

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(num_labels), persistent=False)

    def calibrated(self, z: Tensor) -> Tensor:
        """Log-odds as trained, N×C -> as they come true."""
        return z / self.temperature + self.prior_weight * self.prior


class ChainDecoder(Decoder):
    """LSTM over the labels said so far; `link` is 'chain' or 'softmax'."""

    def __init__(
        self, image_features: int, num_labels: int, embed_size: int, hidden_size: int, link: str
    ) -> None:
        super().__init__(num_labels)
        self.num_labels, self.hidden_size, self.link = num_labels, hidden_size, link
        num_tokens = num_labels + (link == "softmax")  # the chain needs no END: it is all-noes
        self.label_embedding = nn.Parameter(torch.randn(num_tokens, embed_size) * embed_size**-0.5)
        self.lstm = nn.LSTM(embed_size, hidden_size, batch_first=True)
        self.project_output = nn.Linear(hidden_size, embed_size, bias=False)  # U_o
        self.project_image = nn.Linear(image_features, embed_size)  # U_I
        for projection in (self.project_output, self.project_image):
            for parameter in projection.parameters():
                nn.init.zeros_(parameter)

    def embed_image(self, features: Tensor) -> Tensor:
        """Pooled features B×D -> B×E, the image in the joint space."""
        return self.project_image(features)

    def initial_state(self, num_rows: int) -> tuple[Tensor, Tensor]:
        """Hidden and cell state, each N×H, before any label."""
        zeros = self.label_embedding.new_zeros(num_rows, self.hidden_size)
        return zeros, zeros

    def advance(self, state: tuple[Tensor, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """States N×H after one more label each; labels N (ranks)."""
        # for one step the cell is many times quicker than nn.LSTM, which repacks its weights
        return torch.lstm_cell(self.label_embedding[labels], state, *self.lstm.all_weights[0])

    def logits(self, hidden: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        """z, N×C: entry j is the log-odds of label j given exactly the labels read so far.

        Only entries ranked after the last label read have a meaning. N×H, N×E, N×C -> N×C.
        """
        x = torch.tanh(self.project_output(hidden) + image_embedding)  # N×E
        scores = x @ self.label_embedding[: self.num_labels].T + cnn_logits  # N×C
        if self.link == "chain":
            return self.calibrated(scores)
        end = x @ self.label_embedding[self.num_labels :].T  # N×1
        later = torch.cat([scores[:, 1:], end], dim=1)  # N×C  what may come instead of label j
        return self.calibrated(scores - later.flip(1).logcumsumexp(1).flip(1))

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """z under teacher forcing, B×C: entry j is conditioned on the true labels ranked before j.

        Every label is read once and every reachable step scored once: nothing is spent on padding.
        A row is a step of an image, M = sum(counts + 1) in all, in the order in which an LSTM
        reads packed sequences: everyone's first step, then the second of all who have one, …
        """
        device = encoding.cnn_logits.device
        targets = targets.cpu().bool()  # to count rows on a GPU is to wait for all its work
        counts = targets.sum(1)  # B  labels per image
        order = counts.argsort(descending=True)
        place = order.argsort()  # B  of an image among the rows of a step
        most = max(counts.tolist(), default=0)
        sizes = (counts >= torch.arange(most + 1)[:, None]).sum(1)  # rows per step
        first = sizes.cumsum(0) - sizes  # row where each step begins
        step = targets.cumsum(1) - targets.long()  # B×C  labels read before position j
        row = first[step] + place[:, None]  # B×C  that decides on label j
        image = torch.cat([order[:size] for size in sizes])  # M

        hidden = self.label_embedding.new_zeros(len(targets), self.hidden_size)
        if len(sizes) > 1:
            rows, ranks = targets.nonzero(as_tuple=True)
            read = torch.empty_like(ranks)  # in the order of the rows that follow from reading
            read[first[step[rows, ranks] + 1] + place[rows] - len(targets)] = ranks
            labels = self.label_embedding[read.to(device, non_blocking=True)]
            hidden = torch.cat([hidden, self.lstm(PackedSequence(labels, sizes[1:]))[0].data])
        row, image = (index.to(device, non_blocking=True) for index in (row, image))
        return self.logits(
            hidden, encoding.image_embedding[image], encoding.cnn_logits[image]
        ).gather(0, row)


class IndependentDecoder(Decoder):
    """The control: no memory, z = b(I). Trained with it, HybridNet is a plain CNN classifier."""

    def embed_image(self, features: Tensor) -> Tensor:
        """B×0: there is no joint space."""
        return self.prior.new_empty(len(features), 0)

    def initial_state(self, num_rows: int) -> tuple[Tensor, Tensor]:
        """An empty state, so that decoding needs no special case."""
        empty = self.prior.new_empty(num_rows, 0)
        return empty, empty

    def advance(self, state: tuple[Tensor, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels leave no trace."""
        return self.initial_state(len(labels))

    def logits(self, hidden: Tensor, image_embedding: Tensor, cnn_logits: Tensor) -> Tensor:
        """N×C, whatever has been read."""
        return self.calibrated(cnn_logits)

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """B×C, whatever the true labels are."""
        return self.calibrated(encoding.cnn_logits)


class HybridNet(nn.Module):
    """images B×3×H×W uint8 (RGB) -> distribution over label sets.

    mean, std: per-channel statistics in units of 0..1; they are applied inside the model, so
    training and test can never differ in them.
    label_logits: C floats, log-odds of each label's training frequency: where b(I) starts, and
    what calibrated log-odds are drawn to.
    stages: how many of the ResNet's last stages are read, 1 to 4. The last one alone sees a picture
    in cells of 32 pixels, which is too coarse for small things; each one before halves that.
    (A checkpoint that does not say is of the time when it was 1.)
    """

    def __init__(
        self,
        arch: str,
        num_labels: int,
        decoder: str = "chain",
        embed_size: int = 256,
        hidden_size: int = 256,
        freeze_encoder: bool = False,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        label_logits: list[float] | None = None,
        pretrained: bool = False,
        stages: int = 1,
    ) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, arch)(weights="DEFAULT" if pretrained else None)
        parts = OrderedDict((part, getattr(resnet, part)) for part in ENCODER_PARTS)
        self.encoder = use_matmul_convs(nn.Sequential(parts))
        # each stage is twice as wide as the one before
        widths = [resnet.fc.in_features // 2**k for k in range(stages)]
        self.classifier = nn.Conv2d(widths[0], num_labels, kernel_size=1)
        # of the stages before the last, the latest first; they begin with nothing to say
        self.stage_heads = nn.ModuleList(nn.Linear(w, num_labels, bias=False) for w in widths[1:])
        for classifier in self.stage_heads:
            nn.init.zeros_(classifier.weight)
        image_features = sum(widths)  # D
        if decoder == "none":
            self.decoder = IndependentDecoder(num_labels)
        else:
            self.decoder = ChainDecoder(
                image_features, num_labels, embed_size, hidden_size, decoder
            )
        if label_logits is not None:
            for start in (self.classifier.bias.data, self.decoder.prior):
                start.copy_(torch.tensor(label_logits))
        self.freeze_encoder = freeze_encoder
        self.encoder.requires_grad_(not freeze_encoder)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> HybridNet:
        """A frozen encoder stays in test mode, or its BatchNorm statistics would drift."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def encode(self, images: Tensor) -> Encoding:
        """images B×3×H×W uint8 -> Encoding.

        Under autocast the ResNet and the earlier stages' maps are in low precision, no more.
        """
        device, dtype = images.device.type, self.mean.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)  # in which all 256 values are exact
        images = images.to(dtype, memory_format=torch.channels_last)
        # (images - mean) / std in one pass over them, where arithmetic takes one for each step
        x = F.batch_norm(images, self.mean.flatten(), self.std.square().flatten(), eps=1e-12)
        stages = self.forward_features(x)
        with torch.autocast(device, enabled=False):
            return self.encode_features(stages)

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Normalised images B×3×H×W -> features B×D×h×w of the stages read, the last one last."""
        read, stages = ENCODER_PARTS[-1 - len(self.stage_heads) :], []
        for name, part in self.encoder.named_children():
            x = part(x)
            if name in read:
                stages.append(x)
        return stages

    def encode_features(self, stages: list[Tensor]) -> Encoding:
        """The features B×D×h×w of the ResNet's last stages, the last one last -> Encoding."""
        # B×h×w×D, as channels_last has them in memory; the latest stage first, as the classifiers
        places = [features.permute(0, 2, 3, 1) for features in reversed(stages)]
        weights = [self.classifier.weight.flatten(1), *(c.weight for c in self.stage_heads)]
        features = torch.cat([x.mean((1, 2), dtype=torch.float32) for x in places], dim=1)  # B×D
        # what class maps average to are the scores of the averaged features: a pass less over them
        average = F.linear(features, torch.cat(weights, dim=1), self.classifier.bias)
        # The last stage's maps exact: in bfloat16 the scenes' set NLL is 0.1 worse. The earlier
        # ones, 20 times as many places, are in the ResNet's precision.
        places[0] = places[0].float()
        maps = [F.linear(x, w.to(x.dtype)) for x, w in zip(places, weights, strict=True)]
        return Encoding(
            self.decoder.embed_image(features),
            self.pool(average, maps),
            [m.permute(0, 3, 1, 2) for m in reversed(maps)],
        )

    def pool(self, average: Tensor, maps: list[Tensor]) -> Tensor:
        """Averages B×C and the stages' class maps B×h×w×C, which lack the bias -> scores B×C."""
        # amax, whose gradient is shared, is slow
        highest = sum(m.flatten(1, 2).max(1).values.float() for m in maps) + self.classifier.bias
        return (average + highest) / 2

    def set_logits(self, encoding: Encoding, targets: Tensor) -> Tensor:
        """B×C log-odds of each label given the image and the true labels ranked before it."""
        with torch.autocast(encoding.cnn_logits.device.type, enabled=False):
            return self.decoder.set_logits(encoding, targets)

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Teacher-forced losses in nats per image, each B.

        set_nll   -log P(targets | image): what the decoder is trained on
        cnn_bce   summed binary cross-entropy of b(I) alone (equal to set_nll for `none`)

        Targets that are still on the CPU spare a GPU the wait for them to be counted.
        """
        encoding = self.encode(images)
        z = self.set_logits(encoding, targets)
        targets = targets.to(images.device, non_blocking=True)
        return {
            "set_nll": bernoulli_nll(z, targets),
            "cnn_bce": bernoulli_nll(encoding.cnn_logits, targets),
        }


def bernoulli_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed over labels: N×C, N×C -> N nats."""
    return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").sum(1)


def load_encoder_weights(
    encoder: nn.Module, state: Mapping[str, Tensor]
) -> tuple[list[str], list[str]]:
    """Copy what `state` (torchvision's names, whole or partial) has; return loaded, missing names.

    Raises ValueError when a shape differs or no name fits; then nothing has been copied.
    """
    own = encoder.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own}
    if not fitting:
        raise ValueError("none of its tensors has the name of a ResNet tensor")
    for name, tensor in fitting.items():
        if tensor.shape != own[name].shape:
            here, there = tuple(own[name].shape), tuple(tensor.shape)
            raise ValueError(f"{name} has shape {there}, but --arch needs {here}")
    encoder.load_state_dict(fitting, strict=False)
    return list(fitting), [name for name in own if name not in fitting]


def settings_of(flags: Mapping[str, object]) -> dict[str, object]:
    import inspect

    elsewhere = ("num_labels", "label_logits", "pretrained")
    parameters = inspect.signature(HybridNet).parameters.values()
    return {
        p.name: flags.get(p.name, p.default)
        for p in parameters
        if p.name not in (*elsewhere, "mean", "std")
    }
