"""Exercises of notebooks 00 to 02: what a blueprint is, weights and MACs, what replacing leaves."""

from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvS, BSConvU, BSConvU_Replacer, ModelProfiler
from bsconv.pytorch._tools.model_tree import parameter_count
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .hints import function_hint, value_hint

# 00_index


def numbers_of_a_filter(answer: Any) -> str:
    layer = BSConvU(64, 1, 3, bias=False)
    hints = [
        (64 * 9, "that is the dense filter, in which every slice has nine numbers of its own"),
        (64 + 64 * 9, "all slices share one blueprint, so it counts once"),
        (64, "the blueprint itself has numbers, too"),
        (9, "each slice has a factor of its own, too"),
    ]
    return value_hint(answer, parameter_count(layer), hints=hints)


def slice_of_a_filter(answer: Any) -> str:
    w, B = torch.randn(5, 5), torch.randn(5, 3, 3)  # as many filters as slices: all indices exist

    def reference(w: Tensor, B: Tensor, n: int, m: int) -> Tensor:
        return w[n, m] * B[n]

    by_slice = "that pattern goes with the slice; a blueprint goes with the filter"
    hints = [
        (lambda w, B, n, m: w[n, m] * B[m], by_slice),
        (lambda w, B, n, m: w[m, n] * B[n], "w[n, m] belongs to filter n and slice m"),
        (lambda w, B, n, m: B[n], "the blueprint is scaled by a number"),
    ]
    return function_hint(answer, reference, [(w, B, 0, 3), (w, B, 4, 1)], hints=hints)


# 01_load_models


def macs_of_a_strided_layer(answer: Any) -> str:
    conv = nn.Conv2d(32, 64, 5, stride=2, padding=2, bias=False)
    macs = ModelProfiler(conv, input_size=(1, 32, 32, 32)).total_mac_count
    hints = [
        (4 * macs, "MACs go with the positions of the output, which the stride makes fewer"),
        (2 * macs, "the stride acts on height and on width"),
        (macs // 32, "each number of the output is a sum over all input channels"),
        (macs // 25, "each number of the output is a sum over all places of the kernel"),
        (conv.weight.numel(), "those are the weights; how often is each of them used?"),
    ]
    return value_hint(answer, macs, hints=hints)


def share_left(answer: Any) -> str:
    def reference(M: int, N: int, K: int) -> float:
        dense = nn.Conv2d(M, N, K, bias=False)
        return parameter_count(BSConvU(M, N, K, bias=False)) / parameter_count(dense)

    hints = [
        (lambda M, N, K: 1 / K**2, "the blueprints, N of them, have weights as well"),
        (lambda M, N, K: 1 / M, "the 1 x 1 part has weights as well"),
        (
            lambda M, N, K: (M * K**2 + M * N) / (M * N * K**2),
            "there is one blueprint for each filter, not for each input channel",
        ),
        (lambda M, N, K: 1 / reference(M, N, K), "the share is BSConv-U / dense, at most about 1"),
    ]
    cases = [(16, 32, 3), (3, 64, 7), (256, 128, 5)]
    return function_hint(answer, reference, cases, hints=hints)


def only_the_last_stage(answer: Any) -> str:
    import torchvision  # only here, as it is slow to import

    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=10)

    def left(*exclude: str) -> float:
        plan = BSConvU_Replacer(exclude=list(exclude)).plan(model)
        return 100 * plan.parameters_after / plan.parameters_before

    expected = left("layer[123]*")
    hints = [
        (left("layer4*"), "that is with layer4 kept; exclude names what stays as it is"),
        (left(), "that is with all four stages replaced"),
        (100 - expected, "that is what is saved; what is left?"),
        (expected / 100, "in percent, please"),
    ]
    return value_hint(answer, expected, tolerance=0.5, hints=hints)


# 02_replace_convolutions


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


CHECKS = {
    "0.1": numbers_of_a_filter,
    "0.2": slice_of_a_filter,
    "1.1": macs_of_a_strided_layer,
    "1.2": share_left,
    "1.3": only_the_last_stage,
    "2.1": weights_of_a_subspace_layer,
    "2.2": largest_that_saves,
    "2.3": blueprint_in_noise,
}
