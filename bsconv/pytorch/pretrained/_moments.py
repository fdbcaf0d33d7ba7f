"""All that least squares needs to know of the data: second moments of patches and targets.

A convolution is linear in the patches it sees: ``output = patches @ kernel``.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .._tools.numerics import power_of_two_scale, without_mean

RIDGE = 1e-4  # share of the mean variance of a patch's entries with which the prior counts


class Moments(NamedTuple):
    """What least squares needs to know of R patches (R, M*K*K) and targets (R, N)."""

    patches: Tensor  # (M*K*K, M*K*K), covariance
    targets: Tensor  # (M*K*K, N), covariance of patches with targets
    patch_mean: Tensor  # (M*K*K)
    target_mean: Tensor  # (N)


class Patches:
    """R patches (R, M*K*K), and their moments with whatever target, in float64.

    The moments are about zero instead of the means unless ``centered``, where no constant may be
    fitted. Products are summed in the precision of the patches, columns scaled to about one.
    """

    def __init__(self, rows: Tensor, *, centered: bool = True) -> None:
        self.centered = centered
        self.rows, self.mean, self.unit = self._prepared(rows)
        self.covariance = self._products(self.rows, self.unit)
        self.ridge = float(RIDGE * self.covariance.diagonal().mean())

    @cached_property
    def steady(self) -> Tensor:
        """The covariance with a ridge."""
        covariance = self.covariance.clone()
        covariance.diagonal().add_(self.ridge)
        return covariance

    @cached_property
    def _cholesky(self) -> Tensor:
        return torch.linalg.cholesky(self.steady)

    def moments(self, targets: Tensor, prior: Tensor | None = None) -> Moments:
        """With a ``prior`` kernel (N, M, K, K), what the patches leave open is decided by it."""
        rows, mean, scale = self._prepared(targets)
        products = self._products(rows, scale)
        if prior is None:
            return Moments(self.covariance, products, self.mean, mean)
        return Moments(
            self.steady, products + self.ridge * prior.flatten(1).T.double(), self.mean, mean
        )

    def solve(self, known: Moments) -> Tensor:
        """The kernel (N, M*K*K) with the least squared error, of moments with a prior."""
        return torch.cholesky_solve(known.targets, self._cholesky).T.contiguous()

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


def moments(patches: Tensor, targets: Tensor, *, centered: bool = True) -> Moments:
    """All moments at once, for a target that is fitted only once."""
    return Patches(patches, centered=centered).moments(targets)


def constant(known: Moments, kernel: Tensor) -> Tensor:
    """What to add to the outputs of ``kernel`` (N, M, K, K) so that their means fit, shape (N)."""
    return known.target_mean - kernel.flatten(1) @ known.patch_mean
