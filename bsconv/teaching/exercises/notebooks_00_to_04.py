"""Exercises of notebooks 00 to 04: blueprints, what replacing leaves, training, correlations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvS, BSConvU_Replacer, reg_loss
from bsconv.pytorch.decomposition import blueprint_factors, compose
from bsconv.pytorch.spectra import random_first_share

from ...experiments.results import published_results
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
    cases = [(w, B, 0, 3), (w, B, 4, 1)]
    hints = [
        (lambda w, B, n, m: w[n, m] * B[m], "a blueprint goes with the filter, not the slice"),
        (lambda w, B, n, m: w[m, n] * B[n], "w[n, m] belongs to filter n and slice m"),
        (lambda w, B, n, m: B[n], "the blueprint is scaled by a number"),
    ]
    return function_hint(answer, lambda w, B, n, m: w[n, m] * B[n], cases, hints=hints)


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
    hints = [
        (lambda M, N, K: 1 / K**2, "the blueprints, N of them, have weights as well"),
        (lambda M, N, K: 1 / M, "the 1 x 1 part has weights as well"),
        (lambda M, N, K: 1 / K**2 + 1 / N, "there is one blueprint for each filter"),
        (lambda M, N, K: 1 / (1 / K**2 + 1 / M), "the share is BSConv-U / dense, at most about 1"),
    ]
    cases = [(16, 32, 3), (3, 64, 7), (256, 128, 5)]
    return function_hint(answer, lambda M, N, K: 1 / K**2 + 1 / M, cases, hints=hints)


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
    hints = [
        (lambda M, N: M * N // (M + N), "with M' = M N / (M + N) the two are equal: not fewer"),
        (lambda M, N: M * N / (M + N), "M' is a number of channels, a whole number"),
        (lambda M, N: N / (M + N), "that is the limit of M' / M"),
    ]
    cases = [(128, 32), (100, 50), (64, 64), (3, 64), (512, 512)]
    return function_hint(answer, lambda M, N: (M * N - 1) // (M + N), cases, hints=hints)


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


@exercise("3.1")
def penalty_of_long_rows(answer: Any) -> str:
    hints = [
        (18**0.5, "that is the distance; the loss takes alpha times it"),
        (0.1 * 18, "the norm is not squared"),
        (0.1 * 2**0.5, "the diagonal of the product holds squared lengths"),
        (0.1 * 6, "the norm is the root of the sum of squares"),
        (0.1 * 3, "both rows count"),
        (0.0, "the rows stand at right angles, and yet their length is not 1"),
    ]
    return value_hint(answer, 0.1 * 18**0.5, tolerance=0.005, hints=hints)


@exercise("3.2")
def training_loss(answer: Any) -> str:
    def loss(alpha: float) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        return lambda model, images, labels: (
            F.cross_entropy(model(images), labels) + reg_loss(model, alpha=alpha)
        )

    def network(conv: nn.Module) -> nn.Sequential:
        return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    images, labels = torch.randn(4, 16, 8, 8), torch.arange(4)
    layer = BSConvS(16, 10, 3, p=1 / 2)
    blueprint = network(layer)  # has no method reg_loss, as a wrapped network has none
    dense = network(nn.Conv2d(16, 10, 3))
    reference = loss(alpha=0.1)
    hints = [(loss(alpha=0.0), "is the penalty in it?"), (loss(alpha=1.0), "alpha should be 0.1")]
    cases = [(model, images, labels) for model in (blueprint, dense)]
    if hint := function_hint(answer, reference, cases, hints=hints):
        return hint
    losses = (function(*cases[0]) for function in (answer, reference))
    found, expected = (torch.autograd.grad(one, layer.pw1.weight)[0] for one in losses)
    if not torch.allclose(found, expected, atol=1e-6):
        return "the value is right, but its gradient lacks the penalty: is that still a tensor?"
    return ""


@exercise("3.3")
def smallest_as_good(answer: Any) -> str:
    table = {
        m: r
        for (data, m), r in published_results().items()
        if data == "cifar100" and "_resnet" in m
    }
    goal = table["cifar_resnet56"]
    good = {m: row for m, row in table.items() if "_bsconv" in m and row.top1 >= goal.top1}
    expected = min(good, key=lambda model: good[model].million_parameters)
    hint = value_hint(answer, expected)
    if not hint or not isinstance(answer, str):
        return hint
    if answer not in table:
        return f"{answer!r} is not a ResNet of that table; take the name that the table has"
    if answer not in good:
        return f"{answer} is not a BSConv network of at least {goal.top1:.2f} %"
    return f"{answer} is good enough, but there is a smaller one"


@exercise("4.1")
def energy_of_two_patterns(answer: Any) -> str:
    hints = [
        (1.0, "that is the share of variance, with the mean slice subtracted"),
        (3**2 / (3**2 + 1), "count the energy of the slices: each of them has length 1"),
        (1 / 2, "the two patterns are not equally frequent"),
        (1 / 4, "which of the two does the best blueprint take?"),
    ]
    return value_hint(answer, 3 / 4, tolerance=0.005, hints=hints)


@exercise("4.2")
def excess(answer: Any) -> str:
    def beyond(
        kernel: Tensor, chance: Any = random_first_share, center: bool = True, power: int = 2
    ) -> float:
        X = kernel.flatten(1)
        energies = torch.linalg.svdvals(X - center * X.mean(0)) ** power
        return (energies[0] / energies.sum()).item() - chance(len(kernel), 9, center)

    hints = [
        (lambda kernel: beyond(kernel, lambda *_: 0), "that is the share; what would chance give?"),
        (lambda kernel: beyond(kernel, lambda *_: 1 / 9), "few slices get more than 1/9 by chance"),
        (lambda kernel: beyond(kernel, center=False), "that is the excess of energy"),
        (lambda kernel: beyond(kernel, power=1), "take the squares of the singular values"),
    ]
    planted = torch.randn(32, 1, 1) * torch.randn(3, 3)
    cases = [(planted + torch.randn(32, 3, 3),), (torch.randn(64, 3, 3),), (torch.randn(3, 3, 3),)]
    return function_hint(answer, lambda kernel: beyond(kernel), cases, tolerance=0.005, hints=hints)


@exercise("4.3")
def what_changes_nothing(answer: Any) -> str:
    expected = {"positions", "order"}
    if isinstance(answer, set) and answer != expected and answer <= expected | {"signs", "between"}:
        if answer == expected | {"signs"}:
            return "that is right for energy; but what do signs do to the mean slice?"
        return "one of yours does change the shares" if answer - expected else "there is one more"
    return value_hint(answer, expected)
