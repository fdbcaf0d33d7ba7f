"""Gradients against finite differences, in float64, and results that are detached."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bsconv.pytorch import BSConvS, BSConvU, reg_loss
from bsconv.pytorch.decomposition import blueprint_factors, subspace_factors
from bsconv.pytorch.regularization import OrthonormalConv2d, orthonormality_penalty
from helpers.precision import fill, numbers


@pytest.mark.parametrize(
    "basis",
    [
        numbers("ordinary", 3, 5),
        100 * numbers("ordinary", 3, 5),
        torch.eye(3, 5),  # to the last bit orthonormal: both sides are zero
        torch.tensor([[0, -1.0, 0, 0], [0, 0, 0, 1.0]]),
        numbers("rank-deficient", 4, 6),
        torch.zeros(2, 4),
    ],
    ids=["ordinary", "large", "orthonormal", "permuted", "rank-deficient", "zero"],
)
def test_the_penalty(basis: Tensor) -> None:
    assert torch.autograd.gradcheck(orthonormality_penalty, basis.double().requires_grad_())


def test_the_penalty_of_a_model() -> None:
    """With two bases of one shape, one of them at its optimum."""
    layers = (BSConvS(8, 4, 1), BSConvS(8, 4, 1), OrthonormalConv2d(5, 3, 1), BSConvU(3, 3, 3))
    model = nn.Sequential(*layers).double()
    fill(model, "ordinary")
    nn.init.dirac_(layers[1].pw1.weight)
    names = ["0.pw1.weight", "1.pw1.weight", "2.weight"]

    class Penalty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> Tensor:
            return reg_loss(self.model, alpha=0.3)

    def function(*weights: Tensor) -> Tensor:
        state = {f"model.{name}": weight for name, weight in zip(names, weights, strict=True)}
        return functional_call(Penalty(), state, ())

    weights = tuple(model.get_parameter(name) for name in names)
    assert torch.autograd.gradcheck(function, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_the_penalty_is_bounded_where_only_rounding_is_left(
    dtype: torch.dtype,
) -> None:
    """At orthonormal rows the penalty has a kink: its slope is that of rounding, but no larger."""
    rows = torch.linalg.qr(torch.randn(64, 16, dtype=dtype)).Q.T.contiguous().requires_grad_()
    penalty = orthonormality_penalty(rows)
    penalty.backward()
    assert penalty < 100 * torch.finfo(dtype).eps
    # || 2 E B || / || E || is at most twice the largest singular value, which is one
    assert rows.grad.norm() < 2 * (1 + 1e-3)


def test_what_approximates_is_detached() -> None:
    conv = nn.Conv2d(8, 8, 3)
    for factors in (blueprint_factors(conv.weight), subspace_factors(conv.weight, 2)):
        assert not any(factor.requires_grad for factor in factors)
    for layer in (BSConvU.from_conv2d(conv), BSConvS.from_conv2d(conv)):
        assert all(parameter.is_leaf for parameter in layer.parameters())
        assert all(parameter.is_leaf for parameter in layer.to_conv2d().parameters())
