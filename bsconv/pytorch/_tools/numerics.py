"""Numbers without loss: float64 where there is one, all digits of float32, exact scales."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """float64; float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def exact(tensor: Tensor) -> Tensor:
    """``tensor``, detached, in float64; on the CPU where its device has no float64."""
    device = "cpu" if tensor.device.type == "mps" else tensor.device
    return tensor.detach().to(device).to(torch.float64)


def power_of_two_scale(rows: Tensor) -> Tensor:
    """For each column the power of two, exact to divide by, that makes its largest entry 1 to 2."""
    largest = rows.detach().abs().amax(0)
    power = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)
    return torch.where((largest > 0) & largest.isfinite(), power, 1.0)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and products in float32 itself: no TF32 on GPUs, no bfloat16 on CPUs."""
    has: Any = torch.backends
    settings = [has.cudnn.conv, has.mkldnn.conv, has.cuda.matmul, has.mkldnn.matmul]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def without_autocast(device_type: str) -> contextlib.AbstractContextManager:
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()  # the meta device, for example
