"""Alternating least squares on outputs, step by step, against matrices written out."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsconv.pytorch.decomposition import BlueprintFactors, SubspaceFactors, compose
from bsconv.pytorch.pretrained._least_squares import (
    FILTERS_AT_ONCE,
    ROUNDS,
    fit_blueprints,
    fit_subspace,
)
from bsconv.pytorch.pretrained._moments import RIDGE, Moments, Patches, constant, moments

Array = NDArray[np.float64]
M, N, K = 4, 5, 9  # slices, filters and positions; M * K columns, slice by slice


def some_patches(rows: int = 200, channels: int = M) -> Tensor:
    """Columns that are neither centred, nor of one size, nor unrelated."""
    mixed = torch.randn(rows, channels * K) @ torch.randn(channels * K, channels * K)
    return mixed * torch.logspace(-1, 1, channels * K) + torch.randn(channels * K)


def some_moments(filters: int = N) -> Moments:
    return moments(some_patches().double(), torch.randn(200, filters).double() * 3 + 1)


def some_factors(filters: int = N) -> BlueprintFactors:
    return BlueprintFactors(torch.randn(filters, M), torch.randn(filters, 3, 3))


def assert_close(found: Tensor, expected: Array, rtol: float = 1e-6) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=rtol * scale)


# --- moments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_moments_are_covariances_or_means_of_products(centered: bool, scale: float) -> None:
    patches, targets = some_patches() * scale, torch.randn(200, N) / scale + 2
    x, y = patches.double().numpy(), targets.double().numpy()
    x_mean = x.mean(0) if centered else np.zeros(M * K)
    y_mean = y.mean(0) if centered else np.zeros(N)
    known = moments(patches, targets, centered=centered)
    assert {tensor.dtype for tensor in known} == {torch.float64}
    assert_close(known.patches, (x - x_mean).T @ (x - x_mean) / 200, 1e-4)
    assert_close(known.targets, (x - x_mean).T @ (y - y_mean) / 200, 1e-4)
    assert_close(known.patch_mean, x_mean, 1e-5)
    assert_close(known.target_mean, y_mean, 1e-5)


def test_patches_are_kept_for_several_targets() -> None:
    patches, targets = some_patches(), torch.randn(200, 2 * N)
    both = Patches(patches)
    for part in (targets[:, :N], targets[:, N:]):
        for found, expected in zip(both.moments(part), moments(patches, part), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_prior_decides_where_the_patches_tell_nothing() -> None:
    """It counts as much as RIDGE of the patches' mean variance, spread evenly."""
    rows = some_patches().double()
    rows[:, :9] = 3.0  # the same everywhere
    targets, prior = torch.randn(200, N).double(), torch.randn(N, M, 3, 3).double()
    patches = Patches(rows)
    found = patches.solve(patches.moments(targets, prior))
    x, y = (t.numpy() - t.numpy().mean(0) for t in (rows, targets))
    gram = x.T @ x / 200
    ridge = RIDGE * np.trace(gram) / len(gram)
    start = prior.flatten(1).numpy()
    change = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y / 200 - gram @ start.T).T
    assert_close(found, start + change)
    assert_close(found[:, :9], start[:, :9])


def test_the_constant_makes_the_means_fit() -> None:
    patches, targets = some_patches().double(), torch.randn(200, N).double() + 5
    known, kernel = moments(patches, targets), torch.randn(N, M, 3, 3).double()
    outputs = patches @ kernel.flatten(1).T + constant(known, kernel)
    torch.testing.assert_close(outputs.mean(0), targets.mean(0))


# --- one step of the alternation, with matrices written out ---------------------------------------


def step(gram: Array, target: Array, blueprint: Array) -> tuple[Array, Array]:
    """``kernel @ gram @ kernel - 2 * kernel @ target``, the least by weights, then by blueprint."""
    channels = len(gram) // K
    spread = np.kron(np.eye(channels), blueprint[:, None])  # kernel = spread @ weights
    weights = np.linalg.solve(spread.T @ gram @ spread, spread.T @ target)
    spread = np.kron(weights[:, None], np.eye(K))  # kernel = spread @ blueprint
    blueprint = np.linalg.solve(spread.T @ gram @ spread, spread.T @ target)
    norm = np.linalg.norm(blueprint)
    return weights * norm, blueprint / norm


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_alternate_filter_by_filter(rounds: int) -> None:
    filters = FILTERS_AT_ONCE + 3
    known, start = some_moments(filters), some_factors(filters)
    found = fit_blueprints(known, start, rounds=rounds)
    assert found.blueprints.shape == (filters, 3, 3)
    for n in range(filters):
        blueprint = start.blueprints[n].double().numpy().ravel()
        for _ in range(rounds):
            weights, blueprint = step(known.patches.numpy(), known.targets[:, n].numpy(), blueprint)
        assert_close(found.weights[n], weights)
        assert_close(found.blueprints[n].flatten(), blueprint)


