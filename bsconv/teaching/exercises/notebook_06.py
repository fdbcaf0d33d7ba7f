"""Exercises of 06_mobilenets: what a stride costs, and what either order can represent."""

from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvU, ModelProfiler
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .hints import function_hint, value_hint


def factor_of_a_stride(answer: Any) -> str:
    M, N = 128, 256
    depthwise = nn.Conv2d(M, M, 3, stride=2, padding=1, groups=M, bias=False)
    layers = {
        "depthwise first": nn.Sequential(depthwise, nn.Conv2d(M, N, 1, bias=False)),
        "pointwise first": BSConvU(M, N, 3, stride=2, padding=1, bias=False),
    }
    first, second = (
        ModelProfiler(layer, input_size=(1, M, 32, 32)).total_mac_count for layer in layers.values()
    )
    hints = [
        (4, "close, but that is the 1 x 1 part alone: count both convolutions"),
        (first / second, "the other way round: pointwise first / depthwise first"),
        ((N * M + N * 9) / (M * N + M * 9), "pointwise first, the 1 x 1 part sees all pixels"),
        (2, "a stride of 2 acts on height and on width"),
    ]
    return value_hint(answer, second / first, tolerance=0.01, hints=hints)


def fits_depthwise_first(answer: Any) -> str:
    def rank_one(kernel: Tensor) -> bool:
        return bool((torch.linalg.matrix_rank(kernel.flatten(2)) <= 1).all())

    def reference(kernel: Tensor) -> bool:
        return rank_one(kernel.transpose(0, 1))

    w = torch.randn(6, 4).double()
    D, B, noise = (torch.randn(n, 3, 3).double() for n in (4, 6, 24))
    kernels = {
        "all alike": w[:, :, None, None] * D[0],
        "across": torch.einsum("nm,mkl->nmkl", w, D),
        "within": torch.einsum("nm,nkl->nmkl", w, B),
        "noise": noise.view(6, 4, 3, 3),
    }
    hints = [
        (rank_one, "are those the matrices of the filters? Take those of the input channels"),
        (lambda kernel: not reference(kernel), "True and False should be exchanged"),
    ]
    return function_hint(answer, reference, [(k,) for k in kernels.values()], hints=hints)


def errors_on_noise(answer: Any) -> str:
    kernels = [
        torch.randn(16, 128, 3, 3, generator=torch.Generator().manual_seed(seed))
        for seed in range(4)
    ]

    def error(kernel: Tensor) -> float:
        left = kernel - compose(*blueprint_factors(kernel))
        return (torch.linalg.norm(left) / torch.linalg.norm(kernel)).item()

    blueprint = sum(map(error, kernels)) / len(kernels)
    depthwise = sum(error(kernel.transpose(0, 1)) for kernel in kernels) / len(kernels)
    hints = [
        ((depthwise, blueprint), "the other order: blueprint-separable first"),
        ((1 - blueprint**2, 1 - depthwise**2), "those are shares kept; the errors, please"),
        ((blueprint**2, depthwise**2), "those are squares of the errors"),
    ]
    return value_hint(answer, (blueprint, depthwise), tolerance=0.01, hints=hints)


CHECKS = {"6.1": factor_of_a_stride, "6.2": fits_depthwise_first, "6.3": errors_on_noise}
