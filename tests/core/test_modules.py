"""The BSConv layers against the dense convolution that they stand for."""

import copy
import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bsconv.pytorch import BSConvCP, BSConvS, BSConvS1d, BSConvS3d, BSConvU, BSConvU1d, BSConvU3d
from bsconv.pytorch._tools.convs import mid_channels
from bsconv.pytorch.modules import bsconv_s, bsconv_u
from helpers.exact_errors import raises_exactly
from helpers.trained import trained

# torch says so of any convolution with such a padding, the dense one too
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


class Shared(BSConvCP):
    """A BSConvCP of five blueprints, for tests of all layers."""

    def __init__(self, *args, blueprints=5, **kwargs):
        super().__init__(*args, blueprints=blueprints, **kwargs)


LAYERS = (BSConvU, BSConvS, Shared)
OTHERS = (BSConvU1d, BSConvS1d, BSConvU3d, BSConvS3d)
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (17,), 2: (9, 11), 3: (7, 8, 7)}  # of what is convolved


@st.composite
def geometries(draw: st.DrawFn, dimensions: int = 2) -> dict:
    """Arguments that torch's convolutions take, and that fit what is of SIZES."""

    def sides(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[st.integers(least, most)] * dimensions)

    kernel, dilation = draw(sides(1, 4)), draw(sides(1, 2))
    padding = draw(st.integers(0, 3) | sides(0, 3) | st.sampled_from(["same", "valid"]))
    stride = 1 if padding == "same" else draw(st.integers(1, 3))
    return {
        **{name: draw(st.integers(1, 9)) for name in ("in_channels", "out_channels")},
        **{"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation},
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"])),
    }


def dimensions_of(layer_class: type) -> int:
    return {"1d": 1, "3d": 3}.get(layer_class.__name__[-2:], 2)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    scale = float(expected.detach().abs().max())
    return float((actual - expected).detach().abs().max()) / (scale or 1.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layer_class", LAYERS + OTHERS)
@given(data=st.data())
def test_layer_equals_its_dense_convolution(layer_class, dtype, tolerance, data):
    n = dimensions_of(layer_class)
    geometry = data.draw(geometries(n))
    layer = layer_class(**geometry, dtype=dtype)
    dense = layer.to_conv()
    assert type(dense) is CONVS[n]
    assert dense.groups == 1
    assert (dense.bias is not None) == geometry["bias"]
    images = torch.randn(2, geometry["in_channels"], *SIZES[n], dtype=dtype)
    expected = dense(images)
    assert relative_error(layer(images), expected) < tolerance
    assert relative_error(layer(images[0]), expected[0]) < tolerance
    for plan in layer._plans:
        layer.plan = plan
        assert relative_error(layer(images), expected) < tolerance


@pytest.mark.parametrize("layer_class", LAYERS + OTHERS)
@given(data=st.data(), affine=st.booleans())
def test_with_batch_norm_the_dense_convolution_is_exact_or_refused(layer_class, data, affine):
    n = dimensions_of(layer_class)
    geometry = data.draw(geometries(n))
    options = {"with_bn": True, "bn_kwargs": {"affine": affine}, "dtype": torch.float64}
    layer = trained(layer_class(**geometry, **options)).eval()
    images = torch.randn(2, geometry["in_channels"], *SIZES[n], dtype=torch.float64)
    padded = geometry["padding"] not in (0, (0,) * n, "valid")
    if geometry["padding"] == "same":
        padded = geometry["kernel_size"] != (1,) * n
    if padded and geometry["padding_mode"] == "zeros":
        with raises_exactly(
            f"{layer_class.__name__} with BatchNorm before a zero-padded depthwise convolution "
            "equals no single convolution: its padding follows BatchNorm's shift, got "
            f"padding={layer.padding!r}"
        ):
            layer.to_conv()
    else:
        assert relative_error(layer(images), layer.to_conv()(images)) < 1e-12


@pytest.mark.parametrize("layer_class", [BSConvU1d, BSConvS1d])
@pytest.mark.parametrize("plan", ["factored", "auto"])
def test_batch_norm_needs_a_batch(layer_class, plan):
    """torch.nn.BatchNorm1d would take the channels of one signal for a batch."""
    layer = layer_class(4, 8, 3, with_bn=True).eval()
    layer.plan = plan
    assert layer(torch.zeros(1, 4, 8)).shape == (1, 8, 6)
    with raises_exactly(f"{layer_class.__name__} with BatchNorm needs a batch, got shape (4, 8)"):
        layer(torch.zeros(4, 8))


def test_no_dense_convolution_while_batch_norm_uses_batch_statistics():
    untracked = {"with_bn": True, "bn_kwargs": {"track_running_stats": False}}
    for layer in (BSConvU(4, 8, 3, with_bn=True), BSConvS(4, 8, 3, **untracked).eval()):
        with raises_exactly(
            f"{type(layer).__name__} normalises by its batch, which no single convolution does: "
            "call eval() first, and keep running statistics"
        ):
            layer.to_conv2d()


@pytest.mark.parametrize("layer_class", LAYERS)
def test_dense_convolution_has_weights_of_its_own_and_the_layers_state(layer_class):
    layer = layer_class(4, 8, 3, dtype=torch.float64).to(memory_format=torch.channels_last).eval()
    before = copy.deepcopy(layer.state_dict())
    dense = layer.to_conv2d()
    assert dense.weight.dtype == torch.float64
    assert dense.weight.is_contiguous(memory_format=torch.channels_last)
    assert not dense.training
    nn.init.zeros_(dense.weight)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("with_bn", [False, True])
def test_parameters_match_the_papers_formulas(with_bn):
    m, n, k, mid = 32, 48, 3, 8
    norm = 2 * n if with_bn else 0
    u = BSConvU(m, n, k, bias=False, with_bn=with_bn)
    assert sum(p.numel() for p in u.parameters()) == m * n + n * k**2 + norm
    s = BSConvS(m, n, k, bias=False, p=1 / 4, with_bn=with_bn)
    norm += 2 * mid if with_bn else 0
    assert sum(p.numel() for p in s.parameters()) == mid * m + n * mid + n * k**2 + norm
    cp = BSConvCP(m, n, k, bias=False, blueprints=10, with_bn=with_bn)
    assert sum(p.numel() for p in cp.parameters()) == 10 * (m + k**2 + n) + 40 * with_bn


@pytest.mark.parametrize("layer_class", LAYERS)
@given(geometry=geometries())
def test_layer_reports_the_geometry_of_a_conv2d(layer_class, geometry):
    layer, dense = layer_class(**geometry), nn.Conv2d(**geometry)
    for name in geometry.keys() - {"bias"}:
        assert getattr(layer, name) == getattr(dense, name)


def test_child_names_are_those_of_the_published_package():
    children = {
        "pw dw": BSConvU(4, 4, 3),
        "pw bn dw": BSConvU(4, 4, 3, with_bn=True),
        "pw1 pw2 dw": BSConvS(4, 4, 3),
        "pw1 bn1 pw2 bn2 dw": BSConvS(4, 4, 3, with_bn=True),
        "pw1 dw pw2": BSConvCP(4, 4, 3, blueprints=2),
        "pw1 bn1 dw bn2 pw2": BSConvCP(4, 4, 3, blueprints=2, with_bn=True),
    }
    for names, layer in children.items():
        assert " ".join(name for name, _ in layer.named_children()) == names


@pytest.mark.parametrize("layer_class", LAYERS)
def test_device_and_dtype_reach_every_parameter_and_buffer(layer_class):
    layer = layer_class(4, 8, 3, with_bn=True, device="meta", dtype=torch.bfloat16)
    for tensor in itertools.chain(layer.parameters(), layer.buffers()):
        assert tensor.is_meta
        assert tensor.dtype in (torch.bfloat16, torch.int64)
    assert layer(torch.empty(2, 4, 8, 8, device="meta", dtype=torch.bfloat16)).shape == (2, 8, 6, 6)


@pytest.mark.parametrize(
    ("in_channels", "p", "expected"),
    [
        (12, 7 / 12, 7), (11, 9 / 11, 9), (14, 9 / 14, 9),  # 7.000000000000001, 9.... in floats
        (64, 0.25, 16), (65, Fraction(1, 4), 17), (64, 1, 64),
        (10, 0.25, 4), (64, 0, 4), (3, 0.25, 3),  # the lower limit, but never more than there are
    ],
)  # fmt: skip
def test_mid_channels_are_rounded_up_exactly(in_channels, p, expected):
    assert mid_channels(in_channels, p) == expected
    assert BSConvS(in_channels, 16, 3, p=p).pw1.out_channels == expected


@given(numerator=st.integers(0, 400), denominator=st.integers(1, 400), m=st.integers(1, 2048))
def test_mid_channels_of_a_float_equal_those_of_its_fraction(numerator, denominator, m):
    exact = Fraction(min(numerator, denominator), denominator)
    assert mid_channels(m, float(exact), 1) == max(1, -(-m * exact.numerator // exact.denominator))


@pytest.mark.parametrize("layer_class", [BSConvU, BSConvS, *OTHERS])
@given(data=st.data())
def test_from_conv_is_exact_on_a_blueprint_convolution(layer_class, data):
    n = dimensions_of(layer_class)
    geometry = data.draw(geometries(n))
    blueprint = layer_class(**geometry, dtype=torch.float64).to_conv()
    layer = layer_class.from_conv(blueprint)
    assert relative_error(layer.to_conv().weight, blueprint.weight) < 1e-12
    images = torch.randn(2, geometry["in_channels"], *SIZES[n], dtype=torch.float64)
    assert relative_error(layer(images), blueprint(images)) < 1e-11


@pytest.mark.parametrize("layer_class", LAYERS)
def test_from_conv2d_keeps_state_and_leaves_the_convolution_alone(layer_class):
    conv = nn.Conv2d(4, 8, 3, padding="same", dtype=torch.float64).eval()
    conv.to(memory_format=torch.channels_last)
    conv.weight.requires_grad_(False)
    before = copy.deepcopy(conv.state_dict())
    layer = layer_class.from_conv2d(conv, with_bn=True)
    assert layer.padding == "same"
    assert not any(module.training for module in layer.modules())
    trainable = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trainable == {"pw2.bias" if layer_class is Shared else "dw.bias"}
    assert layer.dw.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer[-1].bias, conv.bias)
    torch.testing.assert_close(conv.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_from_conv_may_add_a_bias_or_leave_it_out(layer_class):
    added = layer_class.from_conv(nn.Conv2d(4, 8, 3, bias=False), bias=True)
    assert added.bias.count_nonzero() == 0
    assert layer_class.from_conv(nn.Conv2d(4, 8, 3), bias=False).bias is None


@pytest.mark.parametrize("layer_class", LAYERS)
def test_from_conv2d_on_the_meta_device_gives_the_shapes(layer_class):
    layer = layer_class.from_conv2d(nn.Conv2d(16, 8, 3, device="meta"))
    assert all(parameter.is_meta for parameter in layer.parameters())
    assert (layer.in_channels, layer.out_channels) == (16, 8)


def test_factories_make_layers_of_three_by_three():
    for make, layer_class in ((bsconv_u, BSConvU), (bsconv_s, BSConvS)):
        assert (type(make(4, 8)), make(4, 8).kernel_size) == (layer_class, (3, 3))
    layer = bsconv_s(16, 8, 5, stride=2, p=1 / 2, with_bn=True, bias=False)
    assert (layer.kernel_size, layer.stride, layer.pw1.out_channels) == ((5, 5), (2, 2), 8)
