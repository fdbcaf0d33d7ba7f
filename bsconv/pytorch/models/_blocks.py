"""What the networks are made of. Child names are those of the published checkpoints."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..initialization import dense_conv, uninitialized
from ..regularization import BSConvS_ModelRegLossMixin

ConvLayer = Callable[..., nn.Module]
"""Makes a convolution from what ``torch.nn.Conv2d`` takes; injected into the builders."""

relu = partial(nn.ReLU, inplace=True)


class ConvBlock(nn.Sequential):
    """A convolution without bias, padded to keep the size; BatchNorm and activation if wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        conv: ConvLayer = dense_conv,
        norm: bool = True,
        activation: Callable[[], nn.Module] | None = relu,
        **options: Any,
    ) -> None:
        super().__init__()
        options |= {"stride": stride, "padding": kernel_size // 2, "bias": False}
        self.conv = conv(in_channels, out_channels, kernel_size, **options)
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)
        if activation is not None:
            self.activation = activation()


Block = tuple[int, Callable[[int, int, int], nn.Module]]
"""Output channels, and what makes the block of input channels, output channels and stride."""

Stage = tuple[int, Sequence[Block]]
"""Blocks at one resolution, behind the stride of the first."""


def add_stages(backbone: nn.Sequential, channels: int, stages: Sequence[Stage]) -> int:
    """Appends ``stage1.unit1``, ... to ``backbone``, which gives ``channels``; returns the last."""
    for index, (stride, blocks) in enumerate(stages, start=1):
        stage = nn.Sequential()
        for unit, (out_channels, make) in enumerate(blocks, start=1):
            stage.add_module(f"unit{unit}", make(channels, out_channels, stride))
            channels, stride = out_channels, 1
        backbone.add_module(f"stage{index}", stage)
    return channels


class Classifier(nn.Module):
    """A 1x1 convolution on the pooled features: (B, channels, 1, 1) to logits (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = uninitialized(nn.Conv2d, channels, num_classes, 1)
        nn.init.xavier_normal_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features).flatten(1)


class ImageClassifier(BSConvS_ModelRegLossMixin, nn.Module):
    """Images (B, 3, H, W), with values in any range, to logits (B, num_classes).

    ``reg_loss(alpha=0.1)`` is the penalty of BSConv-S; zero for the other variants.
    """

    def __init__(self, backbone: nn.Sequential, channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.add_module("global_pool", nn.AdaptiveAvgPool2d(1))
        self.classifier = Classifier(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images))
