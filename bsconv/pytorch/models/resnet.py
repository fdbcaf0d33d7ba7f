"""ResNets, pre-activation ResNets and wide ResNets, for ImageNet and for CIFAR."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..initialization import dense_conv
from ._blocks import Block, ConvBlock, ConvLayer, ImageClassifier, Stage, add_stages, relu


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
        bare: dict[str, Any] = {"norm": False, "activation": None}
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = relu()
        self.conv1 = ConvBlock(in_channels, out_channels, 3, stride, conv=conv)
        self.conv2 = ConvBlock(out_channels, out_channels, 3, conv=conv, **bare)
        self.projection: ConvBlock | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = ConvBlock(in_channels, out_channels, 1, stride, **bare)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return self.conv2(self.conv1(activated)) + shortcut


def resnet(
    blocks: Sequence[int],
    num_classes: int,
    *,
    cifar: bool,
    preactivated: bool = False,
    width: int = 1,
    conv: ConvLayer = dense_conv,
) -> ImageClassifier:
    """A residual network with ``blocks[i]`` blocks in stage i.

    ``conv`` makes the 3x3 convolutions; the 7x7 stem, the shortcuts and the classifier are dense.
    ``width`` multiplies the stages' channels, not the stem's. Images of any size of at least 32
    pixels (ImageNet style) or 4 (CIFAR style).
    """
    block = partial(PreActivationBlock if preactivated else ResidualBlock, conv=conv)
    channels = 16 if cifar else 64
    stages = [
        Stage(2 if index else 1, [Block(width * channels * 2**index, block)] * count)
        for index, count in enumerate(blocks)
    ]
    stem = _stem(channels, cifar, preactivated, conv)
    backbone = nn.Sequential(OrderedDict(data_bn=nn.BatchNorm2d(3), init_unit=stem))
    channels = add_stages(backbone, channels, stages)
    if preactivated:
        norm = nn.BatchNorm2d(channels)
        after = nn.Sequential(OrderedDict(bn=norm, relu=relu()))
        backbone.add_module("final_activation", after)
    backbone.add_module("global_pool", nn.AdaptiveAvgPool2d(1))
    return ImageClassifier(backbone, channels, num_classes)


def _stem(channels: int, cifar: bool, preactivated: bool, conv: ConvLayer) -> nn.Sequential:
    if cifar:
        after: dict[str, Any] = {"norm": False, "activation": None} if preactivated else {}
        return nn.Sequential(OrderedDict(conv=ConvBlock(3, channels, 3, conv=conv, **after)))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(conv=ConvBlock(3, channels, 7, stride=2), pool=pool))
