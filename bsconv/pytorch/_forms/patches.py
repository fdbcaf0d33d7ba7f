"""What a convolution sees at some places, and its moments with what is wanted there.

A convolution is linear in the patches it sees: ``output = patches @ kernel.T``, kernel (N, M*K*K).
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .._tools.numerics import power_of_two_scale

CONSTANT = 32  # roundings of the mean: what differs from it by no more is the same number
RIDGE = 1e-4  # share of the mean variance of a patch's entries with which the prior counts


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
