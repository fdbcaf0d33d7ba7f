"""Exercises of notebooks 00 to 02: what a blueprint is, weights and MACs, what replacing leaves."""

from typing import Any

import torch
from torch import Tensor

from bsconv.pytorch import BSConvU_Replacer
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .checking import exercise, function_hint, value_hint


@exercise("0.1")
def numbers_of_a_filter(answer: Any) -> str:
    hints = [
        (64 * 9, "that is the dense filter, in which every slice has nine numbers of its own"),
        (64 + 64 * 9, "all slices share one blueprint, so it counts once"),
        (64, "the blueprint itself has numbers, too"),
        (9, "each slice has a factor of its own, too"),
    ]
    return value_hint(answer, 64 + 9, hints=hints)


@exercise("0.2")
def slice_of_a_filter(answer: Any) -> str:
    w, B = torch.randn(5, 5), torch.randn(5, 3, 3)  # as many filters as slices: all indices exist

    def reference(w: Tensor, B: Tensor, n: int, m: int) -> Tensor:
        return w[n, m] * B[n]

    hints = [
        (lambda w, B, n, m: w[n, m] * B[m], "a blueprint goes with the filter, not the slice"),
        (lambda w, B, n, m: w[m, n] * B[n], "w[n, m] belongs to filter n and slice m"),
        (lambda w, B, n, m: B[n], "the blueprint is scaled by a number"),
    ]
    return function_hint(answer, reference, [(w, B, 0, 3), (w, B, 4, 1)], hints=hints)


@exercise("1.1")
def macs_of_a_strided_layer(answer: Any) -> str:
    weights = 32 * 64 * 5**2
    macs = weights * 16**2
    hints = [
        (4 * macs, "count the positions of the output; the stride leaves fewer of them"),
        (2 * macs, "the stride acts on height and on width"),
        (macs // 32, "each number of the output is a sum over all input channels"),
        (macs // 25, "each number of the output is a sum over all places of the kernel"),
        (weights, "those are the weights; how often is each of them used?"),
    ]
    return value_hint(answer, macs, hints=hints)


@exercise("1.2")
def share_left(answer: Any) -> str:
    def reference(M: int, N: int, K: int) -> float:
        return 1 / K**2 + 1 / M

    hints = [
        (lambda M, N, K: 1 / K**2, "the blueprints, N of them, have weights as well"),
        (lambda M, N, K: 1 / M, "the 1 x 1 part has weights as well"),
        (lambda M, N, K: 1 / K**2 + 1 / N, "there is one blueprint for each filter"),
        (lambda M, N, K: 1 / reference(M, N, K), "the share is BSConv-U / dense, at most about 1"),
    ]
    cases = [(16, 32, 3), (3, 64, 7), (256, 128, 5)]
    return function_hint(answer, reference, cases, hints=hints)


@exercise("1.3")
def only_the_last_stage(answer: Any) -> str:
    import torchvision  # only here, as it is slow to import

    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=10)

    def left(*exclude: str) -> float:
        plan = BSConvU_Replacer(exclude=exclude).plan(model)
        return 100 * plan.parameters_after / plan.parameters_before

    expected = left("layer[123]*")
    hints = [
        (left("layer4*"), "that is with layer4 kept; exclude names what stays as it is"),
        (left(), "that is with all four stages replaced"),
        (100 - expected, "that is what is saved; what is left?"),
        (expected / 100, "in percent, please"),
    ]
    return value_hint(answer, expected, tolerance=0.5, hints=hints)


@exercise("2.1")
def weights_of_a_subspace_layer(answer: Any) -> str:
    M, N, K, mid = 40, 96, 3, 7
    hints = [
        (M * N + N * K**2, "that is BSConv-U; here pw is two layers"),
        (mid * (M + N), "you forgot the depthwise part"),
        ((mid - 1) * (M + N) + N * K**2, "p M is rounded up"),
        (mid * (M + N) + M * K**2, "there is one blueprint for each of the N filters"),
        (4 * (M + N) + N * K**2, "4 is the least M' can be; here p M is more"),
    ]
    return value_hint(answer, mid * (M + N) + N * K**2, hints=hints)


@exercise("2.2")
def largest_that_saves(answer: Any) -> str:
    def reference(M: int, N: int) -> int:
        return (M * N - 1) // (M + N)

    hints = [
        (lambda M, N: M * N // (M + N), "with M' = M N / (M + N) the two are equal: not fewer"),
        (lambda M, N: M * N / (M + N), "M' is a number of channels, a whole number"),
        (lambda M, N: N / (M + N), "that is the limit of M' / M"),
    ]
    cases = [(128, 32), (100, 50), (64, 64), (3, 64), (512, 512)]
    return function_hint(answer, reference, cases, hints=hints)


@exercise("2.3")
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
        ((both, 1 / 9), "in noise, too, one direction holds more energy than the others"),
        ((1.0, alone), "add the noise to the blueprint kernel before you look for it"),
    ]
    return value_hint(answer, (both, alone), tolerance=0.01, hints=hints)
