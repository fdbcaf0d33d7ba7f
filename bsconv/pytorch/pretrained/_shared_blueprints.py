"""BSConv-CP kernels that reproduce the *outputs* of a layer: least squares, tensors only.

``kernel[n, m] = sum over r of mixing[n, r] * weights[r, m] * blueprints[r]``. The best mixing for
the others is known in closed form, so the error is a function of weights and blueprints alone.
Their matrices of second derivatives are close to Kronecker products of small ones, by which a
quasi-Newton method (L-BFGS) starts. Alternating least squares needs ten times as long, or more.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..decomposition import SharedFactors
from ._moments import Moments

STEPS = 60
TRIAL_STEPS = 10  # with which the starts are compared
REMEMBERED = 10  # steps that tell about the second derivatives
STEADY = 1e-6  # share of the mean diagonal that is added to small matrices
LARGE = 1500  # entries of a patch from which on float32 and half the steps have to do

_Triple = tuple[Tensor, Tensor, Tensor]  # mixing, weights and blueprints, (R, K*K)


class _Point(NamedTuple):
    """Weights and blueprints, with the best mixing for them."""

    factors: _Triple
    loss: Tensor
    slopes: "_Pair"  # of the loss by weights and blueprints
    share: Tensor  # (R, R), how much the answer has two blueprints to do with one another


class _Pair(NamedTuple):
    """What there is for weights (R, M) and for blueprints (R, K*K)."""

    weights: Tensor
    blueprints: Tensor

    def dot(self, other: "_Pair") -> Tensor:
        return (self.weights * other.weights).sum() + (self.blueprints * other.blueprints).sum()

    def plus(self, other: "_Pair", times: Tensor | float) -> "_Pair":
        return _Pair(
            self.weights + times * other.weights, self.blueprints + times * other.blueprints
        )


class _Problem:
    """The error tr(S (K - K*) G (K - K*)^T) of kernels K, up to its constant."""

    def __init__(self, known: Moments, metric: Tensor | None, channels: int) -> None:
        dtype = torch.float32 if is_large(known) else torch.float64
        # in units of about one, so that float32 holds their squares
        self.scale = known.patches.diagonal().mean().sqrt()
        self.gram = (known.patches / self.scale**2).to(dtype)
        self.cross = (known.targets.T / self.scale**2).to(dtype)
        eye = torch.eye(len(self.cross)).to(self.cross)
        self.metric = eye if metric is None else metric.to(dtype)
        self.weighted = self.metric @ self.cross
        self.channels, self.size = channels, len(self.gram) // channels
        blocks = self.gram.view(channels, self.size, channels, self.size)
        self.depth = torch.einsum("apbp->ab", blocks) / self.size
        self.space = torch.einsum("apaq->pq", blocks) / channels
        self.space = self.space / self.space.diagonal().mean()
        self.depth_root, self.space_root = _root(self.depth), _root(self.space)

    def at(self, at: _Pair) -> _Point:
        rows = (at.weights[:, :, None] * at.blueprints[:, None]).flatten(1)
        half = rows @ self.gram
        pairs, right = half @ rows.T, rows @ self.cross.T
        mixing = torch.cholesky_solve(right, _root(pairs)).T
        share, target = mixing.T @ self.metric @ mixing, mixing.T @ self.weighted
        slope = (share @ half - target).view(-1, self.channels, self.size)
        return _Point(
            (mixing, at.weights, at.blueprints),
            ((share * pairs).sum() - 2 * (target * rows).sum()) / 2,
            _Pair((slope * at.blueprints[:, None]).sum(2), (slope * at.weights[:, :, None]).sum(1)),
            share,
        )

    def curvature(self, point: _Point) -> tuple[Tensor, Tensor]:
        """The roots of what stands in the second derivatives next to ``depth`` and ``space``."""
        _, weights, blueprints = point.factors
        return (
            _root(point.share * (blueprints @ self.space @ blueprints.T)),
            _root(point.share * (weights @ self.depth @ weights.T)),
        )

    def newton(self, curvature: tuple[Tensor, Tensor], slopes: _Pair) -> _Pair:
        """About the step that the second derivatives tell."""
        return _Pair(
            _divided(slopes.weights, curvature[0], self.depth_root),
            _divided(slopes.blueprints, curvature[1], self.space_root),
        )


def fit_shared(
    known: Moments, start: SharedFactors, metric: Tensor | None, steps: int
) -> SharedFactors:
    """The BSConv-CP kernel with a small error on the outputs, measured as by ``fit_blueprints``."""
    problem = _Problem(known, metric, start.weights.shape[1])
    steps = steps // 2 if is_large(known) else steps
    flat = (start.mixing, start.weights, start.blueprints.flatten(1))
    return _factors(_descend(problem, flat, steps), start.blueprints.shape[1:])


def fit_shared_from(
    known: Moments, kernel: Tensor, blueprints: int, metric: Tensor | None, steps: int = STEPS
) -> SharedFactors:
    """The same, from the best of several starts close to the dense ``kernel`` (N, M, K, K).

    For few steps, and for large kernels, there is but one start.
    """
    problem = _Problem(known, metric, kernel.shape[1])
    flat = kernel.flatten(2).to(problem.gram)
    starts = list(_starts(flat, blueprints, problem))
    if is_large(known):
        best = _descend(problem, starts[0], steps // 2)
    elif steps < 2 * TRIAL_STEPS * len(starts):
        best = _descend(problem, starts[0], steps)
    else:
        trials = [_descend(problem, start, TRIAL_STEPS) for start in starts]
        best = min(trials, key=lambda point: float(point.loss))
        best = _descend(problem, best.factors, steps - TRIAL_STEPS)
    return _factors(best, kernel.shape[2:])


def is_large(known: Moments) -> bool:
    """Whether a fit takes seconds."""
    return len(known.patches) > LARGE


def _descend(problem: _Problem, factors: _Triple, steps: int) -> _Point:
    """L-BFGS: steps by the slopes, and by what the last steps tell about how they change."""
    weights, blueprints = (_unit(rows.to(problem.gram)) for rows in factors[1:])
    point = problem.at(_Pair(weights, blueprints))
    curvature = problem.curvature(point)
    past: list[tuple[_Pair, _Pair, Tensor]] = []  # steps, changes of the slopes, their products
    for _ in range(steps):
        step = _direction(problem, curvature, point.slopes, past)
        found = _searched(problem, point, step)
        if found is None:
            break
        step = _Pair(*found.factors[1:]).plus(_Pair(*point.factors[1:]), -1.0)
        change = found.slopes.plus(point.slopes, -1.0)
        if (product := step.dot(change)) > 0:
            past = [*past, (step, change, product)][-REMEMBERED:]
        point = found
    return point


def _direction(
    problem: _Problem,
    curvature: tuple[Tensor, Tensor],
    slopes: _Pair,
    past: list[tuple[_Pair, _Pair, Tensor]],
) -> _Pair:
    """The step down (Nocedal's two loops)."""
    shares = []
    for step, change, product in reversed(past):
        shares.append(step.dot(slopes) / product)
        slopes = slopes.plus(change, -shares[-1])
    found = problem.newton(curvature, slopes)
    if past:
        _, change, product = past[-1]
        size = product / change.dot(problem.newton(curvature, change))
        found = _Pair(size * found.weights, size * found.blueprints)
    for (step, change, product), share in zip(past, reversed(shares), strict=True):
        found = found.plus(step, share - change.dot(found) / product)
    return _Pair(-found.weights, -found.blueprints)


def _searched(problem: _Problem, point: _Point, step: _Pair) -> _Point | None:
    """The point after the step, or after a part of it, with less loss; None if there is none."""
    here, slope = _Pair(*point.factors[1:]), step.dot(point.slopes)
    length = 1.0
    while length > 1e-3:
        found = problem.at(here.plus(step, length))
        if found.loss < point.loss + 1e-4 * length * slope:
            return found
        length /= 3
    return None


def _starts(kernel: Tensor, count: int, problem: _Problem) -> Iterator[_Triple]:
    """Singular vectors of the kernel (N, M, K*K), as it is and as data and answer weigh it."""
    yield _nested(kernel, count)
    depth, space, answer = problem.depth_root, problem.space_root, _root(problem.metric)
    weighed = torch.einsum("nmp,na,mb,pc->abc", kernel, answer, depth, space)
    mixing, weights, blueprints = _nested(weighed, count)
    yield (
        mixing,
        torch.linalg.solve_triangular(depth, weights, upper=False, left=False),
        torch.linalg.solve_triangular(space, blueprints, upper=False, left=False),
    )


def _nested(kernel: Tensor, count: int) -> _Triple:
    """The singular value decomposition over filters, and of each right vector in turn."""
    left, values, right = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
    slices = right.view(-1, *kernel.shape[1:])
    weights, sizes, blueprints = torch.linalg.svd(slices, full_matrices=False)
    order = (values[:, None] * sizes).flatten().argsort(descending=True)[:count]
    filters, rank = order // sizes.shape[1], order % sizes.shape[1]
    return left[:, filters], weights[filters, :, rank], blueprints[filters, rank]


def _unit(rows: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def _root(matrix: Tensor) -> Tensor:
    """The Cholesky factor of a matrix that may be singular by rounding."""
    matrix = matrix.clone()
    scale = matrix.diagonal().mean()
    matrix.diagonal().add_(STEADY * scale + (scale == 0))
    return torch.linalg.cholesky(matrix)


def _divided(rows: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``x`` of ``L L^T x R R^T = rows``, for roots L and R."""
    return torch.cholesky_solve(torch.cholesky_solve(rows, left).mT, right).mT


def _factors(point: _Point, size: torch.Size) -> SharedFactors:
    mixing, weights, blueprints = (factor.double() for factor in point.factors)
    return SharedFactors(mixing.contiguous(), weights, blueprints.view(-1, *size))
