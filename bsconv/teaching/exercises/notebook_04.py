"""Exercises of 04_kernel_correlations: shares of energy and variance, chance, and what they see."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bsconv.pytorch import kernel_spectra
from bsconv.pytorch.spectra import random_first_share

from .hints import function_hint, value_hint


def _first_share(kernel: Tensor, center: bool = True) -> float:
    """Of one kernel, shape (M, K, K)."""
    return kernel_spectra(kernel[None], center)[""][0, 0].item()


def energy_of_two_patterns(answer: Any) -> str:
    patterns = torch.eye(9).view(9, 3, 3)
    kernel = patterns[[0, 0, 0, 1]]
    hints = [
        (_first_share(kernel), "that is the share of variance, with the mean slice subtracted"),
        (3**2 / (3**2 + 1), "count the energy of the slices: each of them has length 1"),
        (1 / 2, "the two patterns are not equally frequent"),
        (1 / 4, "which of the two does the best blueprint take?"),
    ]
    return value_hint(answer, _first_share(kernel, center=False), tolerance=0.005, hints=hints)


def excess(answer: Any) -> str:
    def reference(kernel: Tensor) -> float:
        return _first_share(kernel) - random_first_share(kernel.shape[0], 9)

    hints = [
        (_first_share, "that is the share; what would chance give?"),
        (lambda kernel: _first_share(kernel) - 1 / 9, "chance gives more than 1/9 to few slices"),
        (
            lambda kernel: _first_share(kernel, False) - random_first_share(len(kernel), 9, False),
            "that is the excess of energy (center=False)",
        ),
    ]
    planted = torch.randn(32, 1, 1) * torch.randn(3, 3)
    cases = [(planted + torch.randn(32, 3, 3),), (torch.randn(64, 3, 3),), (torch.randn(3, 3, 3),)]
    return function_hint(answer, reference, cases, tolerance=0.005, hints=hints)


def what_changes_nothing(answer: Any) -> str:
    kernels = torch.randn(8, 16, 3, 3)
    kernels += torch.randn(8, 16, 1, 1) * torch.randn(8, 1, 3, 3)
    signs = torch.where(torch.arange(16) % 2 == 0, 1.0, -1.0)[:, None, None]
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "positions": lambda F: F.flatten(2)[..., torch.randperm(9)].view(F.shape),
        "order": lambda F: F[:, torch.randperm(16)],
        "signs": lambda F: F * signs,
        "between": lambda F: F.flatten(0, 1)[torch.randperm(128)].view(F.shape),
    }

    def keeping(center: bool) -> set[str]:
        before = kernel_spectra(kernels, center)[""]
        return {
            name
            for name, change in changes.items()
            if torch.allclose(kernel_spectra(change(kernels), center)[""], before, atol=1e-5)
        }

    expected = keeping(center=True)
    if isinstance(answer, set) and answer != expected and answer <= set(changes):
        if answer == keeping(center=False):
            return "that is right for energy; but what do signs do to the mean slice?"
        return "one of yours does change the shares" if answer - expected else "there is one more"
    return value_hint(answer, expected)


CHECKS = {"4.1": energy_of_two_patterns, "4.2": excess, "4.3": what_changes_nothing}
