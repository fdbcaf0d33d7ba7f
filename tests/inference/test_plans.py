"""Layer plans against the layers that they stand for."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from bsconv.pytorch import BSConvCP, BSConvS, BSConvS1d, BSConvS3d, BSConvU, BSConvU1d, BSConvU3d
from bsconv.pytorch.inference._plans import layer_plans, padded_plans
from helpers.inference_cases import trained

GEOMETRIES: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": 0},
    {"padding": (2, 0, 1), "stride": 2},
    {"padding": "same", "dilation": 2},
    {"padding": "valid", "bias": False},
    {"padding": 1, "padding_mode": "reflect", "stride": (1, 2, 1)},
    {"padding": 2, "padding_mode": "circular", "bias": False},
]
SIDES = {"Conv1d": (9,), "Conv2d": (9, 7), "Conv3d": (6, 7, 5)}
LAYERS: list[Callable[..., Any]] = [
    BSConvU, BSConvS, partial(BSConvCP, blueprints=5), BSConvU1d, BSConvS1d, BSConvU3d, BSConvS3d,
]  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize("make", LAYERS)
def test_each_plan_is_the_layer_also_at_the_border(make, with_bn, geometry):
    sides = SIDES[make(1, 1, 1).dw.__class__.__name__]
    fitting = {k: v[: len(sides)] if isinstance(v, tuple) else v for k, v in geometry.items()}
    layer: Any = trained(make(8, 6, 3, with_bn=with_bn, dtype=torch.float64, **fitting)).eval()
    found = layer_plans(layer)
    assert set(found) >= set(type(layer)._plans)
    padded = padded_plans(found, (8, 16))
    assert ("factored, padded to 8" in padded) == (len(found["factored"]) > 2)
    images = torch.randn(2, 8, *sides, dtype=torch.float64)
    expected = layer(images)
    for plan in (*found.values(), *padded.values()):
        torch.testing.assert_close(plan(images), expected)
        for rows in (slice(0, 1), slice(-1, None)):
            torch.testing.assert_close(plan(images)[:, :, rows], expected[:, :, rows])
            torch.testing.assert_close(plan(images)[..., rows], expected[..., rows])


def test_plans_need_plain_parts() -> None:
    layer = BSConvU(4, 5, 3, with_bn=True)
    assert layer_plans(layer) == {}, "in training mode it normalises by its batch"
    assert layer_plans(layer.eval())
    assert padded_plans(layer_plans(BSConvS(1, 16, 3).eval()), (8,)) == {}  # ORT refuses these
    layer.pw.register_forward_hook(lambda module, inputs, output: None)
    assert layer_plans(layer) == {}
