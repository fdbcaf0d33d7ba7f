"""A block of MobileNetV1 as BSConv-U, BatchNorm, activation (paper, section 4.1)."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..._tools.convs import conv_arguments, memory_format_of
from ..._tools.joining import normed
from ..._tools.numerics import exact
from ...decomposition import BlueprintFactors, blueprint_factors
from ...initialization import uninitialized
from ...modules import BSConvU
from ._recognition import SeparableLayers


class Projection(NamedTuple):
    """The blueprint kernel closest to what a block computes without its inner activation."""

    factors: BlueprintFactors
    constant: Tensor  # (N,), what the block adds to each output channel before its last BatchNorm
    share_kept: float  # of the sum of squares of the block's dense kernel


def why_fresh(layers: SeparableLayers) -> str:
    """Why no weights can be projected from the block; empty if they can."""
    if layers.depthwise.weight.is_meta:
        return "the model is on the meta device"
    inner = layers.inner_norm
    for norm in (inner, layers.tail[0]):
        if norm is not None and not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return f"it has {type(norm).__name__} in place of BatchNorm"
    if inner is not None and inner.running_mean is None:
        return "its inner BatchNorm has no running statistics"
    tensors = [*tensors_of(layers.depthwise), *tensors_of(inner), *tensors_of(layers.pointwise)]
    if not all(tensor.isfinite().all() for tensor in tensors):
        return "its weights are not finite"
    return ""


@torch.no_grad()
def project(layers: SeparableLayers) -> Projection:
    """Without its inner activation, a block is linear up to its last BatchNorm: ``kernel * x +
    constant`` with ``kernel[n, m] = pointwise[n, m] * scale[m] * depthwise[m]``. All in float64.

    The zeros that pad the input don't matter, since the constant is added behind the depthwise
    convolution: the equation holds at the border too.
    """
    depthwise, norm, pointwise, _ = layers
    inner = depthwise if norm is None else normed(depthwise, norm)
    weights, blueprints = exact(pointwise.weight).flatten(1), exact(inner.weight)[:, 0]
    constant = weights.new_zeros(len(weights)) if pointwise.bias is None else exact(pointwise.bias)
    if inner.bias is not None:
        constant = weights @ exact(inner.bias) + constant
    kernel = torch.einsum("nm,mhw->nmhw", weights, blueprints)
    factors = blueprint_factors(kernel)
    kept = (factors.weights.square().sum(1) * factors.blueprints.square().sum((1, 2))).sum()
    energy = kernel.square().sum()
    share = min(float(kept / energy), 1.0) if energy > 0 else 1.0
    return Projection(factors, constant, share)


@torch.no_grad()
def as_blueprint_block(
    block: nn.Module, layers: SeparableLayers, projection: Projection | None
) -> nn.Sequential:
    """What takes the place of ``block``, with the very BatchNorm and activation at its end."""
    depthwise, _, pointwise, tail = layers
    make = BSConvU if projection is None else partial(uninitialized, BSConvU)
    arguments = conv_arguments(depthwise) | {"bias": False}
    layer = make(depthwise.in_channels, pointwise.out_channels, **arguments)
    if projection is not None:
        layer.pw.weight.copy_(projection.factors.weights[:, :, None, None])
        layer.dw.weight.copy_(projection.factors.blueprints[:, None])
    layer.to(memory_format=memory_format_of(depthwise.weight))
    for conv, old in ((layer.pw, pointwise), (layer.dw, depthwise)):
        conv.requires_grad_(old.weight.requires_grad)
        conv.train(old.training)
    new = nn.Sequential(layer, *tail)
    new.training = layer.training = block.training
    return new


def tensors_of(module: nn.Module | None, recurse: bool = True) -> list[Tensor]:
    return [] if module is None else [*module.parameters(recurse), *module.buffers(recurse)]
