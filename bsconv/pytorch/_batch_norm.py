"""What a BatchNorm behind a pointwise convolution amounts to: a scale and a shift per channel."""

import torch
from torch import Tensor, nn


def scale_and_shift(norm: nn.BatchNorm2d, weight: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """What ``norm`` does to the channels (n,) of the convolution of ``images`` with ``weight``.

    ``weight``: (n, m, 1, 1), ``images``: (b, m, h, w). In training, mean and variance of the
    outputs follow from those of the images, W m and diag(W C W^T), so the outputs themselves are
    not needed; the running statistics are updated as ever.
    """
    matrix = weight.flatten(1)
    with torch.autocast(images.device.type, enabled=False):
        if norm.training or norm.running_mean is None:
            mean, covariance = _moments(images)
            mean, variance = matrix @ mean, (matrix @ covariance * matrix).sum(1).clamp(min=0)
            if norm.training:
                _track(norm, mean.detach(), variance.detach(), images.numel() // images.shape[1])
        else:
            assert norm.running_var is not None
            mean, variance = norm.running_mean, norm.running_var
        scale = (variance + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight
            return scale, norm.bias - mean * scale
        return scale, -mean * scale


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (m,) and covariance (m, m) of the pixels, in float32 at least."""
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)
    if pixels.dtype in (torch.float16, torch.bfloat16):
        pixels = pixels.float()
    mean = pixels.mean(0)
    centered = pixels - mean
    return mean, centered.mT @ centered / len(pixels)


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean)
    norm.running_mean.mul_(1 - share).add_(share * mean)
    norm.running_var.mul_(1 - share).add_(share * variance * (count / (count - 1)))
