"""Weights of any form that reproduce outputs: against gradients, other fits and matrices."""

import pytest
import torch
from torch import Tensor

from bsconv.pytorch._forms.fit import Fit, Parts, balanced, dense_kernel
from bsconv.pytorch._forms.form import Form
from bsconv.pytorch._forms.patches import RIDGE, Patches
from bsconv.pytorch.decomposition import compose, shared_factors, subspace_factors

M, N, K = 4, 5, 9  # slices, filters and positions; M * K columns, slice by slice
FORMS = [Form("u"), Form("s", 2), Form("cp", 3), Form("cp", 8)]


def some_patches(rows: int = 200) -> Tensor:
    """Columns that are neither centred, nor of one size, nor unrelated."""
    mixed = torch.randn(rows, M * K) @ torch.randn(M * K, M * K)
    return mixed * torch.logspace(-1, 1, M * K) + torch.randn(M * K)


def assert_close(found: Tensor, expected: Tensor, rtol: float = 1e-6) -> None:
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * largest)


# --- moments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [True, False])
def test_moments_are_covariances_or_means_of_products(centered: bool) -> None:
    """Of columns of any size."""
    rows, targets = torch.randn(50, 9) + 0.5, torch.randn(50, 4) + 2
    sizes, others = torch.logspace(-35, 35, 9), torch.logspace(-30, 30, 4)
    patches = Patches(rows * sizes, centered=centered)
    cross, mean = patches.cross(targets * others, torch.zeros(4, 9))
    assert {patches.covariance.dtype, cross.dtype, mean.dtype} == {torch.float64}
    x, y, a, b = (each.double() for each in (rows, targets, sizes, others))
    x_mean, y_mean = (t.mean(0) if centered else torch.zeros_like(t[0]) for t in (x, y))
    x, y = x - x_mean, y - y_mean
    for found, expected in (
        (patches.covariance, a[:, None] * (x.T @ x / 50) * a),
        (cross, b[:, None] * (y.T @ x / 50) * a),
        (patches.mean, a * x_mean),
        (mean, b * y_mean),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_a_prior_decides_where_the_patches_tell_nothing() -> None:
    """It counts as much as RIDGE of the patches' mean variance, spread evenly."""
    rows = some_patches().double()
    rows[:, :9] = 3.0  # the same everywhere
    targets, prior = torch.randn(200, N).double(), torch.randn(N, M * K).double()
    patches = Patches(rows)
    found = patches.solve(patches.cross(targets, prior)[0])
    x, y = (t - t.mean(0) for t in (rows, targets))
    gram, start = x.T @ x / 200, prior
    steady = gram + RIDGE * gram.trace() / len(gram) * torch.eye(len(gram))
    expected = start + torch.linalg.solve(steady, x.T @ y / 200 - gram @ start.T).T
    assert_close(found, expected)
    assert_close(found[:, :9], start[:, :9])


# --- fits -----------------------------------------------------------------------------------------


class Problem:
    """A layer with a metric, and the error of kernels on its outputs."""

    def __init__(self, kernel: Tensor | None = None) -> None:
        patches = Patches(some_patches().double())
        root = torch.randn(N, N).double()
        self.metric = root @ root.T / N + 0.1 * torch.eye(N)
        self.gram = patches.steady
        self.kernel = torch.randn(N, M * K).double() if kernel is None else kernel.double()
        self.cross = self.kernel @ self.gram
        self.fit = Fit(self.gram, self.metric, M)

    def error(self, kernel: Tensor, metric: Tensor | None = None) -> float:
        missing = kernel - self.kernel
        metric = self.metric if metric is None else metric
        return float((missing @ self.gram @ missing.T * metric).sum())

    def error_of(self, form: Form, parts: Parts) -> float:
        return self.error(dense_kernel(form.kind, parts))


@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_no_small_change_of_the_weights_lowers_the_error(form: Form) -> None:
    """The derivative by all weights, taken by autograd, comes down to about zero."""
    problem = Problem()

    def slope(steps: int) -> float:
        parts = problem.fit.find(form, problem.kernel, problem.cross, steps)
        parts = {name: part.requires_grad_() for name, part in parts.items()}
        missing = dense_kernel(form.kind, parts) - problem.kernel
        loss = (missing @ problem.gram @ missing.T * problem.metric).sum()
        slopes = torch.autograd.grad(loss, list(parts.values()))
        return float(sum(slope.square().sum() for slope in slopes)) ** 0.5

    assert slope(1000) < 1e-4 * slope(1)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_more_steps_are_no_worse_and_go_on_from_where_they_were(form: Form) -> None:
    problem = Problem()
    found = problem.fit.find(form, problem.kernel, problem.cross, 5)
    more = problem.fit.improve(form.kind, found, problem.cross, 40)
    same = problem.fit.improve(form.kind, found, problem.cross, 0)
    shapes = [{name: part.shape for name, part in parts.items()} for parts in (found, more)]
    assert shapes[0] == shapes[1]
    assert {part.dtype for part in more.values()} == {torch.float64}
    assert problem.error_of(form, more) < problem.error_of(form, found)
    assert_close(dense_kernel(form.kind, same), dense_kernel(form.kind, found), 1e-3)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_fitted_outputs_are_closer_than_those_of_the_closest_weights(form: Form) -> None:
    problem = Problem()
    slices = problem.kernel.view(N, M, K)
    if form.kind == "cp":
        mixing, weights, blueprints = shared_factors(slices, form.rank)
        parts = {"pw1": weights, "dw": blueprints, "pw2": mixing}
    else:
        closest = subspace_factors(slices, form.rank or M)
        parts = {"pw": closest.mixing @ closest.basis, "dw": closest.blueprints}
    by_weights = dense_kernel("cp" if form.kind == "cp" else "u", parts)
    found = problem.fit.find(form, problem.kernel, problem.cross)
    assert problem.error_of(form, found) < 0.8 * problem.error(by_weights)
    if form.kind == "s":
        assert_close(found["pw1"] @ found["pw1"].T, torch.eye(2).double(), 1e-10)


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_a_metric_lets_the_errors_of_filters_make_up_for_one_another(form: Form) -> None:
    problem = Problem()
    without = Fit(problem.gram, torch.eye(N).double(), M).find(form, problem.kernel, problem.cross)
    found = problem.fit.find(form, problem.kernel, problem.cross)
    assert problem.error_of(form, found) < 0.97 * problem.error_of(form, without)
    kernels = [dense_kernel(form.kind, parts) for parts in (found, without)]
    errors = [problem.error(kernel, torch.eye(N).double()) for kernel in kernels]
    assert errors[1] < errors[0]


def test_of_one_tap_the_fit_is_the_best_of_its_rank() -> None:
    problem = Problem()
    fit = Fit(problem.gram, problem.metric, M * K)
    found = problem.error_of(Form("cp"), fit.find(Form("cp", 2), problem.kernel, problem.cross))
    roots = [torch.linalg.cholesky(matrix) for matrix in (problem.metric, problem.gram)]
    sizes = torch.linalg.svdvals(roots[0].T @ problem.kernel @ roots[1])
    assert found == pytest.approx(float(sizes[2:].square().sum()), rel=1e-5)


def test_the_fit_recovers_kernels_of_its_form() -> None:
    weights, blueprints = torch.randn(N, M).double(), torch.randn(N, K).double()
    problem = Problem(compose(weights, blueprints).flatten(1))
    for form in (Form("u"), Form("s", M)):
        found = problem.fit.find(form, problem.kernel, problem.cross)
        assert_close(dense_kernel(form.kind, found), problem.kernel, 1e-4)
    shared = torch.randn(N, N).double() @ problem.kernel
    problem = Problem(shared)
    found = problem.fit.find(Form("cp", N), problem.kernel, problem.cross, 500)
    assert problem.error(dense_kernel("cp", found)) < 1e-2 * problem.error(0 * shared)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_filters_without_output_stay_zero(form: Form) -> None:
    kernel = torch.randn(N, M * K)
    for nothing in (slice(1, 2), slice(None)):
        kernel[nothing] = 0
        problem = Problem(kernel)
        fit = Fit(problem.gram, torch.eye(N).double(), M)
        found = fit.find(form, problem.kernel, problem.cross)
        assert all(part.isfinite().all() for part in found.values())
        assert dense_kernel(form.kind, found)[nothing].abs().max() < 1e-6


def test_there_may_be_more_blueprints_than_singular_vectors() -> None:
    fit, kernel = Fit(torch.eye(18).double(), torch.eye(2).double(), 2), torch.randn(2, 18).double()
    assert_close(dense_kernel("cp", fit.find(Form("cp", 8), kernel, kernel)), kernel, 1e-3)


@pytest.mark.parametrize("kind", ["u", "s", "cp"])
def test_balanced_factors_make_the_same_kernel(kind: str) -> None:
    shapes = {
        "u": {"pw": (6, 4), "dw": (6, 9)},
        "s": {"pw1": (2, 4), "pw2": (6, 2), "dw": (6, 9)},
        "cp": {"pw1": (5, 4), "dw": (5, 9), "pw2": (6, 5)},
    }[kind]
    parts = {name: torch.randn(shape).double() for name, shape in shapes.items()}
    parts["dw"][0] = 0  # a dead channel stays dead
    found = balanced(kind, parts)
    torch.testing.assert_close(dense_kernel(kind, found), dense_kernel(kind, parts))
    if kind == "s":
        assert found is parts
    else:
        norms = [part.norm(dim=0 if name == "pw2" else 1)[1:] for name, part in found.items()]
        assert all(torch.allclose(norm, norms[0]) for norm in norms)
