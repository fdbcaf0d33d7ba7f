"""MobileNetV1, V2 and V3, for ImageNet and for CIFAR, and their BSConv forms (paper, section 4).

Each network is a table; one builder reads them all.
"""

from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from ..initialization import dense_conv
from ..modules import bsconv_u
from ..regularization import OrthonormalConv2d
from ._blocks import Block, ConvBlock, ConvLayer, ImageClassifier, Stage, add_stages, relu
from ._names import LEAST_WIDTHS, ModelName

Activation = Callable[[], nn.Module]
relu6 = partial(nn.ReLU6, inplace=True)
hard_swish = partial(nn.Hardswish, inplace=True)
penalised_conv = partial(dense_conv, conv_class=OrthonormalConv2d)


class SqueezeExcite(nn.Module):
    """Scales each channel by a number in [0, 1] read from the means of all (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // 4
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = dense_conv(channels, reduced, 1)
        self.activation1 = nn.ReLU(inplace=True)
        self.conv2 = dense_conv(reduced, channels, 1)
        self.activation2 = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.activation1(self.conv1(self.pool(x)))
        return x * self.activation2(self.conv2(reduced))


class DepthwiseSeparableBlock(nn.Sequential):
    """Depthwise 3x3, then pointwise, each with BatchNorm and ReLU: a block of MobileNetV1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = ConvBlock(in_channels, in_channels, 3, stride, groups=in_channels)
        self.conv_pw = ConvBlock(in_channels, out_channels, 1)


def blueprint_block(
    in_channels: int, out_channels: int, stride: int, *, conv: ConvLayer = bsconv_u
) -> nn.Sequential:
    """BSConv-U, then one BatchNorm and ReLU: what the V1 block becomes (paper, section 4.1)."""
    layer = conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class LinearBottleneck(nn.Module):
    """Pointwise expansion, depthwise, linear pointwise projection: a block of MobileNetV2 and V3.

    The input is added where the shape stays.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        expanded: int,
        kernel_size: int,
        activation: Activation,
        squeeze_excite: bool,
        projection_conv: ConvLayer,
    ) -> None:
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv1 = ConvBlock(in_channels, expanded, 1, activation=activation)
        self.conv2 = ConvBlock(
            expanded, expanded, kernel_size, stride, groups=expanded, activation=activation
        )
        self.se_unit = SqueezeExcite(expanded) if squeeze_excite else None
        self.conv3 = ConvBlock(expanded, out_channels, 1, conv=projection_conv, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv2(self.conv1(x))
        if self.se_unit is not None:
            features = self.se_unit(features)
        features = self.conv3(features)
        return x + features if self.has_skip else features


class StageTable(NamedTuple):
    """One stage at width 1; a row is a block's output and expanded channels (V1: output twice)."""

    rows: tuple[tuple[int, int], ...]
    stride: int
    cifar_stride: int
    kernel_size: int = 3
    activation: Activation | None = None  # None: that of the network
    squeezed: int = 0  # so many of the last blocks squeeze and excite


class MobileNetTable(NamedTuple):
    """A family at width 1."""

    stem: int
    activation: Activation
    stages: tuple[StageTable, ...]
    last: int = 0  # channels of the convolution behind the stages; 0: there is none


V1 = MobileNetTable(stem=32, activation=relu, stages=(
    StageTable(((64, 64),), 1, 1),
    StageTable(((128, 128),) * 2, 2, 1),
    StageTable(((256, 256),) * 2, 2, 2),
    StageTable(((512, 512),) * 6, 2, 2),
    StageTable(((1024, 1024),) * 2, 2, 2),
))  # fmt: skip
V2 = MobileNetTable(stem=32, activation=relu6, last=1280, stages=(
    StageTable(((16, 32),), 1, 1),
    StageTable(((24, 96), (24, 144)), 2, 1),
    StageTable(((32, 144), (32, 192), (32, 192)), 2, 2),
    StageTable(((64, 192), *((64, 384),) * 3, (96, 384), *((96, 576),) * 2), 2, 2),
    StageTable(((160, 576), *((160, 960),) * 2, (320, 960)), 2, 2),
))  # fmt: skip
V3_SMALL = MobileNetTable(stem=16, activation=hard_swish, last=576, stages=(
    StageTable(((16, 16),), 2, 1, activation=relu, squeezed=1),
    StageTable(((24, 72), (24, 88)), 2, 2, activation=relu),
    StageTable(((40, 96), (40, 240), (40, 240), (48, 120), (48, 144)), 2, 2, 5, squeezed=5),
    StageTable(((96, 288), (96, 576), (96, 576)), 2, 2, 5, squeezed=3),
))  # fmt: skip
V3_LARGE = MobileNetTable(stem=16, activation=hard_swish, last=960, stages=(
    StageTable(((16, 16),), 1, 1, activation=relu),
    StageTable(((24, 64), (24, 72)), 2, 1, activation=relu),
    StageTable(((40, 72), (40, 120), (40, 120)), 2, 2, 5, activation=relu, squeezed=3),
    StageTable(((80, 240), (80, 200), *((80, 184),) * 2, (112, 480), (112, 672)), 2, 2, squeezed=2),
    StageTable(((160, 672), (160, 960), (160, 960)), 2, 2, 5, squeezed=3),
))  # fmt: skip
TABLES = dict(zip(LEAST_WIDTHS, (V1, V2, V3_SMALL, V3_LARGE), strict=True))


def mobilenet(name: ModelName, num_classes: int, conv: ConvLayer) -> ImageClassifier:
    """The network called ``name``, its channels scaled by the width and rounded down.

    ``conv`` makes the BSConv layers of V1. The BSConv form of V2 and V3 penalises the projecting
    convolutions. Images of at least 32 pixels a side (CIFAR style: 8).
    """
    table, width = TABLES[name.family], name.width
    separable = partial(blueprint_block, conv=conv) if name.variant else DepthwiseSeparableBlock
    stages: list[Stage] = []
    for stage in table.stages:
        bottleneck = partial(
            LinearBottleneck,
            kernel_size=stage.kernel_size,
            activation=stage.activation or table.activation,
            projection_conv=penalised_conv if name.variant else dense_conv,
        )
        blocks: list[Block] = []
        for row, (channels, expanded) in enumerate(stage.rows, start=1 - len(stage.rows)):
            options = {"expanded": int(expanded * width), "squeeze_excite": row > -stage.squeezed}
            make = separable if table is V1 else partial(bottleneck, **options)
            blocks.append((int(channels * width), make))
        stages.append((stage.cifar_stride if name.is_cifar else stage.stride, blocks))
    channels = int(table.stem * width)
    stem = ConvBlock(3, channels, 3, 1 if name.is_cifar else 2, activation=table.activation)
    backbone = nn.Sequential(OrderedDict(data_bn=nn.BatchNorm2d(3), init_conv=stem))
    channels = add_stages(backbone, channels, stages)
    if table.last:
        last = int(table.last * max(width, Fraction(1)))  # grows, but never shrinks
        final = ConvBlock(channels, last, 1, activation=table.activation)
        backbone.add_module("final_conv" if table is V2 else "final_conv1", final)
        channels = last
    if table is V3_SMALL:
        backbone.add_module("final_se", SqueezeExcite(channels))
    return ImageClassifier(backbone, channels, num_classes)
