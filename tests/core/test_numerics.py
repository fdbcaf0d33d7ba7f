"""Numbers without loss: exact scales of columns, and whole float32 whatever may stand in for it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bsconv.pytorch._forms.patches import CONSTANT, without_mean
from bsconv.pytorch._tools.numerics import full_float32, power_of_two_scale


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (1.0, 1.0), (1.5, 1.0), (2.0, 2.0), (-3.0, 2.0), (0.75, 0.5), (3e38, 2.0**127),
        (2.0**-140, 2.0**-140),  # below the smallest normal number
        (0.0, 1.0), (float("inf"), 1.0), (float("nan"), 1.0),
    ],
)  # fmt: skip
def test_the_unit_is_the_power_of_two_below_the_largest_entry(largest, expected):
    rows = torch.tensor([[largest / 2, 8.0], [largest, -8.5]])
    assert power_of_two_scale(rows).tolist() == [expected, 8.0]


def test_dividing_by_the_unit_rounds_nothing():
    rows = torch.randn(100, 5) * torch.logspace(-30, 30, 5)
    scaled = rows / power_of_two_scale(rows)
    assert torch.equal(scaled * power_of_two_scale(rows), rows)
    assert (scaled.abs().amax(0) >= 1).all()
    assert (scaled.abs().amax(0) < 2).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_of_rounding_are_constant(dtype):
    eps = torch.finfo(dtype).eps
    sign = torch.tensor([1.0, -1.0], dtype=dtype).repeat(50)
    few, more = 3 * eps * 4 * sign, 3 * eps * 8 * CONSTANT * sign  # roundings, more than those
    rest, mean = without_mean(torch.stack([3 + sign, 3 + few, 3 + more, 0 * sign, sign], dim=1))
    assert rest.dtype == mean.dtype == dtype
    torch.testing.assert_close(mean, torch.tensor([3.0, 3, 3, 0, 0], dtype=dtype))
    torch.testing.assert_close(rest[:, 0], sign)
    torch.testing.assert_close(rest[:, 4], sign)
    assert (rest != 0).any(0).tolist() == [True, False, True, False, True]


NUMBER = 1 + 2**-11  # bfloat16 and TF32 make it 1


def settings() -> list[str]:
    b: Any = torch.backends
    backends = b.cudnn.conv, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul
    return [backend.fp32_precision for backend in backends]


@pytest.fixture
def shortened() -> Iterator[None]:
    """bfloat16 and TF32 may stand in for float32, where the processor has them."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def rounded() -> bool:
    """Whether a convolution or a product is computed in fewer bits than float32 has."""
    kernel, images = torch.full((32, 64, 3, 3), NUMBER), torch.full((1, 64, 8, 8), NUMBER)
    sums = F.conv2d(images, kernel), kernel.flatten(1) @ kernel.flatten(1).T
    return any((each - 576 * NUMBER**2).abs().max() > 1e-3 for each in sums)


@pytest.mark.usefixtures("shortened")
def test_nothing_is_rounded_inside_and_settings_return() -> None:
    before, as_before = settings(), rounded()
    with full_float32():
        assert settings() == ["ieee"] * 4
        assert not rounded()
    assert settings() == before
    assert rounded() == as_before


def test_settings_return_after_an_error() -> None:
    before, older = settings(), torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError, match="of this test"), full_float32():
        raise KeyError("of this test")
    assert settings() == before
    assert torch.backends.cudnn.allow_tf32 == older  # raises where the two names disagree
