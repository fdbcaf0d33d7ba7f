"""Where outputs arrive, and which operations are followed on the way."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv.pytorch import get_model
from bsconv.pytorch.pretrained._inputs import Inputs
from bsconv.pytorch.pretrained._operations import (
    Consumer,
    Number,
    Operation,
    find_consumers,
    visiting,
)

IMAGES = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """``forward`` is given."""

    def __init__(self, forward: Callable[["Network", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act: nn.Module = nn.PReLU()
        self.written = forward
        for tensor in (self.norm.weight.data, self.norm.running_var):
            tensor.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


def consumers(model: nn.Module, *names: str, images: Tensor = IMAGES) -> dict[str, Consumer]:
    layers = {name: model.get_submodule(name) for name in names}
    return find_consumers(model, Inputs((images,)), layers)


def operations(model: Network) -> dict[Number, str]:
    """Their names, by number."""
    names = dict[Number, str]()

    def visit(operation: Operation) -> object:
        names[operation.number] = operation.layer or operation.function.__name__
        return operation.run()

    with torch.no_grad(), visiting({"conv": model.conv}, visit):
        model(IMAGES.clone())
    return names


def functional(net: Network, x: Tensor) -> Tensor:
    norm = net.norm
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@pytest.mark.parametrize(
    ("forward", "norm", "arrival", "activation"),
    [
        (lambda net, x: net.conv(x), None, "conv", None),
        (lambda net, x: F.relu(net.norm(net.conv(x)) + x), "batch_norm", "add", F.relu),
        (lambda net, x: F.relu(functional(net, net.conv(x))), "batch_norm", "batch_norm", F.relu),
        (lambda net, x: torch.add(x, net.conv(x)).relu_(), None, "add", F.relu),
        (lambda net, x: F.relu(net.conv(x).add_(x), inplace=True), None, "add_", F.relu),
        (lambda net, x: F.relu(x.add_(net.conv(x))), None, "add_", F.relu),
        (lambda net, x: F.gelu(net.conv(x) + 1 + x), None, "add", F.gelu),
        (lambda net, x: F.silu(x - 2 + net.conv(x)), None, "add", F.silu),
        (lambda net, x: F.hardswish(net.conv(x) - x), None, "sub", F.hardswish),
        (lambda net, x: net.act(net.conv(x)), None, "conv", nn.PReLU()),
        (lambda net, x: F.leaky_relu(net.conv(x), 0.2), None, "conv", nn.LeakyReLU(0.2)),
        (lambda net, x: F.relu6(F.dropout(net.conv(x), 0.5, False) + x), None, "add", F.relu6),
        (lambda net, x: net.conv(x).clamp(0, 1), None, "conv", lambda x: x.clamp(0, 1)),
        # known by what they compute
        (lambda net, x: torch.where((y := net.conv(x)) > 0, y, 0), None, "conv", F.relu),
        (lambda net, x: (y := net.conv(x) + x) * (y.detach() > 0).float(), None, "add", F.relu),
        (lambda net, x: (y := net.conv(x)) * torch.sigmoid(y), None, "conv", F.silu),
        (lambda net, x: (y := net.conv(x), y.__setitem__(y < 0, 0))[0], None, "conv", F.relu),
        (lambda net, x: 0.5 * ((y := net.conv(x)) + y.abs()), None, "conv", F.relu),
        (lambda net, x: (y := net.conv(x)).maximum(y.new_zeros(())), None, "conv", F.relu),
        # a factor, or the same output twice, is not an addition
        (lambda net, x: F.relu(0.5 * net.conv(x) + x), None, "conv", None),
        (lambda net, x: (y := net.conv(x)) + y, None, "conv", None),
        # others see it as well
        (lambda net, x: F.relu(y := net.conv(x)) + y, None, "conv", None),
        (lambda net, x: (y := net.conv(x), F.relu(y + x)), None, "conv", None),
        (lambda net, x: (m := (y := net.conv(x)) > 0, y * m), None, "conv", None),
        (lambda net, x: F.relu(torch.cat((net.conv(x), x), 1)), None, "conv", None),
        (lambda net, x: F.max_pool2d(net.conv(x) + x, 2).relu(), None, "add", None),
    ],
)  # fmt: skip
def test_operations_are_followed(forward, norm, arrival, activation):
    model = Network(forward)
    found, names = consumers(model, "conv")["conv"], operations(model)
    assert names[found.norm or found.call] == (norm or "conv")
    assert (None if found.norm is None else names[found.norm]) == norm
    assert names[found.arrival].strip("_") == arrival.strip("_")
    assert (found.activation is None) == (activation is None)
    if found.activation and activation:
        rows = torch.randn(7, 4, 1, 1) * 3
        with torch.no_grad():
            torch.testing.assert_close(found.activation(rows), activation(rows))


def test_a_norm_that_cannot_be_set_is_left_as_it_is() -> None:
    def twice(net: Network, x: Tensor) -> Tensor:
        return net.norm(net.conv(x)) + net.norm(x)

    def on_the_fly(net: Network, x: Tensor) -> Tensor:
        norm = net.norm
        state = norm.running_mean, norm.running_var, 2 * norm.weight, norm.bias
        return F.batch_norm(net.conv(x), *state)

    for forward in (twice, on_the_fly):
        assert consumers(Network(forward), "conv")["conv"].norm is None
    model = Network(lambda net, x: net.norm(net.conv(x)))
    model.norm = nn.BatchNorm2d(4, affine=False).eval()
    assert consumers(model, "conv")["conv"].norm is None


def test_of_two_convolutions_in_a_sum_the_last_is_fitted_to_it() -> None:
    model = Network(lambda net, x: F.relu(net.norm(net.conv(x)) + net.other(x)))
    model.other = nn.Conv2d(4, 4, 3, padding=1)
    found = consumers(model, "conv", "other")
    assert found["conv"].arrival == found["conv"].norm
    assert found["conv"].activation is None
    assert found["other"].arrival != found["other"].call
    assert found["other"].activation is not None


def test_layers_called_twice_or_never_have_no_consumer() -> None:
    model = Network(lambda net, x: net.conv(net.conv(x)))
    model.unused = nn.Conv2d(4, 4, 3)
    assert consumers(model, "conv", "unused") == {}


@pytest.mark.parametrize(
    ("architecture", "rectified"), [("cifar_resnet20", True), ("cifar_preresnet20", False)]
)
def test_sums_behind_shortcuts_are_found(architecture: str, rectified: bool) -> None:
    model = get_model(architecture, 4).eval()
    name = "backbone.stage2.unit2.conv2.conv"
    found = consumers(model, name, images=torch.rand(2, 3, 8, 8))[name]
    assert (found.norm is not None) == rectified
    assert found.arrival != (found.norm or found.call)
    assert (found.activation is not None) == rectified
    assert found.shapes == ((32, 4, 4), (32, 4, 4))
