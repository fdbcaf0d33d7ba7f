"""Dense kernels as blueprints and weights, and back: tensors only (paper, section 3).

A kernel has shape (N, M, Kh, Kw) for N filters of M slices, or one or three sizes in place of two.
Factors are in float64. A kernel that has another shape or is not finite is a ValueError.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._tools.convs import check_shape, check_sizes, is_size
from ._tools.numerics import exact

MAX_ALTERNATIONS = 10
MAX_SHARED_ALTERNATIONS = 50
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


class SharedFactors(NamedTuple):
    """``kernel[n, m] ~ sum_r mixing[n, r] * weights[r, m] * blueprints[r]`` (BSConv-CP)."""

    mixing: Tensor  # (N, R)
    weights: Tensor  # (R, M)
    blueprints: Tensor  # (R, Kh, Kw)


def compose(weights: Tensor, blueprints: Tensor) -> Tensor:
    """The dense kernel (N, M, Kh, Kw) of weights (N, M) and blueprints (N, Kh, Kw)."""
    check_shape("weights", "(N, M)", weights, 2)
    check_shape("blueprints", "(N, *kernel size)", blueprints, 2, 3, 4)
    return torch.einsum("nm,n...->nm...", weights, blueprints)


def blueprint_factors(kernel: Tensor) -> BlueprintFactors:
    """The blueprint kernel closest to ``kernel`` in the sum of squares, filter by filter.

    This is each filter's best rank-1 approximation (Eckart-Young). The two factors share the norm
    equally, which is what gradient descent keeps; the blueprint's largest entry is positive.
    """
    filters, scale = _filters(kernel)
    blueprints = _leading_blueprints(filters)
    weights = torch.einsum("nmk,nk->nm", filters, blueprints)
    weights, blueprints = _share_norm(weights, blueprints, scale[:, None])
    return BlueprintFactors(weights, blueprints.view(-1, *kernel.shape[2:]))


def subspace_factors(kernel: Tensor, mid_channels: int) -> SubspaceFactors:
    """The BSConv-S kernel of ``mid_channels`` close to ``kernel`` in the sum of squares.

    Alternates between the best basis for the blueprints and the best blueprints for the basis.
    Exact where there is such a kernel. Raises ValueError unless 1 <= mid_channels <= in_channels.
    """
    filters, largest = _on_one_scale(*_filters(kernel))
    if not is_size(mid_channels) or mid_channels > filters.shape[1]:
        rule = f"1 <= mid_channels <= {filters.shape[1]}, the number of input channels"
        raise ValueError(f"mid_channels needs {rule}, got {mid_channels}")
    blueprints, kept = _leading_blueprints(filters), filters.new_zeros(())
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


def shared_factors(kernel: Tensor, blueprints: int) -> SharedFactors:
    """A CP decomposition of ``kernel`` into ``blueprints`` components, close in the sum of squares.

    The best of alternating least squares from three starts: the leading singular vectors of the
    filters, of the filters rotated onto their principal axes, and of the channels so rotated.
    """
    check_sizes("shared_factors", blueprints=blueprints)
    tensor, largest = _on_one_scale(*_filters(kernel))
    starts = [_truncated(tensor, blueprints, rotated) for rotated in (False, True)]
    weights, mixing, patterns = _truncated(tensor.transpose(0, 1), blueprints, rotated=True)
    starts.append([mixing, weights, patterns])
    _, found = min((_alternated(tensor, start) for start in starts), key=lambda one: float(one[0]))
    mixing, weights, patterns = _balanced(found, largest, blueprints)
    return SharedFactors(mixing, weights.mT, patterns.mT.reshape(-1, *kernel.shape[2:]))


def _truncated(tensor: Tensor, count: int, rotated: bool) -> list[Tensor]:
    """Factors (A, R), (B, R), (C, R) of the largest singular components of slices (B, C)."""
    axes, rows = torch.eye(len(tensor)).to(tensor), tensor.flatten(1)
    if rotated:
        axes = torch.linalg.eigh(rows @ rows.mT).eigenvectors.flip(1)
    slices = torch.einsum("ap,abc->pbc", axes, tensor)
    left, values, right = torch.linalg.svd(slices, full_matrices=False)
    leading = values.flatten().argsort(descending=True)[:count]
    at, rank = torch.unravel_index(leading, values.shape)
    return [axes[:, at] * values[at, rank], left[at, :, rank].mT, right[at, rank].mT]


def _alternated(tensor: Tensor, factors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The squared error and the factors after some rounds of alternating least squares."""
    error = _error(tensor, factors)
    for _ in range(MAX_SHARED_ALTERNATIONS):
        better = list(factors)
        for axis, formula in enumerate(("abc,br,cr->ar", "abc,ar,cr->br", "abc,ar,br->cr")):
            one, other = (factor for number, factor in enumerate(better) if number != axis)
            gram = (one.mT @ one) * (other.mT @ other)
            products = torch.einsum(formula, tensor, one, other)
            better[axis] = products @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
        error_before, after = error, _error(tensor, better)
        if after < error:
            error, factors = after, better
        if not error_before - error > GAIN_WORTH_GOING_ON * error_before:
            break
    return error, factors


