"""Whole float32 whatever is allowed to stand in for it; afterwards the settings are as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bsconv.pytorch._tools.numerics import full_float32

NUMBER = 1 + 2**-11  # bfloat16 and TF32 make it 1


def settings() -> list[str]:
    backends: Any = torch.backends
    each = (
        *(backends.cudnn.conv, backends.cuda.matmul),
        *(backends.mkldnn.conv, backends.mkldnn.matmul),
    )
    return [one.fp32_precision for one in each]


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
