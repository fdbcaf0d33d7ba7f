"""The decompositions against NumPy's SVD."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bsconv.pytorch import BSConvS, BSConvU
from bsconv.pytorch.decomposition import (
    blueprint_factors,
    compose,
    shared_factors,
    subspace_factors,
)

SHAPES = st.tuples(*(st.integers(1, most) for most in (6, 12, 4, 4)))  # N, M, Kh, Kw


def smallest_rank_one_errors(kernel: torch.Tensor) -> np.ndarray:
    """Per filter, the norm of all singular values but the first: no rank-1 matrix is closer."""
    values = np.linalg.svd(kernel.flatten(2).double().numpy(), compute_uv=False)
    return np.sqrt((values[:, 1:] ** 2).sum(axis=1))


@given(shape=SHAPES, exponent=st.integers(-30, 30))
def test_blueprints_reach_the_smallest_error_of_every_filter(shape, exponent):
    kernel = torch.randn(shape, dtype=torch.float64) * 10.0**exponent
    kernel[0] *= 1e-6  # filters of very different size side by side
    error = (kernel - compose(*blueprint_factors(kernel))).flatten(1).norm(dim=1).numpy()
    size = kernel.flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(error, smallest_rank_one_errors(kernel), atol=1e-12 * size.max())
    np.testing.assert_array_less(error[0], smallest_rank_one_errors(kernel)[0] + 1e-7 * size[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_from_conv2d_reaches_it_to_within_the_rounding_of_the_dtype(dtype):
    conv = torch.nn.Conv2d(16, 8, 3, dtype=dtype)
    rebuilt = BSConvU.from_conv2d(conv).to_conv2d().weight
    error = (conv.weight.double() - rebuilt.double()).flatten(1).norm(dim=1).detach().numpy()
    smallest = smallest_rank_one_errors(conv.weight.detach())
    np.testing.assert_allclose(error, smallest, rtol=20 * torch.finfo(dtype).eps)


def test_weights_and_blueprints_share_the_norm_and_the_sign_is_fixed():
    weights, blueprints = blueprint_factors(torch.randn(7, 5, 3, 3))
    flat = blueprints.flatten(1)
    torch.testing.assert_close(weights.norm(dim=1), flat.norm(dim=1))
    assert (flat.gather(1, flat.abs().argmax(dim=1, keepdim=True)) > 0).all()


@given(shape=SHAPES, data=st.data())
def test_the_basis_is_orthonormal_and_the_error_between_its_bounds(shape, data):
    mid = data.draw(st.integers(1, shape[1]))
    kernel = torch.randn(shape, dtype=torch.float64)
    mixing, basis, blueprints = subspace_factors(kernel, mid)
    torch.testing.assert_close(basis @ basis.T, torch.eye(mid, dtype=torch.float64))
    error = (kernel - compose(mixing @ basis, blueprints)).norm()
    best_without_limit = np.linalg.norm(smallest_rank_one_errors(kernel))
    weights, start = blueprint_factors(kernel)
    truncated = np.linalg.svd((weights * start.flatten(1).norm(dim=1, keepdim=True)).numpy())[1]
    plain_svd = np.hypot(best_without_limit, np.linalg.norm(truncated[mid:]))
    assert best_without_limit - 1e-9 <= error <= plain_svd + 1e-9


@given(m=st.integers(2, 16), n=st.integers(1, 16), p=st.floats(0.1, 1))
def test_a_subspace_convolution_comes_back_exactly(m, n, p):
    dense = BSConvS(m, n, 3, p=p, min_mid_channels=1, dtype=torch.float64).to_conv2d()
    layer = BSConvS.from_conv2d(dense, p=p, min_mid_channels=1)
    assert (layer.to_conv2d().weight - dense.weight).norm() <= 1e-7 * dense.weight.norm()
    basis = layer.basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64))


@pytest.mark.parametrize("factors", [blueprint_factors, lambda k: subspace_factors(k, 4)])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_kernels_whose_squares_are_out_of_range(factors, scale):
    kernel = torch.einsum("nm,nhw->nmhw", *map(torch.randn, ((3, 4), (3, 3, 3)))).double()
    kernel[1] = 0
    *weights, blueprints = factors(kernel * scale)
    product = weights[0] if len(weights) == 1 else weights[0] @ weights[1]
    torch.testing.assert_close(compose(product, blueprints) / scale, kernel)
    # the norm is shared, so neither factor is near the end of the range
    shared = kernel.flatten(1).norm(dim=1)[0].sqrt() * scale**0.5
    torch.testing.assert_close(weights[0][0].norm(), shared)
    # a filter of zeros can learn
    torch.testing.assert_close(blueprints[1].norm().item(), 1.0)
    assert all(tensor.isfinite().all() for tensor in factors(torch.zeros(3, 4, 3, 3)))


@pytest.mark.parametrize("mid", [4, 8, 12])
def test_many_channels_of_few_filters_take_no_longer_than_they_need(mid):
    """A matrix of channels by channels would take more seconds than an unmarked test may."""
    kernel = torch.randn(8, 1024, 3, 3)
    mixing, basis, blueprints = subspace_factors(kernel, mid)
    torch.testing.assert_close(basis @ basis.T, torch.eye(mid, dtype=torch.float64))
    if mid >= 8:  # all that blueprints can keep
        error = (kernel - compose(mixing @ basis, blueprints)).flatten(1).norm(dim=1)
        np.testing.assert_allclose(error, smallest_rank_one_errors(kernel))


def relative_square(kernel: Tensor, factors: tuple[Tensor, Tensor, Tensor]) -> float:
    difference = kernel - torch.einsum("nr,rm,rhw->nmhw", *factors)
    return float(difference.square().sum() / kernel.square().sum())


def test_shared_blueprints_of_a_kernel_that_has_few() -> None:
    parts = (torch.randn(*shape, dtype=torch.float64) for shape in ((12, 3), (3, 7), (3, 3, 3)))
    kernel = torch.einsum("nr,rm,rhw->nmhw", *parts)
    assert relative_square(kernel, shared_factors(kernel, 3)) < 1e-3
    assert relative_square(kernel, shared_factors(kernel, 36)) < 1e-20


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (4, 9, 1, 3), (5, 1, 5, 5), (1, 1, 1, 1)])
def test_shared_blueprints_of_noise(shape: tuple[int, ...]) -> None:
    """Never worse than truncated products of singular vectors or one blueprint per filter."""
    kernel = torch.randn(shape, dtype=torch.float64)
    errors = [relative_square(kernel, shared_factors(kernel, count)) for count in (1, 2, 4, 50)]
    assert all(less <= more + 1e-12 for more, less in itertools.pairwise(errors))
    assert errors[-1] < 1e-20
    singular = torch.linalg.svdvals(kernel.flatten(2)).flatten().sort(descending=True).values
    for count in (1, 2, shape[0]):
        truncated = float(1 - singular[:count].square().sum() / singular.square().sum())
        assert relative_square(kernel, shared_factors(kernel, count)) <= truncated + 1e-12


def test_shared_factors_of_extreme_numbers() -> None:
    kernel = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    expected = relative_square(kernel, shared_factors(kernel, 2))
    for scale in (1e-150, 1e150):
        found = [factor / scale ** (1 / 3) for factor in shared_factors(kernel * scale, 2)]
        assert relative_square(kernel, found) == pytest.approx(expected, abs=1e-9)
    assert all(factor.isfinite().all() for factor in shared_factors(torch.zeros(3, 4, 3, 3), 2))


def test_what_approximates_is_detached() -> None:
    conv = torch.nn.Conv2d(8, 8, 3)
    for factors in (blueprint_factors(conv.weight), subspace_factors(conv.weight, 2)):
        assert not any(factor.requires_grad for factor in factors)
    for layer in (BSConvU.from_conv2d(conv), BSConvS.from_conv2d(conv)):
        assert all(parameter.is_leaf for parameter in layer.parameters())
        assert all(parameter.is_leaf for parameter in layer.to_conv2d().parameters())
