"""What the tests of inference share: models with trained BatchNorms, and the comparison."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvCP, BSConvS, BSConvU, optimize_for_inference
from bsconv.pytorch.inference import OptimizedModel
from helpers.trained import trained

IMAGES = (2, 3, 20, 20)


def in_eval_mode(model: nn.Module, images: Tensor) -> Any:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(images)


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Relative to the largest output; the border rows and columns by themselves as well."""
    largest = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def assert_same_function(
    optimized: nn.Module, model: nn.Module, size: tuple[int, ...] = IMAGES
) -> None:
    """At the size of the example, for one image, for several, and at another size."""
    batch, channels, height, width = size
    for other in (size, (1, *size[1:]), (batch + 1, channels, height + 16, width + 9)):
        images = torch.randn(other)
        assert_equal(optimized(images), in_eval_mode(model, images))


def eager(model: nn.Module, size: tuple[int, ...] = IMAGES, **options: Any) -> OptimizedModel:
    return optimize_for_inference(model, torch.randn(size), compile=False, **options)


class Graph(nn.Module):
    """Two convolutions, a BatchNorm each, and a forward function to order them."""

    def __init__(self, order: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(3)
        self.order = order

    def forward(self, images: Tensor) -> Any:
        return self.order(self, images)


def in_turn(net: Any, images: Tensor) -> Tensor:
    return net.norm2(net.conv2(net.norm1(net.conv1(images)).relu()))


def conv_and_norm() -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


def small() -> nn.Module:
    return trained(
        nn.Sequential(
            BSConvU(3, 16, 3, padding=1, with_bn=True),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            BSConvS(16, 8, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )


class Point(NamedTuple):
    means: Tensor
    index: Tensor


class Several(nn.Module):
    """Returns tensors and a text in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = BSConvCP(3, 4, 3, padding=1, with_bn=True, blueprints=5)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> Any:
        out = self.norm(self.conv(images))
        pair = [Point(out.mean((2, 3)), out.argmax(1)), (out, "text")]
        return OrderedDict(out=out, pair=pair, mixed=(out.double(), out.half(), images))
