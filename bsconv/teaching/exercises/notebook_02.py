"""Exercises of 02_replace_convolutions: what BSConv-S weighs, when it saves, what noise hides."""

from typing import Any

import torch
from torch import Tensor

from bsconv.pytorch import BSConvS, BSConvU
from bsconv.pytorch._tools.model_tree import parameter_count
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .hints import function_hint, value_hint


def weights_of_a_subspace_layer(answer: Any) -> str:
    M, N, K = 40, 96, 3
    layer = BSConvS(M, N, K, bias=False, p=1 / 6)
    mid = layer.pw1.out_channels
    hints = [
        (parameter_count(BSConvU(M, N, K, bias=False)), "that is BSConv-U; here pw is two layers"),
        (mid * (M + N), "you forgot the depthwise part"),
        ((mid - 1) * (M + N) + N * K**2, "p M is rounded up"),
        (mid * (M + N) + M * K**2, "there is one blueprint for each of the N filters"),
        (4 * (M + N) + N * K**2, "4 is the least M' can be; here p M is more"),
    ]
    return value_hint(answer, parameter_count(layer), hints=hints)


def largest_that_saves(answer: Any) -> str:
    def reference(M: int, N: int) -> int:
        return max(mid for mid in range(M + N) if mid * (M + N) < M * N)

    equal = "with M' = M N / (M + N) the two are equal, and the exercise asks for fewer"
    hints = [
        (lambda M, N: M * N // (M + N), equal),
        (lambda M, N: M * N / (M + N), "M' is a number of channels, a whole number"),
        (lambda M, N: N / (M + N), "that is the limit of M' / M"),
    ]
    cases = [(128, 32), (100, 50), (64, 64), (3, 64), (512, 512)]
    return function_hint(answer, reference, cases, hints=hints)


def blueprint_in_noise(answer: Any) -> str:
    def kept(kernel: Tensor) -> float:
        closest = compose(*blueprint_factors(kernel))
        return (closest.square().sum() / kernel.square().sum()).item()

    generator = torch.Generator().manual_seed(0)
    sizes = (64, 64), (64, 3, 3), (64, 64, 3, 3)
    w, B, noise = (torch.randn(size, generator=generator) for size in sizes)
    both, alone = kept(compose(w, B) + noise), kept(noise)
    hints = [
        ((alone, both), "that is the other order: the planted kernel first"),
        ((1 - both, 1 - alone), "these are the shares lost"),
        ((both**0.5, alone**0.5), "energy is the sum of squares, and no root is taken of it"),
        ((both, 1 / 9), "in noise, too, one direction is longer than the other eight"),
        ((1.0, alone), "add the noise to the blueprint kernel before you look for it"),
    ]
    return value_hint(answer, (both, alone), tolerance=0.01, hints=hints)


CHECKS = {"2.1": weights_of_a_subspace_layer, "2.2": largest_that_saves, "2.3": blueprint_in_noise}
