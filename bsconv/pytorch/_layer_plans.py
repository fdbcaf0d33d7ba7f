"""How a BSConv layer is computed: its convolutions in turn, or multiplied into fewer.

All ways are the same function of the same weights. Which of them is the fastest depends on shapes,
dtype and device, so it is measured.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._tools.numerics import exact_dtype
from ._tools.timing import synchronize


def centre_of(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """About the mean that ``norm`` takes off, shape (m,): the images' own, or the running one.

    BatchNorm may magnify what remains without it, and with it the rounding of any other sum.
    """
    if _takes_batch(norm):
        return images.detach().mean((0, 2, 3))
    assert norm.running_mean is not None
    return norm.running_mean.to(images.dtype)


def normed_product(
    first: nn.BatchNorm2d, weight: Tensor, second: nn.BatchNorm2d, images: Tensor, centre: Tensor
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


def _takes_batch(norm: nn.BatchNorm2d) -> bool:
    return norm.training or norm.running_mean is None


def _scale_and_shift(
    norm: nn.BatchNorm2d, mean: Tensor | None, variance: Tensor | None, count: int
) -> tuple[Tensor, Tensor]:
    if not _takes_batch(norm):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        exact = exact_dtype(norm.running_mean)
        mean, variance = norm.running_mean.to(exact), norm.running_var.to(exact)
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
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2).to(exact_dtype(images))
    mean = pixels.mean(0)
    return mean, pixels.mT @ pixels / len(pixels) - mean[:, None] * mean


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.to(mean)
    norm.running_mean.mul_(1 - share).add_(share * mean)
    norm.running_var.mul_(1 - share).add_(share * variance * (count / (count - 1)))


REPEATS = 3

_fastest: dict[tuple[Any, ...], str] = {}


def is_plain(layer: nn.Module) -> bool:
    """Whether calling ``layer`` is its convolution or BatchNorm and nothing else."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    plain = type(layer) in (nn.Conv2d, nn.BatchNorm2d) and "forward" not in layer.__dict__
    return plain and not hooked and not layer._backward_pre_hooks


def takes_time(images: Tensor) -> bool:
    """Whether there is something to measure: what is traced or on the meta device takes none."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    traced = torch.compiler.is_compiling() or tracing
    return not traced and not images.is_meta and type(images) in (Tensor, nn.Parameter)


def convolve(
    plan: str, images: Tensor, pointwise: Sequence[Tensor], blueprints: Tensor, dw: nn.Conv2d
) -> Tensor:
    """What pointwise convolutions with these weights compute, and then ``dw`` with ``blueprints``.

    "joined": the pointwise weights multiplied into one; "merged": all of them multiplied into one
    dense kernel; "narrow": all but the first.
    """
    if plan == "narrow":
        images = F.conv2d(images, pointwise[0])
        return _as_dw(dw, images, pointwise[1] * blueprints, groups=1)
    product = _product(pointwise)
    if plan == "merged":
        return _as_dw(dw, images, product * blueprints, groups=1)
    return _as_dw(dw, F.conv2d(images, product), blueprints, groups=dw.groups)


def convolve_normed(
    images: Tensor,
    pointwise: tuple[nn.Conv2d, nn.Conv2d],
    norms: tuple[nn.BatchNorm2d, nn.BatchNorm2d],
    dw: nn.Conv2d,
) -> Tensor:
    """Plan "narrow" with a BatchNorm behind each pointwise convolution.

    What they add to the channels, ``dw`` spreads over positions as it does with any images: at the
    border, where it is padded, less than elsewhere. This map is the same for all images.
    """
    images = F.conv2d(images, pointwise[0].weight)
    centre = centre_of(norms[0], images)
    images = images - centre[:, None, None]
    matrix, constant = normed_product(norms[0], pointwise[1].weight, norms[1], images, centre)
    output = _as_dw(dw, images, matrix[:, :, None, None] * dw.weight, groups=1)
    with torch.autocast(images.device.type, enabled=False):
        flat = constant[None, :, None, None].expand(-1, -1, *images.shape[2:])
        added = _as_dw(dw, flat, dw.weight, groups=dw.groups, bias=False)
    return output + added.to(output.dtype)


def fastest_plan(plans: Sequence[str], layer: nn.Module, images: Tensor) -> str:
    """The plan with the shortest forward pass, and backward pass where gradients are recorded.

    Measured the first time for these shapes, dtype, device and mode, on a copy, and remembered.
    """
    weights = [tensor.shape for tensor in layer.parameters()]
    key = (*plans, *_situation(images), *weights, repr(layer), layer.training)
    if key not in _fastest:
        trial = copy.deepcopy(layer)
        example = images.detach().requires_grad_(torch.is_grad_enabled())
        seconds = dict.fromkeys(plans, float("inf"))
        for _ in range(1 + REPEATS):  # alternating; the first round only warms up
            for plan in plans:
                seconds[plan] = min(seconds[plan], _seconds(plan, trial, example))
        _fastest[key] = min(plans, key=seconds.__getitem__)
    return _fastest[key]


def _seconds(plan: str, layer: Any, images: Tensor) -> float:
    layer.plan = plan
    synchronize(images.device)
    start = time.perf_counter()
    output = layer(images)
    if output.requires_grad:
        wanted = [images, *(weight for weight in layer.parameters() if weight.requires_grad)]
        torch.autograd.grad(output, wanted, torch.ones_like(output))
    synchronize(images.device)
    return time.perf_counter() - start


def _situation(images: Tensor) -> tuple[Any, ...]:
    device = images.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    return (
        *(images.shape, images.stride(), images.dtype, images.device, autocast),
        *(torch.is_grad_enabled(), torch.get_num_threads()),
    )


def _product(pointwise: Sequence[Tensor]) -> Tensor:
    product = pointwise[0]
    for weight in pointwise[1:]:
        product = (weight.flatten(1) @ product.flatten(1))[:, :, None, None]
    return product


def _as_dw(
    dw: nn.Conv2d, images: Tensor, weight: Tensor, *, groups: int, bias: bool = True
) -> Tensor:
    """A convolution with the geometry and the bias of ``dw``."""
    padding: str | tuple[int, ...] = dw.padding
    if dw.padding_mode != "zeros":
        images = F.pad(images, dw._reversed_padding_repeated_twice, mode=dw.padding_mode)
        padding = 0, 0
    added = dw.bias if bias else None
    return F.conv2d(images, weight, added, dw.stride, padding, dw.dilation, groups)
