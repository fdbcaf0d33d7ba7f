"""Networks that no catalogue has."""

from __future__ import annotations

from torch import nn

from bsconv.pytorch import BSConvCP, get_model

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
    """CIFAR's ResNet-20 as BSConv-CP, about as large as BSConv-U: 40,595 parameters for 40,720."""
    return with_shared_blueprints(get_model("cifar_resnet20", num_classes=num_classes))


def with_shared_blueprints(model: nn.Module) -> nn.Module:
    """BSConv-CP with BatchNorm for all 3x3 convolutions of features, no larger than BSConv-U."""
    for name, conv in list(model.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.in_channels > 3:
            inner, outer = conv.in_channels, conv.out_channels
            each = inner + outer + 9 + 4  # weights of a blueprint, those of two BatchNorms included
            layer = BSConvCP.like(conv, blueprints=outer * (inner + 9) // each, with_bn=True)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer)
    return model
