"""The forms that a layer can have: their factors, and how these get into a layer."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..decomposition import (
    BlueprintFactors,
    SharedFactors,
    SubspaceFactors,
    compose,
    shared_factors,
)
from ..modules import BSConvCP, BSConvS, BSConvU
from ._costs import DENSE, Form
from ._least_squares import ROUNDS, fit_blueprints, fit_subspace
from ._moments import Moments, Patches
from ._shared_blueprints import fit_shared, fit_shared_from

LATER_STEPS = 6  # of BSConv-CP, each time its targets have changed


class DenseKernel(NamedTuple):
    """No factors: a convolution that stays dense."""

    kernel: Tensor  # (N, M, Kh, Kw)


Factors = DenseKernel | BlueprintFactors | SubspaceFactors | SharedFactors


def factors_of(layer: nn.Module) -> Factors:
    """What the layer holds, in float64."""
    if isinstance(layer, BSConvCP):
        mixing, weights = (_matrix(pw) for pw in (layer.pw2, layer.pw1))
        return SharedFactors(mixing, weights, _blueprints(layer.dw))
    if isinstance(layer, BSConvU):
        return BlueprintFactors(_matrix(layer.pw), _blueprints(layer.dw))
    if isinstance(layer, BSConvS):
        mixing, basis = (_matrix(pw) for pw in (layer.pw2, layer.pw1))
        return SubspaceFactors(mixing, basis, _blueprints(layer.dw))
    return DenseKernel(cast(nn.Conv2d, layer).weight.detach().double())


def form_of(layer: nn.Module) -> Form:
    """What the layer is, and how many channels it has in the middle."""
    if isinstance(layer, BSConvU):
        return Form("u")
    if isinstance(layer, BSConvS):
        return Form("s", layer.pw1.out_channels)
    return Form("cp", layer.pw1.out_channels) if isinstance(layer, BSConvCP) else DENSE


def dense(factors: Factors) -> Tensor:
    """The dense kernel (N, M, Kh, Kw) of the factors."""
    if isinstance(factors, DenseKernel):
        return factors.kernel
    if isinstance(factors, SharedFactors):
        rows = factors.weights[:, :, None, None] * factors.blueprints[:, None]
        return torch.einsum("nr,rmhw->nmhw", factors.mixing, rows)
    if isinstance(factors, BlueprintFactors):
        return compose(factors.weights, factors.blueprints)
    return compose(factors.mixing @ factors.basis, factors.blueprints)


def fit(
    factors: Factors,
    patches: Patches,
    known: Moments,
    metric: Tensor | None,
    kernel: Tensor,
    *,
    first: bool,
) -> Factors:
    """Factors of the same form and size that fit the moments better.

    The ``first`` time they are found from the start; later on they are improved a little. A layer
    that sees nothing but constants gets weights close to the dense ``kernel``: any would do.
    """
    if not known.patches.any():
        if isinstance(factors, SharedFactors) and first:
            return shared_factors(kernel, len(factors.weights))
        return factors
    # later on, filter by filter, so that they go on making up for one another
    rounds = ROUNDS if first or metric is None else 0
    if isinstance(factors, BlueprintFactors):
        return fit_blueprints(known, factors, metric, rounds)
    if isinstance(factors, SubspaceFactors):
        return fit_subspace(known, factors, metric, rounds)
    if isinstance(factors, SharedFactors) and not first:
        return fit_shared(known, factors, metric, LATER_STEPS)
    found = patches.solve(known).view_as(kernel)
    if isinstance(factors, SharedFactors):
        return fit_shared_from(known, found, len(factors.weights), metric)
    return DenseKernel(found)


@torch.no_grad()
def put(factors: Factors, shift: Tensor, layer: nn.Module) -> None:
    """The factors into the layer, and the constant into its bias if it has one."""
    if isinstance(factors, DenseKernel):
        weights = {"": factors.kernel}
    elif isinstance(factors, BlueprintFactors):
        weights = {"pw": factors.weights, "dw": factors.blueprints}
    elif isinstance(factors, SubspaceFactors):
        weights = {"pw1": factors.basis, "pw2": factors.mixing, "dw": factors.blueprints}
    else:
        weights = {"pw1": factors.weights, "dw": factors.blueprints, "pw2": factors.mixing}
    for name, weight in weights.items():
        conv = cast(nn.Conv2d, layer.get_submodule(name))
        conv.weight.copy_(weight.reshape(conv.weight.shape))
    if conv.bias is not None:  # of the last, as in all forms
        conv.bias.copy_(shift)


def has_bias(layer: nn.Module) -> bool:
    parts = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
    return any(part.bias is not None for part in parts)


def _matrix(pointwise: nn.Conv2d) -> Tensor:
    return pointwise.weight.detach().flatten(1).double()


def _blueprints(depthwise: nn.Conv2d) -> Tensor:
    return depthwise.weight[:, 0].detach().double()
