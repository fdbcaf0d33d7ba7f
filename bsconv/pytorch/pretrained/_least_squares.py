"""BSConv-U and -S kernels that reproduce the *outputs* of a layer: least squares, tensors only.

Half of the factors at a time the problem is linear (alternating least squares), so the error never
rises.
"""

import math

import torch
from torch import Tensor

from ..decomposition import BlueprintFactors, SubspaceFactors
from ._moments import Moments

ROUNDS = 8
FILTERS_AT_ONCE = 32  # their systems of equations take M*M numbers each


def fit_blueprints(
    known: Moments,
    start: BlueprintFactors,
    metric: Tensor | None = None,
    rounds: int = ROUNDS,
) -> BlueprintFactors:
    """The blueprint kernel with the least squared error on the outputs, reached from ``start``.

    With a positive definite ``metric`` (N, N), the mean of ``e @ metric @ e`` is minimised instead,
    e being the errors of all N filters at one place: these may then make up for one another. That
    takes one more round, filter by filter, after ``rounds`` for all filters apart.
    """
    weights, blueprints = start.weights.double(), start.blueprints.double().flatten(1)
    pairs, cross = _by_slices(known, weights.shape[1])
    parts = []
    filters = torch.arange(len(weights), device=weights.device)
    for chosen in torch.split(filters, FILTERS_AT_ONCE):
        w, b = weights[chosen], blueprints[chosen]
        for _ in range(rounds):
            w, b = _alternate(pairs, cross[chosen], b)
        parts.append((w, b))
    weights, blueprints = (torch.cat(part) for part in zip(*parts, strict=True))
    if metric is not None:
        weights, blueprints = _joint_round(known.patches, pairs, cross, weights, blueprints, metric)
    return BlueprintFactors(weights, blueprints.view_as(start.blueprints))


def fit_subspace(
    known: Moments, start: SubspaceFactors, metric: Tensor | None = None, rounds: int = ROUNDS
) -> SubspaceFactors:
    """The BSConv-S kernel with a small error on the outputs, measured as by :func:`fit_blueprints`.

    ``start`` decides the number of channels in the middle. The basis is the leading one of the
    unconstrained blueprint fit, measured by the outputs it accounts for on average; then mixing and
    blueprints are fitted to it. The basis comes out orthonormal. With ``rounds=0`` it stays as it
    is, and mixing and blueprints alone are improved.
    """
    basis, free = start.basis, BlueprintFactors(start.mixing @ start.basis, start.blueprints)
    if rounds:
        free = fit_blueprints(known, free, metric, rounds)
        basis = _leading_basis(known, free, metric, len(basis))
    inside = Moments(*_project_patches(known, basis))
    mixing = BlueprintFactors(free.weights @ basis.T, free.blueprints)
    fitted = fit_blueprints(inside, mixing, metric, rounds)
    return SubspaceFactors(fitted.weights, basis, fitted.blueprints)


def _leading_basis(
    known: Moments, free: BlueprintFactors, metric: Tensor | None, count: int
) -> Tensor:
    """The orthonormal rows (count, M) that account for most of the outputs."""
    pairs, _ = _by_slices(known, free.weights.shape[1])
    blueprints = free.blueprints.flatten(1)
    values, vectors = torch.linalg.eigh(_along_depth(pairs, blueprints).mean(0))
    root = vectors * torch.where(values > 0, values, 1.0).sqrt()  # all zero where nothing is fitted
    weights = free.weights if metric is None else torch.linalg.cholesky(metric).mT @ free.weights
    _, _, right = torch.linalg.svd(weights @ root, full_matrices=False)
    return torch.linalg.qr((right[:count] @ torch.linalg.inv(root)).T).Q.T


def _by_slices(known: Moments, channels: int) -> tuple[Tensor, Tensor]:
    """The covariance of patches, pairs of positions by pairs of slices (K^4, M*M); (N, M, K*K)."""
    gram = known.patches
    size = len(gram) // channels
    pairs = gram.view(channels, size, channels, size).permute(1, 3, 0, 2)
    return pairs.reshape(size**2, channels**2), known.targets.T.view(-1, channels, size)


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


def _alternate(pairs: Tensor, cross: Tensor, blueprints: Tensor) -> tuple[Tensor, Tensor]:
    """The best weights for the blueprints, and then the best blueprints for these weights."""
    right = (cross @ blueprints[:, :, None])[:, :, 0]
    weights = _solve(_along_depth(pairs, blueprints), right)
    right = (weights[:, None] @ cross)[:, 0]
    return _unit_blueprints(weights, _solve(_along_space(pairs, weights), right))


def _joint_round(
    gram: Tensor,
    pairs: Tensor,
    cross: Tensor,
    weights: Tensor,
    blueprints: Tensor,
    metric: Tensor,
) -> tuple[Tensor, Tensor]:
    """Each filter again, given what the others leave of the error at present."""
    weights, blueprints = weights.clone(), blueprints.clone()
    errors = (weights[:, :, None] * blueprints[:, None]).flatten(1) @ gram - cross.flatten(1)
    for n in range(len(weights)):
        others = metric[n] @ errors - metric[n, n] * errors[n]
        target = cross[n] - (others / metric[n, n]).view_as(cross[n])
        w, b = _alternate(pairs, target[None], blueprints[n, None])
        weights[n], blueprints[n] = w[0], b[0]
        errors[n] = (w.T * b).flatten() @ gram - cross[n].flatten()
    return weights, blueprints


def _along_depth(pairs: Tensor, blueprints: Tensor) -> Tensor:
    """For each filter the normal equations of its weights, (n, M, M)."""
    square = (blueprints[:, :, None] * blueprints[:, None]).flatten(1)
    channels = math.isqrt(pairs.shape[1])
    return (square @ pairs).view(-1, channels, channels)


def _along_space(pairs: Tensor, weights: Tensor) -> Tensor:
    """For each filter the normal equations of its blueprint, (n, K*K, K*K)."""
    square = (weights[:, :, None] * weights[:, None]).flatten(1)
    size = math.isqrt(pairs.shape[0])
    return (square @ pairs.T).view(-1, size, size)


def _solve(matrices: Tensor, right: Tensor) -> Tensor:
    """``matrices``, which are changed, get a diagonal that keeps them regular."""
    diagonals = matrices.diagonal(dim1=1, dim2=2)
    scale = diagonals.mean(1, keepdim=True)
    # a filter of zeros has no equations; it stays zero
    diagonals.add_(1e-9 * scale + (scale == 0))
    return torch.linalg.solve(matrices, right)


def _unit_blueprints(weights: Tensor, blueprints: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(blueprints, dim=1, keepdim=True)
    norm = torch.where(norm > 0, norm, 1.0)
    return weights * norm, blueprints / norm
