"""BatchNorms as affine maps of the channels."""

from typing import Any

import torch
from torch import Tensor

from .convs import BatchNorm
from .numerics import exact_dtype, without_autocast


def batch_norm_map(
    norm: Any, dtype: torch.dtype, moments: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """``norm`` as ``x -> scale * x + offset``, each of shape (channels,).

    ``moments`` are the means and variances that it normalises by; the running ones, unless given.
    """
    mean, variance = moments or (norm.running_mean, norm.running_var)
    scale = (variance.to(dtype) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    offset = -mean * scale
    return scale, offset if norm.bias is None else offset + norm.bias


def normed_product(
    first: BatchNorm, weight: Tensor, second: BatchNorm, images: Tensor
) -> tuple[Tensor, Tensor]:
    """``first``, a pointwise convolution with ``weight``, ``second``: a matrix and a constant (n,).

    The map takes ``images`` that ``first`` has normalised, before its weight and bias. In training,
    means and variances of the product follow from the mean m and the covariance C of its inputs:
    W m and diag(W C W^T). Running statistics are updated too. In float64, since the variance of
    a channel may be a small rest of what C holds.
    """
    with without_autocast(images.device.type):
        exact = exact_dtype(images)
        matrix, moments = weight.flatten(1).to(exact), None
        shift = matrix.new_zeros(len(matrix))
        if first.affine:
            shift, matrix = matrix @ first.bias.to(exact), matrix * first.weight
        if second.training or second.running_mean is None:
            pixels = images.movedim(1, -1).flatten(0, -2).to(exact)
            mean = pixels.mean(0)
            covariance = pixels.mT @ pixels / len(pixels) - mean[:, None] * mean
            variance = (matrix @ covariance * matrix).sum(1).clamp(min=0)
            moments = matrix @ mean + shift, variance
            if second.training and second.running_mean is not None:
                _track(second, *moments, len(pixels))
        scale, offset = batch_norm_map(second, exact, moments)
        product, constant = scale[:, None] * matrix, scale * shift + offset
        return product.to(weight.dtype), constant.to(weight.dtype)


@torch.no_grad()
def _track(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean)
    norm.running_mean.mul_(1 - share).add_(share * mean)
    norm.running_var.mul_(1 - share).add_(share * variance * (count / (count - 1)))
