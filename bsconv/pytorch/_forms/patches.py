"""What a convolution sees at some places, and its moments with what is wanted there.

A convolution is linear in the patches it sees: ``output = patches @ kernel.T``, kernel (N, M*K*K).
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.convs import Conv
from .._tools.numerics import power_of_two_scale

PLACES = 40_000  # that are looked at in a layer, in all images together
FEWEST_POSITIONS = 64  # in each of them
CONSTANT = 32  # roundings of the mean: what differs from it by no more is the same number
RIDGE = 1e-4  # share of the mean variance of a patch's entries with which the prior counts


class Sampler(NamedTuple):
    """Random places of maps: new ones in each group of images, the same in all maps of a size."""

    group_size: int
    positions: int | None = None  # in each image; None: as many as make PLACES in all

    def most(self, images: int) -> int:
        """Places in each of so many images."""
        return self.positions or max(FEWEST_POSITIONS, math.ceil(PLACES / images))

    def rows(self, layer: Conv | nn.Linear, maps: Tensor) -> Tensor:
        """Places of maps (B, N, ...), of a Linear (B, ..., N), as rows (R, N)."""
        maps = maps.movedim(-1, 1) if isinstance(layer, nn.Linear) else maps
        return self._chosen(maps, 1, lambda group: group.reshape(*group.shape[:2], -1))

    def patches(self, conv: Conv | nn.Linear, images: Tensor) -> Tensor:
        """What ``conv`` sees at the same places of its output, as rows (R, M*Kh*Kw)."""
        if isinstance(conv, nn.Linear):
            return self.rows(conv, images)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]

        def windows(group: Tensor) -> Tensor:
            seen = F.pad(group, conv._reversed_padding_repeated_twice, mode=mode)
            for axis, span in enumerate(spans):
                seen = seen.unfold(axis + 2, span, conv.stride[axis])
            steps: Any = (..., *(slice(None, None, step) for step in conv.dilation))
            return seen[steps]

        return self._chosen(images, len(spans), windows)

    def _chosen(self, maps: Tensor, dimensions: int, windows: Callable[[Tensor], Tensor]) -> Tensor:
        """Rows of windows (B, N, *places, ...), which are views."""
        positions = self.most(len(maps))
        generator = torch.Generator().manual_seed(0)
        found = []
        for group in torch.split(maps, self.group_size):
            seen = windows(group)
            sides = seen.shape[2 : 2 + dimensions]
            places = torch.randperm(sides.numel(), generator=generator)[:positions]
            at = torch.unravel_index(places.to(maps.device), sides)
            index: Any = (slice(None), slice(None), *at)
            rows = seen[index].transpose(1, 2).flatten(2).flatten(0, 1)
            found.append(rows.to(torch.promote_types(rows.dtype, torch.float32)))
        return torch.cat(found)


class Patches:
    """R patches (R, M*K*K), and their moments with any target (R, N), in float64.

    They are about zero instead of the means unless ``centered``. Products are summed in the
    precision of the patches, columns scaled to about one.
    """

    def __init__(self, rows: Tensor, *, centered: bool = True, ridge: float = RIDGE) -> None:
        self.centered = centered
        self.rows, self.mean, self.unit = self._prepared(rows)
        self.covariance = self._products(self.rows, self.unit)
        variance = self.covariance.diagonal().mean()
        if len(rows) < rows.shape[1]:  # then rounding leaves less than nothing in some directions
            ridge = max(ridge, rows.shape[1] * torch.finfo(torch.float32).eps)
        self.ridge = ridge * variance.where(variance > 0, 1.0)
        self.steady = self.covariance.clone()  # the covariance with a ridge
        self.steady.diagonal().add_(self.ridge)

    @cached_property
    def _cholesky(self) -> Tensor:
        return torch.linalg.cholesky(self.steady)

    def cross(self, targets: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Moments (N, M*K*K) of targets, and means; the ``prior`` decides what they leave open."""
        rows, mean, scale = self._prepared(targets)
        return self._products(rows, scale).T + self.ridge * prior.double(), mean

    def solve(self, cross: Tensor) -> Tensor:
        return torch.cholesky_solve(cross.T, self._cholesky).T.contiguous()

    def _prepared(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled rows without their mean, the mean as it was, and the scale of each column."""
        scale = power_of_two_scale(rows)
        rows, mean = rows / scale, rows.new_zeros(rows.shape[1])
        if self.centered:
            rows, mean = without_mean(rows)
        return rows, mean.double() * scale.double(), scale

    def _products(self, others: Tensor, scale: Tensor) -> Tensor:
        products = (self.rows.T @ others).double() / len(others)
        return self.unit.double()[:, None] * products * scale.double()


def without_mean(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Columns without their mean, and the mean; zeros where only rounding is left of a column."""
    mean = rows.mean(0)
    rest = rows - mean
    rounding = CONSTANT * torch.finfo(rows.dtype).eps * mean.abs()
    return rest.masked_fill(rest.abs().amax(0) <= rounding, 0.0), mean


def rectified(found: Tensor, wanted: Tensor, active: Callable[[Tensor], Tensor]) -> Tensor:
    """What is wanted; but below zero only as far as an activation lets the error through."""
    return wanted.where(wanted > 0, found - (active(found) - active(wanted)))


def rectifies(active: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether it leaves errors above zero about as they are, and makes those below smaller."""
    low, zero, high = (active(torch.full_like(like, at)).float() for at in (-8, 0, 1))
    above, below = high - zero, (zero - low) / 8
    bounded = above.min() > 0.6 and max(above.max(), below.abs().max()) < 1.1
    return bool(bounded and below.mean() < 0.9 * above.mean())


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The squared error of rows relative to the variance of what is wanted."""
    found, wanted = found.double(), wanted.double()  # float32 may not hold the squares
    variance = float(wanted.var(dim=0, correction=0).sum())
    return float((found - wanted).square().mean(0).sum()) / variance if variance > 0 else 0.0
