"""Dense kernels as blueprints and weights, and back: tensors only (paper, section 3).

A kernel has shape (N, M, Kh, Kw): N filters of M slices. A blueprint kernel is one whose slices are
all multiples of one another: ``kernel[n, m] = weights[n, m] * blueprints[n]``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_ALTERNATIONS = 10
GAIN_WORTH_GOING_ON = 1e-3  # share of the kernel's energy


class BlueprintFactors(NamedTuple):
    """``kernel[n, m] ~ weights[n, m] * blueprints[n]`` (BSConv-U)."""

    weights: Tensor  # (N, M)
    blueprints: Tensor  # (N, Kh, Kw)


class SubspaceFactors(NamedTuple):
    """``kernel[n, m] ~ (mixing @ basis)[n, m] * blueprints[n]`` (BSConv-S)."""

    mixing: Tensor  # (N, M'), W_A in the paper
    basis: Tensor  # (M', M), W_B in the paper, rows orthonormal
    blueprints: Tensor  # (N, Kh, Kw)


def compose(weights: Tensor, blueprints: Tensor) -> Tensor:
    """The dense kernel (N, M, Kh, Kw) of weights (N, M) and blueprints (N, Kh, Kw)."""
    return torch.einsum("nm,nhw->nmhw", weights, blueprints)


def blueprint_factors(kernel: Tensor) -> BlueprintFactors:
    """The blueprint kernel closest to ``kernel`` in the sum of squares, filter by filter.

    This is each filter's best rank-1 approximation (Eckart-Young), exact for a blueprint kernel. Of
    the scales that give the same product, the two factors share the norm equally, which is what
    gradient descent keeps; the blueprint's largest entry is positive. Computed and returned in
    float64. Raises ValueError for a kernel that has not four dimensions or is not finite.
    """
    filters, scale = _filters(kernel)
    blueprints = _leading_blueprints(filters)
    weights = torch.einsum("nmk,nk->nm", filters, blueprints)
    weights, blueprints = _share_norm(weights, blueprints, scale[:, None])
    return BlueprintFactors(weights, blueprints.view(-1, *kernel.shape[2:]))


def subspace_factors(kernel: Tensor, mid_channels: int) -> SubspaceFactors:
    """The BSConv-S kernel of ``mid_channels`` close to ``kernel`` in the sum of squares.

    Alternates between the best basis for the blueprints at hand and the best blueprints for that
    basis, so the error of the whole kernel never rises; it starts from :func:`blueprint_factors`.
    Exact where a BSConv-S of that width has this kernel. Computed and returned in float64.

    Raises ValueError for a kernel that has not four dimensions or is not finite, and unless
    1 <= mid_channels <= in_channels.
    """
    filters, scale = _filters(kernel)
    if not 1 <= mid_channels <= filters.shape[1]:
        raise ValueError(
            f"mid_channels needs 1 <= mid_channels <= {filters.shape[1]}, the number of input "
            f"channels, got {mid_channels}"
        )
    largest = scale.amax()
    filters = filters * (scale / torch.where(largest > 0, largest, 1.0))[:, None, None]
    blueprints = _leading_blueprints(filters)
    kept = torch.zeros((), dtype=filters.dtype, device=filters.device)
    for _ in range(MAX_ALTERNATIONS):
        basis = _leading_rows(torch.einsum("nmk,nk->nm", filters, blueprints), mid_channels)
        inside = torch.einsum("cm,nmk->nck", basis, filters)
        blueprints = _leading_blueprints(inside)
        mixing = torch.einsum("nck,nk->nc", inside, blueprints)
        kept_before, kept = kept, mixing.square().sum()
        if kept - kept_before <= GAIN_WORTH_GOING_ON * kept:
            break
    mixing, blueprints = _share_norm(mixing, blueprints, largest)
    return SubspaceFactors(mixing, basis, blueprints.view(-1, *kernel.shape[2:]))


def _filters(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Filters as matrices (N, M, Kh*Kw) of largest entry 1, and what each was divided by (N)."""
    if kernel.dim() != 4:
        raise ValueError(f"kernel needs shape (N, M, Kh, Kw), got shape {tuple(kernel.shape)}")
    # Apple's GPUs have no float64
    kernel = kernel.detach().to("cpu" if kernel.device.type == "mps" else kernel.device)
    filters = kernel.to(torch.float64).flatten(2)
    if not filters.isfinite().all():
        raise ValueError("kernel needs finite numbers, got NaN or infinity among them")
    scale = filters.abs().amax(dim=(1, 2))
    return filters / torch.where(scale > 0, scale, 1.0)[:, None, None], scale


def _leading_blueprints(filters: Tensor) -> Tensor:
    """The unit vector (N, Kh*Kw) that explains most of each matrix (N, M, Kh*Kw)."""
    _, vectors = torch.linalg.eigh(filters.mT @ filters)
    leading = vectors[..., -1]
    largest = leading.gather(1, leading.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -leading, leading)


def _leading_rows(matrix: Tensor, count: int) -> Tensor:
    """``count`` orthonormal rows that span as much of the rows of ``matrix`` as that many can."""
    filters, channels = matrix.shape
    if filters >= channels:
        _, vectors = torch.linalg.eigh(matrix.mT @ matrix)
        return vectors[:, -count:].mT
    if count <= filters:
        return torch.linalg.svd(matrix, full_matrices=False).Vh[:count]
    return torch.linalg.qr(matrix.mT, mode="complete").Q.mT[:count]


def _share_norm(weights: Tensor, blueprints: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same products times ``scale``, each row's norm shared with its unit blueprint.

    The scale stays apart to the end: squares of the largest numbers would be infinite.
    """
    norm = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
    # a filter of zeros keeps its unit blueprint: two zero factors would have no gradient
    share, root = (torch.where(norm > 0, part.sqrt(), 1.0) for part in (norm, scale))
    return weights / share * root, blueprints * (share * root)
