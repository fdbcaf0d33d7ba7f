"""Spectra of all kernels of a model: ours, and NumPy's SVD kernel by kernel."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .timing import Comparison

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="vgg19", help="of torchvision (default vgg19)")


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    import torch
    import torchvision

    from bsconv.basics.timing import in_turns
    from bsconv.pytorch.spectra import kernel_spectra

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    with torch.device("meta"):
        model = getattr(torchvision.models, arguments.model)()
    weights = {
        name: torch.randn(weight.shape)
        for name, weight in model.state_dict().items()
        if weight.dim() == 4 and weight.shape[2:] != (1, 1)
    }
    contenders = {"ours": lambda: kernel_spectra(weights), "numpy": lambda: one_by_one(weights)}
    seconds = in_turns(contenders, torch.device("cpu"), rounds=arguments.rounds)
    kernels = sum(len(weight) for weight in weights.values())
    yield Comparison(f"spectra of the {kernels:,} kernels of {arguments.model}", seconds)


def one_by_one(weights: dict[str, Tensor]) -> list[object]:
    """Shares of the principal components, a kernel at a time, as one would write it in NumPy."""
    import numpy as np

    shares: list[object] = []
    for weight in weights.values():
        for kernel in weight.numpy():
            slices = kernel.reshape(len(kernel), -1)
            energies = np.linalg.svd(slices - slices.mean(0), compute_uv=False) ** 2
            shares.append(energies / energies.sum())
    return shares
