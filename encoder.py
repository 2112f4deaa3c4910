"""The encoder: the part of a torchvision network that turns images into feature maps.

To add one, put its name in ARCHS and let `build_encoder` return its layers and the widths of four
stages.
"""

from __future__ import annotations

from collections import OrderedDict

import torchvision
from torch import nn

from util.amx_conv import use_matmul_convs

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NUM_STAGES = 4  # of every encoder


def build_encoder(arch: str, pretrained: bool) -> tuple[nn.Sequential, dict[str, int]]:
    """The encoder, and the width D of each of its NUM_STAGES stages, the first stage first.

    A stage is named after the part of the encoder that ends it. Each stage halves the image once
    more, the last one to cells of 32 pixels.
    """
    resnet = getattr(torchvision.models, arch)(weights="DEFAULT" if pretrained else None)
    # maxpool before relu gives the same features as the paper's order, at a quarter of relu's cost
    names = ("conv1", "bn1", "maxpool", "relu", "layer1", "layer2", "layer3", "layer4")
    encoder = nn.Sequential(OrderedDict((name, getattr(resnet, name)) for name in names))
    d = resnet.fc.in_features
    widths = {"layer1": d // 8, "layer2": d // 4, "layer3": d // 2, "layer4": d}
    return use_matmul_convs(encoder), widths
