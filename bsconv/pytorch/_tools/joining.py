"""Convolutions in a row as fewer, in float64: BatchNorms folded in, kernels multiplied."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .batch_norm import batch_norm_map
from .convs import CONVS, GEOMETRY, BatchNorm, Conv, pads_with_zeros, present_weight, with_ones
from .numerics import exact_dtype


def exact_steps(parts: Iterable[nn.Module]) -> list[Conv]:
    """The convolutions among ``parts`` in float64, each with the BatchNorm that follows it."""
    steps: list[Conv] = []
    for part in parts:
        if isinstance(part, Conv):
            dtype, weight = exact_dtype(part.weight), present_weight(part).detach()
            bias = None if part.bias is None else part.bias.detach().to(dtype)
            steps.append(convolution(part, weight.to(dtype), bias, part.groups))
        elif isinstance(part, BatchNorm):
            steps[-1] = normed(steps[-1], part)
    return steps


@torch.no_grad()
def normed(conv: Conv, norm: BatchNorm) -> Conv:
    """``norm(conv(x))`` in eval mode as one convolution, in float64."""
    scale, offset = batch_norm_map(norm, exact_dtype(conv.weight))
    bias = offset if conv.bias is None else offset + scale * conv.bias
    weight = conv.weight * with_ones(scale, conv.weight.dim())
    return convolution(conv, weight, bias, conv.groups)


@torch.no_grad()
def joined(first: Conv, second: Conv) -> Conv:
    """``second(first(x))`` as one convolution; one of the two is 1x1, unpadded and of stride 1.

    Raises ValueError where ``first`` shifts channels that ``second`` pads with zeros.
    """
    depthwise = next((conv.weight for conv in (second, first) if is_depthwise(conv)), None)
    weight = product(first.weight, second.weight, depthwise)
    unpadded = isinstance(second.padding, str) or not any(second.padding)
    follows = unpadded and {*second.kernel_size, *second.stride} == {1}
    geometry = first if follows else second
    if first.bias is None or not first.bias.any():
        return convolution(geometry, weight, second.bias)
    if pads_with_zeros(second):
        raise ValueError("a shift of the channels before zero padding is no single convolution's")
    sums = second.weight.flatten(2).sum(2)
    bias = sums[:, 0] * first.bias if is_depthwise(second) else sums @ first.bias
    return convolution(geometry, weight, bias if second.bias is None else bias + second.bias)


def product(first: Tensor, second: Tensor, depthwise: Tensor | None) -> Tensor:
    """The kernel of ``second(first(x))``; one is pointwise, ``depthwise`` is the depthwise one.

    Kernels have shape (out, in, ...), depthwise ones (channels, 1, ...).
    """
    if second is depthwise:
        return second * first
    if first is depthwise:
        return second * first.transpose(0, 1)
    if second[0, 0].numel() == 1:
        return (second.flatten(1) @ first.flatten(1)).view(-1, *first.shape[1:])
    return torch.einsum("nr...,rm->nm...", second, first.flatten(1))


def convolution(geometry: Conv, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Conv:
    """A convolution of these weights in eval mode, with the geometry of another."""
    conv: Conv = CONVS[weight.dim() - 3](
        weight.shape[1] * groups,
        weight.shape[0],
        **{name: getattr(geometry, name) for name in GEOMETRY},
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    conv.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv.eval()


def is_depthwise(conv: Conv) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels
