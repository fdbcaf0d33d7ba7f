"""Where training starts: the variance behind each layer, measured against the stated rule."""

import math

import pytest
import torch
from torch import nn

from bsconv.pytorch import BSConvS, BSConvU, initialization

SHAPES = [(16, 16, 3), (64, 32, 3), (32, 128, 5), (3, 64, 3)]


def gain(make, in_channels: int, draws: int = 60) -> float:
    """The mean square of the outputs over that of the inputs, away from the border."""
    squares = []
    for _ in range(draws):
        images = torch.randn(4, in_channels, 9, 9).relu()  # not centred: means count too
        outputs = make()(images)
        squares.append(float(outputs.detach().square().mean() / images.square().mean()))
    return sum(squares) / draws


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dense_convolution_doubles_the_mean_square(shape):
    measured = gain(lambda: initialization.dense_conv(*shape, bias=False), shape[0])
    assert measured == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer_class", [BSConvU, BSConvS])
def test_matched_layers_start_like_the_dense_convolution(layer_class, shape):
    measured = gain(
        lambda: initialization.match_variance_(layer_class(*shape, bias=False)), shape[0], draws=200
    )
    assert measured == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize(("layer_class", "expected"), [(BSConvU, 1 / 9), (BSConvS, 1 / 27)])
def test_published_layers_start_with_a_fraction_of_it(layer_class, expected):
    measured = gain(lambda: layer_class(64, 64, 3, bias=False), 64, draws=100)
    assert measured == pytest.approx(expected, rel=0.1)


def test_weights_are_uniform_up_to_the_stated_bound_and_biases_zero():
    conv = initialization.uniform_variance_(nn.Conv2d(64, 128, 3), gain=2)
    bound = math.sqrt(6 / (64 * 9))
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert conv.weight.mean().abs() < 0.01 * bound
    assert float(conv.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.02)
    assert conv.bias.abs().max() == 0


def test_batch_norm_in_between_starts_as_it_always_does():
    layer = initialization.uninitialized(BSConvS, 32, 64, 3, with_bn=True, dtype=torch.float64)
    initialization.match_variance_(layer)
    for norm in (layer.bn1, layer.bn2):
        for name, tensor in nn.BatchNorm2d(norm.num_features).state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], tensor, check_dtype=False)
    assert layer.dw.weight.dtype == torch.float64
    assert all(torch.isfinite(parameter).all() for parameter in layer.parameters())
