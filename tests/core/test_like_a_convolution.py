"""BSConv layers look like a convolution to code that reads it, not to code that writes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bsconv.pytorch import BSConvCP, BSConvS, BSConvU, BSConvU1d, BSConvU3d, BSConvU_Replacer

LAYERS: list[tuple[Any, Any, int]] = [
    (lambda: BSConvU(4, 8, 3, padding=1), F.conv2d, 2),
    (lambda: BSConvS(8, 6, 3, padding=1), F.conv2d, 2),
    (lambda: BSConvCP(4, 6, 3, padding=1, blueprints=5), F.conv2d, 2),
    (lambda: BSConvU1d(4, 8, 3, padding=1), F.conv1d, 1),
    (lambda: BSConvU3d(4, 8, 3, padding=1), F.conv3d, 3),
]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("make", "convolve", "dimensions"), LAYERS)
def test_its_weight_is_the_dense_kernel(make, convolve, dimensions, normed):
    layer = make()
    if normed:  # then the weight of dw is another tensor each time it is asked
        parametrizations.weight_norm(layer.dw)
    images = torch.rand(2, layer.in_channels, *(5,) * dimensions)
    assert (layer.groups, layer.transposed) == (1, False)
    assert layer.output_padding == (0,) * dimensions
    dense = convolve(images, layer.weight, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(dense, layer(images))
    gradients = [
        torch.autograd.grad(output.square().sum(), list(layer.parameters()))
        for output in (dense, layer(images))
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "write",
    [
        lambda weight: nn.init.normal_(weight.data, 0, 0.02),  # as GANs do
        lambda weight: nn.init.normal_(weight, 0, 0.02),
        nn.init.kaiming_normal_,
        nn.init.orthogonal_,
        nn.init.zeros_,
        lambda weight: weight.data.copy_(torch.zeros(8, 4, 3, 3)),
        lambda weight: weight.detach().view(-1).mul_(2),
        lambda weight: weight[0].fill_(1),
        lambda weight: weight.__setitem__(0, 1.0),
        lambda weight: weight.__imul__(2),
        lambda weight: setattr(weight, "data", torch.zeros(1)),
        lambda weight: torch.add(weight, 1, out=weight),
    ],
)
def test_writing_into_its_weight_is_an_error(write: Callable[[Tensor], object]) -> None:
    layer = BSConvU(4, 8, 3)
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match=r"^weight of a BSConv layer is computed"):
        write(layer.weight)
    assert torch.equal(layer.weight, before)


def test_its_weight_may_be_written_elsewhere() -> None:
    layer, other = BSConvU(4, 8, 3), torch.zeros(8, 4, 3, 3)
    other.copy_(layer.weight)
    other -= layer.weight.detach()
    assert type(layer.weight + 1) is Tensor
    assert not other.any()


@pytest.mark.parametrize("name", ["weight", "bias", "groups", "stride", "in_channels"])
def test_setting_its_attributes_is_an_error(name: str) -> None:
    message = f"{name} needs to be set in the parts of a BSConvU (pw, dw), got a Parameter"
    with pytest.raises(AttributeError, match=re.escape(message)):
        setattr(BSConvU(4, 8, 3), name, nn.Parameter(torch.rand(8, 4, 3, 3)))


def test_there_is_no_weight_around_a_batch_norm() -> None:
    layer = BSConvU(4, 8, 3, with_bn=True)
    assert not hasattr(layer, "weight")
    with pytest.raises(AttributeError, match=r"^weight of a BSConvU needs convolutions alone"):
        _ = layer.weight


def test_its_weight_can_be_fused_and_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, images: Tensor) -> Tensor:
            return F.conv_transpose2d(self.conv(images), self.conv.weight)

    model, images = BSConvU_Replacer().apply(Tied()), torch.rand(2, 3, 8, 8)
    model(images).sum().backward()
    assert all(weight.grad is not None for weight in (model.conv.pw.weight, model.conv.dw.weight))
    norm, layer = nn.BatchNorm2d(8).eval(), model.conv
    norm.running_mean.uniform_()
    state = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    fused = fuse_conv_bn_weights(layer.weight, layer.bias, *state)
    torch.testing.assert_close(F.conv2d(images, *fused), norm(layer(images)))
