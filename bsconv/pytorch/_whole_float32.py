"""float32 with all its digits, whatever faster formats are allowed to stand in for it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def whole_float32() -> Iterator[None]:
    """Convolutions and products in float32 itself: no TF32 on GPUs, no bfloat16 on CPUs.

    On GPUs TF32 is PyTorch's default for convolutions, and keeps three digits. The settings are
    those of the whole process, and are put back afterwards.
    """
    backends: Any = torch.backends
    settings = (
        *(backends.cudnn.conv, backends.cuda.matmul),
        *(backends.mkldnn.conv, backends.mkldnn.matmul),
    )
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
