"""Networks that no catalogue has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv.experiments.inference_benchmark import with_shared_blueprints
from bsconv.pytorch import get_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = 32, 32, 64, 64, 128, 128


def small_vgg(num_classes: int = 10) -> nn.Module:
    """Six 3x3 convolutions in a row for 32 x 32 images, as VGG stacks them: 0.29 M parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for number, width in enumerate(WIDTHS):
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        if number % 2:
            layers.append(nn.MaxPool2d(2))
        channels = width
    head = nn.Linear(channels, num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def resnet20_bsconvcp(num_classes: int = 10) -> nn.Module:
    """CIFAR's ResNet-20 as BSConv-CP: 41,391 parameters for the 42,096 of BSConv-U, BatchNorms in
    both."""
    model = get_model("cifar_resnet20", num_classes=num_classes)
    return with_shared_blueprints(model, with_bn=True)


class ResNet20(nn.Module):
    """CIFAR's ResNet-20 as it was first described, with names of weights as many people have them.

    It takes images in 0 ... 1 and normalises them as for ImageNet.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(_Block(16, 32, 2), _Block(32, 32, 1), _Block(32, 32, 1))
        self.layer3 = nn.Sequential(_Block(32, 64, 2), _Block(64, 64, 1), _Block(64, 64, 1))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1((x - self.mean) / self.std)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class _Block(nn.Module):
    """Shortcuts are the identity: every second pixel, and zeros for the channels that are new."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if y.shape != x.shape:
            new = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new, new))
        return F.relu(y + x)
