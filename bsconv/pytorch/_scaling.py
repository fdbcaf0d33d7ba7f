"""Numbers brought near one, so that their squares and the sums of these are numbers as well."""

import torch
from torch import Tensor

CONSTANT = 32  # roundings of the mean: what differs from it by no more is the same number


def unit(rows: Tensor) -> Tensor:
    """For each column the power of two that brings its largest entry to between one and two.

    Dividing by it is exact, so results are the same to the last bit wherever they were right.
    """
    largest = rows.detach().abs().amax(0)
    power = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)
    return torch.where((largest > 0) & largest.isfinite(), power, 1.0)


def without_mean(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Columns without their mean, and the mean; zeros where only rounding is left of a column."""
    mean = rows.mean(0)
    rest = rows - mean
    rounding = CONSTANT * torch.finfo(rows.dtype).eps * mean.abs()
    return rest.masked_fill(rest.abs().amax(0) <= rounding, 0.0), mean


def check_finite(where: str, *tensors: Tensor) -> None:
    """Raises ValueError where images made a model overflow."""
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError(
            f"images needs numbers for which the model stays finite, got NaN or infinity at {where}"
        )