def _balanced(factors: list[Tensor], scale: Tensor, count: int) -> list[Tensor]:
    """``count`` components times ``scale``, with norm shared and the last factor's sign fixed."""
    norms = [torch.linalg.vector_norm(factor, dim=0) for factor in factors]
    share = (norms[0] * norms[1] * norms[2] * scale) ** (1 / 3)
    units = [f / torch.where(norm > 0, norm, 1.0) for f, norm in zip(factors, norms, strict=True)]
    last = units[2]
    signs = last.gather(0, last.abs().argmax(0, keepdim=True)).sign()
    units[1], units[2] = units[1] * signs, last * signs
    missing = (0, count - len(share))  # have a mixing of zeros, the others of ones: a gradient
    return [pad(u * share, missing, value=float(i > 0)) for i, u in enumerate(units)]


def _error(tensor: Tensor, factors: list[Tensor]) -> Tensor:
    return (tensor - torch.einsum("ar,br,cr->abc", *factors)).square().sum()


def _filters(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Filters as matrices (N, M, Kh*Kw) of largest entry 1, and what each was divided by (N)."""
    check_shape("kernel", "(N, M, *kernel size)", kernel, 3, 4, 5)
    if kernel.is_complex():
        raise ValueError(f"kernel needs real numbers, got {kernel.dtype}")
    filters = exact(kernel).flatten(2)
    if not filters.isfinite().all():
        raise ValueError("kernel needs finite numbers, got NaN or infinity among them")
    scale = filters.abs().amax(dim=(1, 2))
    return filters / torch.where(scale > 0, scale, 1.0)[:, None, None], scale


def _on_one_scale(filters: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Filters of largest entry 1 in the whole kernel, and what it was divided by."""
    largest = scale.amax()
    return filters * (scale / torch.where(largest > 0, largest, 1.0))[:, None, None], largest


def _leading_blueprints(filters: Tensor) -> Tensor:
    """The unit vector (N, Kh*Kw) that explains most of each matrix (N, M, Kh*Kw)."""
    leading = torch.linalg.eigh(filters.mT @ filters).eigenvectors[..., -1]
    largest = leading.gather(1, leading.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -leading, leading)


def _leading_rows(matrix: Tensor, count: int) -> Tensor:
    """``count`` orthonormal rows that span as much of the rows of ``matrix`` as that many can."""
    filters, channels = matrix.shape
    if filters >= channels:
        return torch.linalg.eigh(matrix.mT @ matrix).eigenvectors[:, -count:].mT
    return torch.linalg.svd(matrix, full_matrices=count > filters).Vh[:count]


def _share_norm(weights: Tensor, blueprints: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same products times ``scale``, each row's norm shared with its unit blueprint."""
    # the scale stays apart to the end: squares of the largest numbers would be infinite
    norm = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
    # a filter of zeros keeps its unit blueprint: two zero factors would have no gradient
    share, root = (torch.where(norm > 0, part.sqrt(), 1.0) for part in (norm, scale))
    return weights / share * root, blueprints * (share * root)
