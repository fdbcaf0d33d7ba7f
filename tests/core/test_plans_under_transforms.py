"""Plan "auto" never fails a forward pass, whatever traces or transforms the layer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from bsconv.pytorch import BSConvCP, BSConvS, BSConvU

# by the test, and by what PyTorch's own forward derivatives are made of
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
IMAGES = torch.rand(2, 4, 5, 5)
LAYERS: list[Callable[[], Any]] = [
    lambda: BSConvU(4, 6, 3),
    lambda: BSConvS(4, 6, 3, min_mid_channels=2, with_bn=True).eval(),
    lambda: BSConvCP(4, 6, 3, blueprints=3),
]
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "functional_call": lambda layer: functional_call(
        layer, {k: 2.0 * v for k, v in layer.named_parameters()}, IMAGES
    ),
    "vmap": lambda layer: vmap(layer)(IMAGES[:, None]),
    "vmap of ensembles": lambda layer: vmap(lambda _: layer(IMAGES))(torch.arange(3)),
    "grad": lambda layer: grad(lambda images: layer(images).square().sum())(IMAGES),
    "grad of weights": lambda layer: grad(
        lambda weights: functional_call(layer, weights, IMAGES).square().sum()
    )(dict(layer.named_parameters())),
    "jvp": lambda layer: jvp(layer, (IMAGES,), (IMAGES,)),
    "jacrev": lambda layer: jacrev(layer)(IMAGES),
    "hessian": lambda layer: hessian(lambda images: layer(images).square().sum())(IMAGES[:1]),
    "vmap of jacrev": lambda layer: vmap(jacrev(lambda image: layer(image[None])))(IMAGES),
    "symbolic_trace": lambda layer: torch.fx.symbolic_trace(nn.Sequential(layer))(IMAGES),
    "script": lambda layer: torch.jit.script(layer)(IMAGES),
}


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_results_are_those_of_the_factored_plan(name: str, make: Callable[[], Any]) -> None:
    layer, transform = make(), TRANSFORMS[name]
    expected = transform(layer)
    layer.plan = "auto"
    torch.testing.assert_close(transform(layer), expected)


@given(
    st.lists(st.sampled_from([vmap, jacrev, lambda f: lambda x: jvp(f, (x,), (x,))[1]]), max_size=3)
)
def test_transforms_of_transforms_work(transforms: list[Callable[..., Any]]) -> None:
    layer = BSConvU(2, 3, 2)
    depth = sum(transform is vmap for transform in transforms)
    images = torch.rand(*(1,) * (depth + 1), 2, 3, 3)
    results = []
    for plan in ("factored", "auto"):
        layer.plan, function = plan, layer
        for transform in transforms:
            function = transform(function)
        results.append(function(images))
    torch.testing.assert_close(*results)


def test_what_was_measured_before_is_taken() -> None:
    layer = BSConvU(4, 6, 3)
    layer.plan = "auto"
    layer(IMAGES)
    before = layer.chosen_plan
    vmap(layer)(IMAGES[:, None])
    assert layer.chosen_plan == before


def test_generated_weights_learn() -> None:
    """As those of a hypernetwork, which are no parameters of the layer."""
    layer, made = BSConvU(4, 6, 3), torch.rand(6, 4, 1, 1, requires_grad=True)
    layer.plan = "auto"
    del layer.pw.weight
    layer.pw.weight = made * 2
    layer(IMAGES).sum().backward()
    assert made.grad is not None
