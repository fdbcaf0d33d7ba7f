"""The device of a run, and randomness that can be repeated on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


def find_device(name: str) -> torch.device:
    """The device ``name``, tried out; ``"auto"`` is cuda where there is one, else cpu."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # fails on "meta" as well, which computes nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"
        raise ValueError(f"device needs one that is here, {known}, got {name!r}") from error
    return device


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Repeatable GPU kernels and a random state of its own; both are as before afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        devices = range(torch.cuda.device_count()) if device.type == "cuda" else ()
        with torch.random.fork_rng(list(devices)):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
