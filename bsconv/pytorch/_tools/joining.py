"""Convolutions in a row as fewer, in float64: BatchNorms folded in, kernels multiplied."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .convs import CONVS, GEOMETRY, BatchNorm, Conv, pads_with_zeros, present_weight, with_ones
from .numerics import exact_dtype, without_autocast


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
    scale, offset = _scale_and_offset(norm, exact_dtype(conv.weight))
    bias = offset if conv.bias is None else offset + scale * conv.bias
    return convolution(conv, conv.weight * with_ones(scale, conv.weight.dim()), bias, conv.groups)


@torch.no_grad()
def joined(first: Conv, second: Conv) -> Conv:
    """``second(first(x))`` as one convolution; one of the two is 1x1, unpadded and of stride 1."""
    depthwise = next((conv.weight for conv in (second, first) if is_depthwise(conv)), None)
    weight = product(first.weight, second.weight, depthwise)
    unpadded = isinstance(second.padding, str) or not any(second.padding)
    geometry = first if unpadded and {*second.kernel_size, *second.stride} == {1} else second
    if first.bias is None or not first.bias.any():
        return convolution(geometry, weight, second.bias)
    if pads_with_zeros(second):
        raise ValueError("no single convolution shifts its channels before zero padding")
    sums = second.weight.flatten(2).sum(2)
    bias = sums[:, 0] * first.bias if is_depthwise(second) else sums @ first.bias
    return convolution(geometry, weight, bias if second.bias is None else bias + second.bias)


def product(first: Tensor, second: Tensor, depthwise: Tensor | None) -> Tensor:
    """The kernel of ``second(first(x))``; one is pointwise, ``depthwise`` is the depthwise one."""
    if second is depthwise:  # of shape (channels, 1, ...)
        return second * first
    if first is depthwise:
        return second * first.transpose(0, 1)
    if second[0, 0].numel() == 1:
        return (second.flatten(1) @ first.flatten(1)).view(-1, *first.shape[1:])
    return torch.einsum("nr...,rm->nm...", second, first.flatten(1))


def convolution(geometry: Conv, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Conv:
    """A convolution of these weights in eval mode, with the geometry of another."""
    channels = weight.shape[1] * groups, weight.shape[0]
    arguments = {name: getattr(geometry, name) for name in GEOMETRY}
    conv: Conv = CONVS[weight.dim() - 3](*channels, **arguments, groups=groups, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv.eval()


def is_depthwise(conv: Conv) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels


def normed_product(
    first: BatchNorm, weight: Tensor, second: BatchNorm, images: Tensor
) -> tuple[Tensor, Tensor]:
    """``first`` without its statistics, a pointwise convolution, ``second``: matrix, constant."""
    with without_autocast(images.device.type):
        # float64, since the variance of a channel may be a small rest of what the covariance holds
        exact = exact_dtype(images)
        matrix, moments = weight.flatten(1).to(exact), None
        shift: Any = 0 if first.bias is None else matrix @ first.bias.to(exact)
        if first.weight is not None:
            matrix = matrix * first.weight
        if second.training or second.running_mean is None:
            pixels = images.movedim(1, -1).flatten(0, -2).to(exact)
            mean = pixels.mean(0)
            covariance = pixels.mT @ pixels / len(pixels) - mean[:, None] * mean
            variance = (matrix @ covariance * matrix).sum(1).clamp(min=0)
            moments = matrix @ mean + shift, variance
            if second.training and second.running_mean is not None:
                track(second, *moments, len(pixels))
        scale, offset = _scale_and_offset(second, exact, moments)
        combined, constant = scale[:, None] * matrix, scale * shift + offset
        return combined.to(weight.dtype), constant.to(weight.dtype)


def _scale_and_offset(
    norm: Any, dtype: torch.dtype, moments: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """What ``norm`` does to the channels, by these means and variances or by the running ones."""
    mean, variance = moments or (norm.running_mean, norm.running_var)
    scale = (variance.to(dtype) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    return scale, -mean * scale if norm.bias is None else norm.bias - mean * scale


@torch.no_grad()
def track(norm: Any, mean: Tensor, variance: Tensor, count: Any) -> None:
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean)
    norm.running_mean.mul_(1 - share).add_(share * mean)
    norm.running_var.mul_(1 - share).add_(share * variance * (count / (count - 1)))
