"""A block of MobileNetV1 as BSConv-U, BatchNorm, activation (paper, section 4.1)."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._tools.batch_norm import batch_norm_map
from ..._tools.convs import conv_arguments, memory_format_of
from ..._tools.model_tree import parameter_count
from ..._tools.numerics import exact, exact_dtype
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
    depthwise, shift = _affine(layers.depthwise)
    depthwise = depthwise[:, 0]
    if layers.inner_norm is not None:
        precise = exact_dtype(layers.depthwise.weight)
        scale, offset = map(exact, batch_norm_map(layers.inner_norm, precise))
        depthwise, shift = scale[:, None, None] * depthwise, scale * shift + offset
    weights, bias = _affine(layers.pointwise)
    weights = weights.flatten(1)
    kernel = torch.einsum("nm,mhw->nmhw", weights, depthwise)
    factors = blueprint_factors(kernel)
    kept = (factors.weights.square().sum(1) * factors.blueprints.square().sum((1, 2))).sum()
    energy = kernel.square().sum()
    share = min(float(kept / energy), 1.0) if energy > 0 else 1.0
    return Projection(factors, weights @ shift + bias, share)


@torch.no_grad()
def as_blueprint_block(
    block: nn.Module, layers: SeparableLayers, projection: Projection | None
) -> nn.Sequential:
    """What takes the place of ``block``, with the very BatchNorm and activation at its end.

    :func:`absorb` then lets that BatchNorm know the constant.
    """
    make = BSConvU if projection is None else partial(uninitialized, BSConvU)
    layer = make(**_arguments(layers))
    if projection is not None:
        layer.pw.weight.copy_(projection.factors.weights[:, :, None, None])
        layer.dw.weight.copy_(projection.factors.blueprints[:, None])
    layer.to(memory_format=memory_format_of(layers.depthwise.weight))
    for conv, old in ((layer.pw, layers.pointwise), (layer.dw, layers.depthwise)):
        conv.requires_grad_(old.weight.requires_grad)
        conv.train(old.training)
    new = nn.Sequential(layer, *layers.tail)
    new.training = layer.training = block.training
    return new


@torch.no_grad()
def absorb(norm: nn.Module, constant: Tensor) -> None:
    """Takes ``constant`` off the running mean, since it is no longer added before ``norm``.

    A ``norm`` without running statistics takes it off by itself.
    """
    if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.running_mean is not None:
        norm.running_mean -= constant.to(norm.running_mean)


def parameters_after(layers: SeparableLayers) -> int:
    layer = BSConvU(**_arguments(layers) | {"device": "meta"})
    return parameter_count(layer, *layers.tail)


def _arguments(layers: SeparableLayers) -> dict[str, Any]:
    depthwise, out_channels = layers.depthwise, layers.pointwise.out_channels
    channels = {"in_channels": depthwise.in_channels, "out_channels": out_channels}
    return channels | conv_arguments(depthwise) | {"bias": False}


def _affine(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return exact(conv.weight), exact(bias)


def tensors_of(module: nn.Module | None, recurse: bool = True) -> list[Tensor]:
    return [] if module is None else [*module.parameters(recurse), *module.buffers(recurse)]
