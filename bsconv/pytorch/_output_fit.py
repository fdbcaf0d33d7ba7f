"""Blueprint kernels that reproduce the *outputs* of a layer on data: least squares, tensors only.

A convolution is linear in the patches it sees: ``output = patches @ kernel``. With the second
moments of patches and targets at hand, the data are no longer needed. Half of the factors at a time
the problem is linear (alternating least squares), so the error never rises.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .decomposition import BlueprintFactors, SubspaceFactors

RIDGE = 1e-4  # share of the mean variance of a patch's entries, added to all of them
FILTERS_AT_ONCE = 32  # their systems of equations take M*M numbers each


class Moments(NamedTuple):
    """What least squares needs to know of R patches (R, M*K*K) and targets (R, N)."""

    patches: Tensor  # (M*K*K, M*K*K), covariance
    targets: Tensor  # (M*K*K, N), covariance of patches with targets
    patch_mean: Tensor  # (M*K*K)
    target_mean: Tensor  # (N)


def moments(patches: Tensor, targets: Tensor, *, centered: bool = True) -> Moments:
    """The moments in float64; about zero instead of the means where no constant may be fitted."""
    count = len(patches)
    patch_mean, target_mean = patches.mean(0), targets.mean(0)
    if not centered:
        patch_mean, target_mean = torch.zeros_like(patch_mean), torch.zeros_like(target_mean)
    patches, targets = patches - patch_mean, targets - target_mean
    return Moments(
        (patches.T @ patches).double() / count,
        (patches.T @ targets).double() / count,
        patch_mean.double(),
        target_mean.double(),
    )


def fit_blueprints(known: Moments, start: BlueprintFactors, rounds: int = 15) -> BlueprintFactors:
    """The blueprint kernel with the least squared error on the outputs, reached from ``start``."""
    weights, blueprints = start.weights.double(), start.blueprints.double().flatten(1)
    gram, cross = _by_slices(known, weights.shape[1])
    parts = []
    filters = torch.arange(len(weights), device=weights.device)
    for chosen in torch.split(filters, FILTERS_AT_ONCE):
        w, b, c = weights[chosen], blueprints[chosen], cross[chosen]
        for _ in range(rounds):
            w = _solve(_along_depth(gram, b), torch.einsum("nmk,nk->nm", c, b))
            b = _solve(_along_space(gram, w), torch.einsum("nmk,nm->nk", c, w))
            w, b = _unit_blueprints(w, b)
        parts.append((w, b))
    weights, blueprints = (torch.cat(part) for part in zip(*parts, strict=True))
    return BlueprintFactors(weights, blueprints.view_as(start.blueprints))


def fit_subspace(known: Moments, start: SubspaceFactors, rounds: int = 15) -> SubspaceFactors:
    """The BSConv-S kernel with a small squared error on the outputs.

    ``start`` decides the number of channels in the middle. The basis is the leading one of the
    unconstrained blueprint fit, measured by the outputs it accounts for on average; then mixing and
    blueprints are fitted to it. The basis comes out orthonormal.
    """
    mid = len(start.basis)
    free = fit_blueprints(known, BlueprintFactors(start.mixing @ start.basis, start.blueprints))
    gram, _ = _by_slices(known, free.weights.shape[1])
    blueprints = free.blueprints.flatten(1)
    metric = torch.einsum("akbl,nk,nl->ab", gram, blueprints, blueprints) / len(blueprints)
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.clamp_min(values[-1] * 1e-12).sqrt()
    _, _, right = torch.linalg.svd(free.weights @ root, full_matrices=False)
    rows = right[:mid] @ torch.linalg.inv(root)
    basis = torch.linalg.qr(rows.T).Q.T
    inside = Moments(*_project_patches(known, basis))
    mixing = BlueprintFactors(free.weights @ basis.T, free.blueprints)
    fitted = fit_blueprints(inside, mixing, rounds)
    return SubspaceFactors(fitted.weights, basis, fitted.blueprints)


def constant(known: Moments, kernel: Tensor) -> Tensor:
    """What to add to the outputs of ``kernel`` (N, M, K, K) so that their means fit, shape (N)."""
    return known.target_mean - kernel.flatten(1) @ known.patch_mean


def _by_slices(known: Moments, channels: int) -> tuple[Tensor, Tensor]:
    """The moments with the index of the slice apart: (M, K*K, M, K*K) and (N, M, K*K)."""
    gram = known.patches.clone()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    size = len(gram) // channels
    return gram.view(channels, size, channels, size), known.targets.T.view(-1, channels, size)


def _project_patches(known: Moments, basis: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The moments of the patches of ``basis @ input``."""
    channels = basis.shape[1]
    size = len(known.patches) // channels
    gram = known.patches.view(channels, size, channels, size)
    gram = torch.einsum("ia,akbl,jb->ikjl", basis, gram, basis)
    targets = torch.einsum("ia,akn->ikn", basis, known.targets.view(channels, size, -1))
    mean = basis @ known.patch_mean.view(channels, size)
    flat = len(basis) * size
    return gram.reshape(flat, flat), targets.reshape(flat, -1), mean.flatten(), known.target_mean


def _along_depth(gram: Tensor, blueprints: Tensor) -> Tensor:
    """For each filter the normal equations of its weights, (n, M, M)."""
    channels, size = gram.shape[:2]
    half = torch.einsum("nk,akc->nac", blueprints, gram.reshape(channels, size, channels * size))
    return torch.einsum("nabl,nl->nab", half.view(-1, channels, channels, size), blueprints)


def _along_space(gram: Tensor, weights: Tensor) -> Tensor:
    """For each filter the normal equations of its blueprint, (n, K*K, K*K)."""
    channels, size = gram.shape[:2]
    half = weights @ gram.reshape(channels, size * channels * size)
    return torch.einsum("nkbl,nb->nkl", half.view(-1, size, channels, size), weights)


def _solve(matrices: Tensor, right: Tensor) -> Tensor:
    scale = matrices.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    # a filter of zeros has no equations; it stays zero
    steady = matrices + (1e-9 * scale + (scale == 0))[:, None, None] * eye
    return torch.linalg.solve(steady, right)


def _unit_blueprints(weights: Tensor, blueprints: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(blueprints, dim=1, keepdim=True)
    norm = torch.where(norm > 0, norm, 1.0)
    return weights * norm, blueprints / norm