def test_there_are_so_many_rounds_by_default() -> None:
    known, start = some_moments(), some_factors()
    for found, expected in zip(
        fit_blueprints(known, start), fit_blueprints(known, start, rounds=ROUNDS), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(
        fit_blueprints(known, start).weights,
        fit_blueprints(known, start, rounds=ROUNDS - 1).weights,
    )


@pytest.mark.parametrize("rounds", [0, 2])
def test_with_a_metric_each_filter_makes_up_for_the_others(rounds: int) -> None:
    known, start = some_moments(), some_factors()
    root = torch.randn(N, N).double()
    metric = root @ root.T + torch.eye(N)
    found = fit_blueprints(known, start, metric, rounds)
    before = fit_blueprints(known, start, rounds=rounds)
    gram, distance = known.patches.numpy(), metric.numpy()
    weights, blueprints = (part.flatten(1).double().numpy().copy() for part in before)
    for n in range(N):
        target = known.targets[:, n].numpy()
        for other in set(range(N)) - {n}:
            kernel = np.kron(weights[other], blueprints[other])
            error = gram @ kernel - known.targets[:, other].numpy()
            target = target - distance[n, other] / distance[n, n] * error
        weights[n], blueprints[n] = step(gram, target, blueprints[n])
    assert_close(found.weights, weights)
    assert_close(found.blueprints.flatten(1), blueprints)


def test_a_filter_without_output_stays_zero() -> None:
    known = some_moments()
    known.targets[:, 1] = 0
    found = fit_blueprints(known, some_factors())
    assert all(part.isfinite().all() for part in found)
    assert not compose(*found)[1].any()
    assert compose(*found)[0].any()


# --- the subspace ---------------------------------------------------------------------------------


def in_subspace(basis: Tensor) -> tuple[Moments, Tensor]:
    """The moments of what ``basis`` leaves of some patches, and those patches' own targets."""
    patches, targets = some_patches().double(), torch.randn(200, N).double()
    inside = torch.einsum("cm,rmk->rck", basis, patches.view(200, M, K)).flatten(1)
    return moments(inside, targets), moments(patches, targets)


def test_with_the_basis_given_the_patches_inside_it_are_fitted() -> None:
    basis = torch.linalg.qr(torch.randn(M, 2).double()).Q.T
    inside, known = in_subspace(basis)
    mixing, blueprints = torch.randn(N, 2).double(), torch.randn(N, 3, 3).double()
    metric = torch.diag(torch.rand(N).double() + 1) + 0.1
    start = SubspaceFactors(mixing, basis, blueprints)
    for given in (None, metric):
        found = fit_subspace(known, start, given, rounds=0)
        expected = fit_blueprints(inside, BlueprintFactors(mixing, blueprints), given, rounds=0)
        torch.testing.assert_close(found.basis, basis, rtol=0, atol=0)
        assert_close(found.mixing, expected.weights.numpy())
        assert_close(found.blueprints, expected.blueprints.numpy())


@pytest.mark.parametrize("with_metric", [False, True])
def test_the_basis_is_the_leading_one_of_the_free_fit(with_metric: bool) -> None:
    """No other of that size loses less of the free fit's outputs, measured on average."""
    known, count = some_moments(), 2
    root = torch.randn(N, N).double()
    metric = root @ root.T + 0.1 * torch.eye(N) if with_metric else None
    start = SubspaceFactors(torch.randn(N, count), torch.randn(count, M), torch.randn(N, 3, 3))
    start = SubspaceFactors(*(part.double() for part in start))
    found = fit_subspace(known, start, metric, rounds=3)
    free = fit_blueprints(
        known, BlueprintFactors(start.mixing @ start.basis, start.blueprints), metric, rounds=3
    )
    gram, depth = known.patches.numpy(), np.zeros((M, M))
    for blueprint in free.blueprints.flatten(1).numpy():
        spread = np.kron(np.eye(M), blueprint[:, None])
        depth += spread.T @ gram @ spread / N
    measure = np.eye(N) if metric is None else metric.numpy()
    # with S S^T = depth and L^T L = measure, outputs are measured by the norm of L W S
    seen = np.linalg.cholesky(measure).T @ free.weights.numpy() @ np.linalg.cholesky(depth)
    rows = found.basis.numpy() @ np.linalg.cholesky(depth)
    kept = seen @ np.linalg.pinv(rows) @ rows
    values = np.linalg.svd(seen, compute_uv=False)
    assert np.linalg.norm(seen - kept) == pytest.approx(np.linalg.norm(values[count:]), rel=1e-9)
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(count), atol=1e-12)


def test_in_the_basis_mixing_and_blueprints_start_from_the_free_fit() -> None:
    torch.manual_seed(3)
    basis = torch.linalg.qr(torch.randn(M, 3).double()).Q.T
    _, known = in_subspace(basis)
    start = SubspaceFactors(torch.randn(N, 3).double(), basis, torch.randn(N, 3, 3).double())
    found = fit_subspace(known, start, rounds=1)
    free = fit_blueprints(known, BlueprintFactors(start.mixing @ basis, start.blueprints), rounds=1)
    patches = known.patches.view(M, K, M, K)
    own = found.basis
    inside = Moments(
        torch.einsum("ia,akbl,jb->ikjl", own, patches, own).reshape(3 * K, 3 * K),
        torch.einsum("ia,akn->ikn", own, known.targets.view(M, K, N)).reshape(3 * K, N),
        torch.zeros(3 * K).double(),
        known.target_mean,
    )
    expected = fit_blueprints(
        inside, BlueprintFactors(free.weights @ own.T, free.blueprints), rounds=1
    )
    assert_close(found.mixing, expected.weights.numpy())
    assert_close(found.blueprints, expected.blueprints.numpy())


def test_layers_without_outputs_are_fitted_to_nothing() -> None:
    known = some_moments()
    known.targets.zero_()
    start = SubspaceFactors(torch.randn(N, 2), torch.randn(2, M), torch.randn(N, 3, 3))
    found = fit_subspace(known, SubspaceFactors(*(part.double() for part in start)))
    assert all(part.isfinite().all() for part in found)
    assert not compose(found.mixing @ found.basis, found.blueprints).any()
