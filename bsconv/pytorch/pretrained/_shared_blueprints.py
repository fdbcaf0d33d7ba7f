"""BSConv-CP kernels that reproduce the *outputs* of a layer: least squares, tensors only.

``kernel[n, m] = sum over r of mixing[n, r] * weights[r, m] * blueprints[r]``. The best mixing for
the others is known in closed form. Weights and blueprints are the solutions of linear systems that
are too large to write down; conjugate gradients come close in a few steps, because all matrices in
them are close to Kronecker products of small ones.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..decomposition import SharedFactors
from ._moments import Moments

ROUNDS = 16
STEPS = 8  # of conjugate gradients in a round
TRIAL_ROUNDS = 2  # with which the starts are compared
STEADY = 1e-6  # share of the mean diagonal that is added to small matrices
Linear = Callable[[Tensor], Tensor]


class _Problem:
    """The error tr(S (K - K*) G (K - K*)^T) of kernels, up to its constant, and its parts."""

    def __init__(self, known: Moments, metric: Tensor, channels: int) -> None:
        self.gram, self.cross, self.metric = known.patches, known.targets.T, metric
        self.channels = channels
        self.size = len(self.gram) // channels
        blocks = self.gram.view(channels, self.size, channels, self.size)
        self.depth = torch.einsum("apbp->ab", blocks) / self.size
        self.space = torch.einsum("apaq->pq", blocks) / channels
        self.space = self.space / self.space.diagonal().mean()

    def slices(self, rows: Tensor) -> Tensor:
        return rows.view(-1, self.channels, self.size)

    def mixing(self, weights: Tensor, blueprints: Tensor) -> Tensor:
        """The best one, (N, R)."""
        rows = _products(weights, blueprints)
        right = rows @ self.cross.T
        return torch.cholesky_solve(right, _root(rows @ self.gram @ rows.T)).T.contiguous()

    def loss(self, mixing: Tensor, weights: Tensor, blueprints: Tensor) -> float:
        rows = _products(weights, blueprints)
        inside = mixing.T @ self.metric
        linear = (inside @ self.cross * rows).sum()
        return float((inside @ mixing * (rows @ self.gram @ rows.T)).sum() - 2 * linear)

    def weights(self, mixing: Tensor, weights: Tensor, blueprints: Tensor) -> Tensor:
        """Better ones, (R, M), for the mixing and blueprints at hand."""
        inside = mixing.T @ self.metric
        share = inside @ mixing

        def apply(trial: Tensor) -> Tensor:
            rows = share @ (_products(trial, blueprints) @ self.gram)
            return (self.slices(rows) * blueprints[:, None]).sum(2)

        right = (self.slices(inside @ self.cross) * blueprints[:, None]).sum(2)
        nearby = share * (blueprints @ self.space @ blueprints.T)
        return _descend(apply, right, weights, _inverse(nearby, self.depth), STEPS)

    def blueprints(self, mixing: Tensor, weights: Tensor, blueprints: Tensor) -> Tensor:
        """Better ones, (R, K*K), for the mixing and weights at hand."""
        inside = mixing.T @ self.metric
        share = inside @ mixing
        pairs = self._pairs(weights) * share[:, None, :, None]  # (R, K*K, R, K*K)
        matrix = pairs.reshape(blueprints.numel(), -1)

        def apply(trial: Tensor) -> Tensor:
            return (matrix @ trial.flatten()).view_as(trial)

        right = (self.slices(inside @ self.cross) * weights[:, :, None]).sum(1)
        nearby = share * (weights @ self.depth @ weights.T)
        return _descend(apply, right, blueprints, _inverse(nearby, self.space), 3 * STEPS)

    def _pairs(self, weights: Tensor) -> Tensor:
        """What the responses to ``weights`` have to do with one another, place by place."""
        half = weights @ self.gram.view(self.channels, -1)  # (R, K*K*M*K*K)
        half = half.view(len(weights), self.size, self.channels, self.size)
        return torch.einsum("rpmq,sm->rpsq", half, weights)


def fit_shared(
    known: Moments, start: SharedFactors, metric: Tensor | None, rounds: int = ROUNDS
) -> SharedFactors:
    """The BSConv-CP kernel with a small error on the outputs, measured as by ``fit_blueprints``."""
    mixing, weights = start.mixing.double(), start.weights.double()
    problem = _Problem(known, _metric(metric, mixing), weights.shape[1])
    factors = (mixing, weights, start.blueprints.double().flatten(1))
    return _factors(_alternate(problem, factors, rounds), start.blueprints.shape[1:])


def fit_shared_from(
    known: Moments, kernel: Tensor, blueprints: int, metric: Tensor | None, rounds: int = ROUNDS
) -> SharedFactors:
    """The same, from the best of several starts close to the dense ``kernel`` (N, M, K, K)."""
    flat = kernel.double().flatten(2)
    problem = _Problem(known, _metric(metric, flat), flat.shape[1])
    trials = [
        _alternate(problem, start, TRIAL_ROUNDS) for start in _starts(flat, blueprints, problem)
    ]
    best = min(trials, key=lambda factors: problem.loss(*factors))
    return _factors(_alternate(problem, best, rounds - TRIAL_ROUNDS), kernel.shape[2:])


_Triple = tuple[Tensor, Tensor, Tensor]


def _alternate(problem: _Problem, factors: _Triple, rounds: int) -> _Triple:
    mixing, weights, blueprints = factors
    for _ in range(rounds):
        mixing = problem.mixing(weights, blueprints)
        weights = _unit(problem.weights(mixing, weights, blueprints))
        mixing = problem.mixing(weights, blueprints)
        blueprints = _unit(problem.blueprints(mixing, weights, blueprints))
    return problem.mixing(weights, blueprints), weights, blueprints


def _starts(kernel: Tensor, count: int, problem: _Problem) -> Iterator[_Triple]:
    """Singular vectors of the kernel (N, M, K*K), as it is and as data and answer weigh it."""
    yield _nested(kernel, count)
    depth, space, answer = (_root(m) for m in (problem.depth, problem.space, problem.metric))
    weighed = torch.einsum("nmp,na,mb,pc->abc", kernel, answer, depth, space)
    mixing, weights, blueprints = _nested(weighed, count)
    yield (
        torch.linalg.solve_triangular(answer.mT, mixing, upper=True),
        _unit(torch.linalg.solve_triangular(depth, weights, upper=False, left=False)),
        _unit(torch.linalg.solve_triangular(space, blueprints, upper=False, left=False)),
    )


def _nested(kernel: Tensor, count: int) -> _Triple:
    """The singular value decomposition over filters, and of each right vector in turn."""
    left, values, right = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
    weights, sizes, blueprints = torch.linalg.svd(
        right.view(-1, *kernel.shape[1:]), full_matrices=False
    )
    strength = (values[:, None] * sizes).flatten()
    order = strength.argsort(descending=True)[:count]
    filters, rank = order // sizes.shape[1], order % sizes.shape[1]
    return (
        left[:, filters] * strength[order],
        weights[filters, :, rank],
        blueprints[filters, rank],
    )


def _products(weights: Tensor, blueprints: Tensor) -> Tensor:
    """The kernels of single blueprints, as rows (R, M*K*K)."""
    return (weights[:, :, None] * blueprints[:, None]).flatten(1)


def _unit(rows: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def _metric(metric: Tensor | None, like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device) if metric is None else metric


def _root(matrix: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that may be singular by rounding."""
    matrix = matrix.clone()
    scale = matrix.diagonal().mean()
    matrix.diagonal().add_(STEADY * scale + (scale == 0))
    return torch.linalg.cholesky(matrix)


def _inverse(left: Tensor, right: Tensor) -> Linear:
    """What undoes ``x -> left @ x @ right`` of positive matrices."""
    first, second = _root(left), _root(right)

    def undo(rows: Tensor) -> Tensor:
        return torch.cholesky_solve(torch.cholesky_solve(rows, first).mT, second).mT

    return undo


def _descend(apply: Linear, right: Tensor, start: Tensor, undo: Linear, steps: int) -> Tensor:
    """Conjugate gradients, preconditioned by ``undo``, for ``apply(x) = right``."""
    found, rest = start, right - apply(start)
    direction = better = undo(rest)
    size = first = (rest * better).sum()
    for _ in range(steps):
        if size <= 1e-10 * first or size <= 0:
            break
        change = apply(direction)
        length = size / (direction * change).sum()
        found, rest = found + length * direction, rest - length * change
        better = undo(rest)
        before, size = size, (rest * better).sum()
        direction = better + size / before * direction
    return found


def _factors(triple: _Triple, size: torch.Size) -> SharedFactors:
    mixing, weights, blueprints = triple
    return SharedFactors(mixing, weights, blueprints.view(-1, *size))
