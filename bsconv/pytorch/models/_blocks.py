"""What the networks are made of. Child names are those of the published checkpoints."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..regularization import BSConvS_ModelRegLossMixin

ConvLayer = Callable[..., nn.Module]
"""Makes a convolution from what ``torch.nn.Conv2d`` takes; injected into the builders."""


def dense_conv(in_channels: int, out_channels: int, kernel_size: int, **kwargs: Any) -> nn.Conv2d:
    """A dense convolution that starts Kaiming-uniform, its bias at zero."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, **kwargs)
    nn.init.kaiming_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ConvBlock(nn.Sequential):
    """A convolution without bias, padded to keep the size, then BatchNorm and ReLU if wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        conv: ConvLayer = dense_conv,
        norm: bool = True,
        activation: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = conv(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False
        )
        if norm:
            self.bn = nn.BatchNorm2d(out_channels)
        if activation:
            self.activation = nn.ReLU(inplace=True)


class NormActivation(nn.Sequential):
    """BatchNorm, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)


class Classifier(nn.Module):
    """A 1x1 convolution on the pooled features: (B, channels, 1, 1) to logits (B, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, num_classes, 1)
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
        self.classifier = Classifier(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images))
