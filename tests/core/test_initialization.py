"""Where training starts: the variance behind each layer, measured against the stated rule."""

import math

import pytest
import torch
from torch import nn

from bsconv.pytorch import BSConvS, BSConvU, BSConvU_Replacer, get_model
from bsconv.pytorch.initialization import (
    dense_conv,
    match_variance_,
    uniform_variance_,
    uninitialized,
)

SHAPES = [(16, 16, 3), (64, 32, 3), (32, 128, 5), (3, 64, 3)]


def gain(make, in_channels: int, draws: int = 60) -> float:
    """The mean square of the outputs over that of the inputs, away from the border."""
    squares = []
    for _ in range(draws):
        images = torch.randn(4, in_channels, 9, 9).relu()  # not centred: means count too
        outputs = make()(images)
        squares.append(float(outputs.detach().square().mean() / images.square().mean()))
    return sum(squares) / draws


@pytest.mark.parametrize(("in_channels", "out_channels", "size"), SHAPES)
def test_a_dense_convolution_doubles_the_mean_square(in_channels, out_channels, size):
    measured = gain(lambda: dense_conv(in_channels, out_channels, size, bias=False), in_channels)
    assert measured == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(("in_channels", "out_channels", "size"), SHAPES)
@pytest.mark.parametrize("layer_class", [BSConvU, BSConvS])
def test_matched_layers_start_like_the_dense_convolution(
    layer_class, in_channels, out_channels, size
):
    def make() -> nn.Module:
        layer = layer_class(in_channels, out_channels, size, bias=False)
        return match_variance_(layer)

    assert gain(make, in_channels, draws=200) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize(("layer_class", "expected"), [(BSConvU, 1 / 9), (BSConvS, 1 / 27)])
def test_published_layers_start_with_a_fraction_of_it(layer_class, expected):
    def make() -> nn.Module:
        return layer_class(64, 64, 3, bias=False)

    assert gain(make, 64, draws=100) == pytest.approx(expected, rel=0.1)


def test_weights_are_uniform_up_to_the_stated_bound_and_biases_zero():
    conv = uniform_variance_(nn.Conv2d(64, 128, 3), gain=2)
    bound = math.sqrt(6 / (64 * 9))
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    assert conv.weight.mean().abs() < 0.01 * bound
    assert float(conv.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.02)
    assert conv.bias.abs().max() == 0


def test_batch_norm_in_between_starts_as_it_always_does():
    layer = uninitialized(BSConvS, 32, 64, 3, with_bn=True, dtype=torch.float64)
    match_variance_(layer)
    for norm in (layer.bn1, layer.bn2):
        for name, tensor in nn.BatchNorm2d(norm.num_features).state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], tensor, check_dtype=False)
    assert layer.dw.weight.dtype == torch.float64
    assert all(torch.isfinite(parameter).all() for parameter in layer.parameters())


def test_no_random_numbers_are_drawn_for_weights_that_are_overwritten(monkeypatch):
    drawn = []
    uniform = torch.Tensor.uniform_

    def counting(tensor, *args, **kwargs):
        drawn.append(tensor)
        return uniform(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "uniform_", counting)
    for architecture, init in (
        ("cifar_resnet20", "published"),
        ("cifar_resnet20_bsconvs_p1d4", "published"),
        ("cifar_resnet20_bsconvs_p1d4", "matched"),
    ):
        drawn.clear()
        model = get_model(architecture, 10, init=init)
        convs = sum(isinstance(module, nn.Conv2d) for module in model.modules())
        on_cpu = sum(tensor.device.type == "cpu" for tensor in drawn)
        assert 0 < on_cpu <= convs
    drawn.clear()
    BSConvU_Replacer(init="project").apply(get_model("cifar_resnet20", 10))
    # those of the dense network, whose classifier is drawn from a normal distribution
    assert sum(tensor.device.type == "cpu" for tensor in drawn) == 21
