"""Exercises of 07_pretrained_to_bsconv: what a projection keeps."""

from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvS

from .hints import function_hint, value_hint

__all__ = ["CHECKS", "mystery_convolution"]


def share_of_singular_values(answer: Any) -> str:
    sigma = torch.tensor([3.0, 2.0, 1.0])
    energy = sigma.square()
    kept = (energy[0] / energy.sum()).item()
    hints = [
        ((sigma[0] / sigma.sum()).item(), "the share is one of energy: of squares"),
        (1 - kept, "that is the share lost"),
        (kept**0.5, "no root is taken of the share"),
    ]
    return value_hint(answer, kept, tolerance=0.005, hints=hints)


def several_blueprints(answer: Any) -> str:
    def energies(kernel: Tensor) -> Tensor:
        return torch.linalg.svdvals(kernel.flatten(2)).square()  # (N, up to K * K)

    def reference(kernel: Tensor, r: int) -> float:
        energy = energies(kernel)
        return (energy[:, :r].sum() / energy.sum()).item()

    def mean_of_filters(kernel: Tensor, r: int) -> float:
        energy = energies(kernel)
        return (energy[:, :r].sum(1) / energy.sum(1)).mean().item()

    def without_squares(kernel: Tensor, r: int) -> float:
        sigma = energies(kernel).sqrt()
        return (sigma[:, :r].sum() / sigma.sum()).item()

    hints = [
        (mean_of_filters, "the mean of the filters' shares counts small filters like large ones"),
        (without_squares, "energy is the sum of squares"),
        (lambda kernel, r: 1 - reference(kernel, r), "that is the share lost"),
    ]
    lengths = torch.linspace(0.1, 3, 8)[:, None, None, None]
    kernel = lengths * torch.randn(8, 16, 3, 3)
    kernel += torch.randn(8, 16, 1, 1) * torch.randn(8, 1, 3, 3)
    return function_hint(answer, reference, [(kernel, r) for r in (1, 2, 9)], hints=hints)


MYSTERY_CHANNELS = 11  # of 32


def mystery_convolution() -> nn.Conv2d:
    """A dense convolution, 32 to 32 channels, that was a BSConv-S once; what was its M'?"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layer = BSConvS(32, 32, 3, padding=1, bias=False, p=MYSTERY_CHANNELS / 32)
    return layer.to_conv2d()


def channels_in_between(answer: Any) -> str:
    hint = value_hint(answer, MYSTERY_CHANNELS)
    if hint and isinstance(answer, int) and not isinstance(answer, bool):
        if MYSTERY_CHANNELS < answer <= 32:
            return "with so many nothing is lost either, but there are fewer that do"
        if 0 < answer < MYSTERY_CHANNELS:
            return "with so few the kernel keeps less than all of itself"
    return hint


CHECKS = {"7.1": share_of_singular_values, "7.2": several_blueprints, "7.3": channels_in_between}
