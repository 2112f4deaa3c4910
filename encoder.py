"""The encoder: an image network without its classifier, which turns images into feature maps.

    ResNetEncoder   torchvision's ResNets, the default
    TimmEncoder     any image network of the package timm (https://github.com/huggingface/pytorch-
                    image-models), e.g. tf_efficientnet_lite0, convnext_tiny, vit_small_patch16_224

To add another one, accept its name in `check_arch` and return it from `build_encoder`. It needs
`widths` (the number of channels D of each stage, the first stage first), `mean` and `std` (of the
pixels it expects, RGB in 0..1), a forward pass from normalised images B×3×S×S to a list with the
feature map B×D×h×w of each stage and, for --layer_decay, `layers()`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections import OrderedDict
from types import ModuleType

import torch
from torch import Tensor, nn

from util.amx_conv import use_matmul_convs
from util.depthwise_conv import use_fast_depthwise_convs
from util.distributed import stand_in
from util.errors import UsageError
from util.fetch import short_waits
from util.packages import install_command

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # of torchvision
NUM_STAGES = 4  # at most, of every encoder
MAX_TABLES = 2**31  # bytes of a network's own tables: some grow with the fourth power of S
TRIED: set[tuple[str, int]] = set()  # networks of timm that take images of this size
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, RGB in 0..1


def build_encoder(arch: str, pretrained: bool = False, image_size: int = 224) -> nn.Module:
    """The encoder with this name: one of ARCHS, or of timm's networks.

    pretrained: with ImageNet weights, fetched from the internet. image_size: S, for networks that
    take one size only. Raises ValueError if there is no such encoder, or if it takes no images of
    this size; OSError if the weights cannot be fetched.

    On torch's device "meta" it costs no memory. There a forward pass is tried, too.
    """
    check_arch(arch)
    kind = ResNetEncoder if arch in ARCHS else TimmEncoder
    with short_waits() if pretrained else contextlib.nullcontext():
        try:
            encoder = kind(arch, pretrained, image_size)
        except Exception as error:  # the errors of fetching have no common class
            if not pretrained or isinstance(error, ValueError):
                raise
            reason = str(getattr(error, "reason", error)).strip()
            raise OSError(re.split(r"\n|\. ", reason)[0][:200]) from error
    return use_fast_depthwise_convs(use_matmul_convs(encoder))


class ResNetEncoder(nn.Sequential):
    """A torchvision ResNet. Each of its four stages halves the image, to cells of 32 pixels."""

    mean, std = MEAN, STD

    def __init__(self, arch: str, pretrained: bool, image_size: int) -> None:
        import torchvision  # imported here: it takes as long as torch, and --help does not need it

        resnet = getattr(torchvision.models, arch)(weights="DEFAULT" if pretrained else None)
        # maxpool before relu gives the same features as the paper's order, at a quarter of relu's
        # cost
        names = ("conv1", "bn1", "maxpool", "relu", "layer1", "layer2", "layer3", "layer4")
        super().__init__(OrderedDict((name, getattr(resnet, name)) for name in names))
        d = resnet.fc.in_features
        self.widths = [d // 8, d // 4, d // 2, d]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images B×3×H×W -> feature maps B×D×h×w of the four stages."""
        stages = []
        for name, part in self.named_children():
            x = part(x)
            if name.startswith("layer"):
                stages.append(x)
        return stages

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of the first convolution, then of each residual block."""
        blocks = [block for n, part in self.named_children() if "layer" in n for block in part]
        first = [*self.conv1.parameters(), *self.bn1.parameters()]
        return [first, *(list(block.parameters()) for block in blocks)]


class TimmEncoder(nn.Module):
    """A network of timm. Its stages are the last NUM_STAGES at which the image gets smaller.

    In a network of one scale, such as a ViT, they are NUM_STAGES blocks at equal distances. The
    last stage is what the network's own classifier would pool, so it has the final layers, too.
    """

    def __init__(self, arch: str, pretrained: bool, image_size: int) -> None:
        super().__init__()
        timm = import_timm(arch)
        self.net = create_net(timm, arch, pretrained, image_size)
        places = choose_stages([info["reduction"] for info in self.net.feature_info])
        self.indices = places
        self.widths = [self.net.feature_info[i]["num_chs"] for i in places[:-1]]
        self.widths.append(self.net.num_features)
        config = timm.data.resolve_model_data_config(self.net)
        self.mean, self.std = config["mean"], config["std"]
        if next(self.parameters()).is_meta and (arch, image_size) not in TRIED:
            self.try_images(arch, image_size)
            TRIED.add((arch, image_size))

    def train(self, mode: bool = True) -> TimmEncoder:
        """As in every module; also drops what the network has computed from earlier weights.

        Some networks keep such values while they are tested, and drop them in train(True) only.
        """
        super().train(True)
        return super().train(mode)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images B×3×S×S -> feature maps B×D×h×w of the stages."""
        if x.shape[0] == 0:  # many networks cannot reshape a batch without images
            with stand_in():
                return [stage[:0] for stage in self(x.new_zeros(1, *x.shape[1:]))]
        final, stages = self.net.forward_intermediates(x, indices=self.indices, output_fmt="NCHW")
        return [*stages[:-1], self.as_map(final, stages[-1])]

    def try_images(self, arch: str, image_size: int) -> None:
        """Raise ValueError if the network cannot encode images of this size; on the device meta."""
        tables = sum(table.numel() * table.element_size() for table in self.buffers())
        if tables > MAX_TABLES:
            reason = f"its tables take {tables / 1e9:.0f} GB"
            raise ValueError(_misfit(arch, image_size, reason))
        if any(isinstance(part, nn.LSTM) for part in self.modules()):
            return  # takes minutes on this device
        x = torch.empty(2, 3, image_size, image_size, device="meta")
        try:
            with torch.no_grad():
                maps = self(x.contiguous(memory_format=torch.channels_last))
        except Exception as error:  # the networks' errors have no common class
            raise ValueError(_misfit(arch, image_size, error)) from None
        if [m.shape[:2] for m in maps] != [(2, width) for width in self.widths]:
            raise ValueError(_misfit(arch, image_size, "its feature maps have other channels"))

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer, from the image on; timm says what a layer is.

        Raises UsageError for the few networks of which it does not.
        """
        if not hasattr(self.net, "group_matcher"):
            name = type(self.net).__name__
            raise UsageError(f"--layer_decay: timm does not say what the layers of a {name} are")
        group = import_timm("").models.group_parameters
        names = group(self.net, self.net.group_matcher(coarse=False))
        of_name = dict(self.net.named_parameters())
        return [[of_name[n] for n in names[key] if n in of_name] for key in sorted(names)]

    def as_map(self, final: Tensor, last: Tensor) -> Tensor:
        """The network's final features as a map B×D×h×w.

        final: B×D×h×w, B×h×w×D or B×tokens×D, by the kind of network. last: the map B×D'×h×w
        before the final layers.
        """
        height, width = last.shape[2:]
        if not isinstance(final, Tensor):
            raise ValueError("it has several final feature maps")
        if final.ndim == 4:
            last_is_channels = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
            return final.permute(0, 3, 1, 2) if last_is_channels else final
        tokens = final[:, -height * width :]  # class tokens come first
        if tokens.shape[1] < height * width:  # only class tokens
            return last
        return tokens.transpose(1, 2).unflatten(2, (height, width))


def create_net(timm: ModuleType, arch: str, pretrained: bool, image_size: int) -> nn.Module:
    """The network without its classifier. Raises ValueError as `build_encoder` does."""
    config = timm.get_pretrained_cfg(arch)
    if pretrained and not config.has_weights:
        raise ValueError(f"pretrained: timm has no weights of {arch}")
    size = {"img_size": image_size} if config.fixed_input_size else {}
    try:
        net = timm.create_model(arch, pretrained=pretrained, num_classes=0, **size)
    except Exception as error:  # the networks' errors have no common class
        if not pretrained:
            raise ValueError(_misfit(arch, image_size, error)) from None
        if "loading state_dict" in str(error):
            what = f"timm's weights of {arch} are not for images of {image_size} pixels"
            raise ValueError(f"pretrained: {what}") from None
        raise
    if not hasattr(net, "forward_intermediates"):
        raise ValueError(f"arch {arch} gives no feature maps in timm {timm.__version__}")
    for part in net.modules():
        if type(part).__name__ == "DropPath":  # a run would depend on the number of processes
            part.drop_prob = 0.0
    return net


def _misfit(arch: str, image_size: int, reason: object) -> str:
    """The sentence on a network that cannot be used. reason: an error, or a phrase."""
    own = import_timm(arch).get_pretrained_cfg(arch).input_size[-1]
    hint = f"; it was made for {own} pixels" if own != image_size else ""
    reason = _first_line(reason)
    return f"arch {arch} cannot encode images of {image_size} pixels ({reason}){hint}"


def _first_line(reason: object) -> str:
    """What an error says, in at most 200 characters."""
    return str(reason).strip().partition("\n")[0][:200] or type(reason).__name__


def choose_stages(reductions: list[int]) -> list[int]:
    """Which feature maps are the stages, by their cells' sizes in pixels: at most NUM_STAGES."""
    last = [i for i, size in enumerate(reductions) if size not in reductions[i + 1 :]]
    if len(last) < NUM_STAGES - 1:
        n = len(reductions)
        last = sorted({n * k // NUM_STAGES - 1 for k in range(1, NUM_STAGES + 1)} - {-1})
    return last[-NUM_STAGES:]


def check_arch(arch: str) -> None:
    """Raise ValueError if no encoder has this name."""
    if arch in ARCHS:
        return
    timm = import_timm(arch)
    # only names that the package lists: "hf-hub:..." and "local-dir:..." would fetch or read a
    # file, and a checkpoint from a stranger could name one
    names = [*ARCHS, *(timm.list_pretrained() if "." in arch else timm.list_models())]
    if arch not in names:
        near = difflib.get_close_matches(arch[:60], names, n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise ValueError(
            f"arch is {arch[:60]!r}; possible are {', '.join(ARCHS)} and timm's networks{hint}"
        )


def import_timm(arch: str) -> ModuleType:
    """The package timm, imported only here: it is optional. Raises ValueError if it is missing."""
    try:
        import timm
        import timm.data
    except ImportError:
        raise ValueError(
            f"arch is {arch[:60]!r}; possible are {', '.join(ARCHS)}, and more with the package "
            f"timm: {install_command('timm')}"
        ) from None
    return timm


def weights_licence(arch: str) -> str | None:
    """The licence of the ImageNet weights that timm offers for this network, if it states one."""
    if arch in ARCHS:
        return None
    return import_timm(arch).get_pretrained_cfg(arch).license or None


def is_noncommercial(licence: str) -> bool:
    """Whether a licence forbids commercial use, by its name, such as cc-by-nc-4.0."""
    return bool(re.search(r"\bnc\b|non-?commercial", licence, re.IGNORECASE))
