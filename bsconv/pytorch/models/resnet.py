"""ResNets, pre-activation ResNets and wide ResNets, for ImageNet and for CIFAR."""

from collections import OrderedDict
from functools import partial
from typing import Any

from torch import Tensor, nn

from ._blocks import ConvBlock, ConvLayer, ImageClassifier, add_stages, relu
from ._names import ModelName

BARE: dict[str, Any] = {"norm": False, "activation": None}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, added to a shortcut; a ReLU follows the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, conv: ConvLayer) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels, out_channels, 3, stride, conv=conv)
        self.conv2 = ConvBlock(out_channels, out_channels, 3, conv=conv, activation=None)
        self.projection: ConvBlock | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = ConvBlock(in_channels, out_channels, 1, stride, activation=None)
        self.relu = relu()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.projection is None else self.projection(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU come before each of two 3x3 convolutions; nothing follows the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, conv: ConvLayer) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = relu()
        self.conv1 = ConvBlock(in_channels, out_channels, 3, stride, conv=conv)
        self.conv2 = ConvBlock(out_channels, out_channels, 3, conv=conv, **BARE)
        self.projection: ConvBlock | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = ConvBlock(in_channels, out_channels, 1, stride, **BARE)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return self.conv2(self.conv1(activated)) + shortcut


def resnet(name: ModelName, num_classes: int, conv: ConvLayer) -> ImageClassifier:
    """The residual network called ``name``; ``conv`` makes its 3x3 convolutions.

    The 7x7 stem, the shortcuts and the classifier are dense. The width multiplies the stages'
    channels, not the stem's. Images of at least 32 pixels a side (CIFAR style: 4).
    """
    block = partial(PreActivationBlock if name.is_preactivated else ResidualBlock, conv=conv)
    channels = 16 if name.is_cifar else 64
    stages = [
        (2 if index else 1, [(int(name.width) * channels * 2**index, block)] * count)
        for index, count in enumerate(name.blocks)
    ]
    stem = nn.Sequential()
    if name.is_cifar:
        bare = BARE if name.is_preactivated else {}
        stem.conv = ConvBlock(3, channels, 3, conv=conv, **bare)
    else:
        stem.conv, stem.pool = ConvBlock(3, channels, 7, stride=2), nn.MaxPool2d(3, 2, padding=1)
    backbone = nn.Sequential(OrderedDict(data_bn=nn.BatchNorm2d(3), init_unit=stem))
    channels = add_stages(backbone, channels, stages)
    if name.is_preactivated:
        after = OrderedDict(bn=nn.BatchNorm2d(channels), relu=relu())
        backbone.add_module("final_activation", nn.Sequential(after))
    return ImageClassifier(backbone, channels, num_classes)
