"""BatchNorms as affine maps of the channels."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .numerics import exact_dtype


def batch_norm_map(norm: BatchNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``norm`` in eval mode as ``x -> scale * x + offset``, each of shape (channels,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.to(dtype) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    offset = -norm.running_mean * scale
    return scale, offset if norm.bias is None else offset + norm.bias


def centre_of(norm: BatchNorm, images: Tensor) -> Tensor:
    """About the mean that ``norm`` takes off, shape (m,): the images' own, or the running one.

    BatchNorm may magnify what remains without it, and with it the rounding of any other sum.
    """
    if _takes_batch(norm):
        return images.detach().transpose(0, 1).flatten(1).mean(1)
    assert norm.running_mean is not None
    return norm.running_mean.to(images.dtype)


def normed_product(
    first: BatchNorm, weight: Tensor, second: BatchNorm, images: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor]:
    """``first``, a pointwise convolution with ``weight`` and ``second`` as one affine map.

    ``weight``: (n, m, 1, 1), ``images``: (b, m, h, w) less ``centre``, (m,), of which the map takes
    what is left. Returns a matrix (n, m) and a constant (n,). In training, all means and variances
    follow from the mean and the covariance C of the images: those of a product with W are W m and
    diag(W C W^T). Running statistics are updated as ever.

    In float64, since the variance of a channel may be a small rest of what C holds.
    """
    count = images.numel() // images.shape[1]
    with torch.autocast(images.device.type, enabled=False):
        exact = exact_dtype(images)
        matrix, centre = weight.flatten(1).to(exact), centre.to(exact)
        mean, covariance = None, None
        if _takes_batch(first) or _takes_batch(second):
            mean, covariance = _moments(images)
            mean = centre + mean
        variance = None if covariance is None else _diagonal(covariance)
        scale, shift = _scale_and_shift(first, mean, variance, count)
        if mean is not None and covariance is not None:
            mean = matrix @ (scale * mean + shift)
            scaled = matrix * scale
            variance = (scaled @ covariance * scaled).sum(1)
        outer_scale, outer_shift = _scale_and_shift(second, mean, variance, count)
        product = outer_scale[:, None] * matrix * scale
        constant = outer_scale * (matrix @ (scale * centre + shift)) + outer_shift
        return product.to(weight.dtype), constant.to(weight.dtype)


def _diagonal(matrix: Tensor) -> Tensor:
    # not matrix.diagonal(): torch.compile warns there
    return (matrix * torch.eye(len(matrix)).to(matrix)).sum(1)


def _takes_batch(norm: BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def _scale_and_shift(
    norm: BatchNorm, mean: Tensor | None, variance: Tensor | None, count: int
) -> tuple[Tensor, Tensor]:
    if not _takes_batch(norm):
        assert norm.running_mean is not None
        return batch_norm_map(norm, exact_dtype(norm.running_mean))
    assert mean is not None
    assert variance is not None
    if norm.training:
        _track(norm, mean.detach(), variance.detach(), count)
    scale = (variance.clamp(min=0) + norm.eps).rsqrt()
    if not norm.affine:
        return scale, -mean * scale
    scale = scale * norm.weight
    return scale, norm.bias - mean * scale


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (m,) and covariance (m, m) of the pixels, which lie about zero, in float64."""
    pixels = images.movedim(1, -1).flatten(0, -2).to(exact_dtype(images))
    mean = pixels.mean(0)
    return mean, pixels.mT @ pixels / len(pixels) - mean[:, None] * mean


@torch.no_grad()
def _track(norm: BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean)
    norm.running_mean.mul_(1 - share).add_(share * mean)
    norm.running_var.mul_(1 - share).add_(share * variance * (count / (count - 1)))
