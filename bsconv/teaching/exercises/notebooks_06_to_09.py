"""Exercises of notebooks 06 to 08: MobileNets, projection, deployment."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvS, BSConvU, ModelProfiler
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .hints import function_hint, value_hint

# 06_mobilenets


def factor_of_a_stride(answer: Any) -> str:
    M, N = 128, 256
    depthwise = nn.Conv2d(M, M, 3, stride=2, padding=1, groups=M, bias=False)
    depthwise_first = nn.Sequential(depthwise, nn.Conv2d(M, N, 1, bias=False))
    first, second = (
        ModelProfiler(layer, input_size=(1, M, 32, 32)).total_mac_count
        for layer in (depthwise_first, BSConvU(M, N, 3, stride=2, padding=1, bias=False))
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
    cases = [
        (w[:, :, None, None] * D[0],),
        (torch.einsum("nm,mkl->nmkl", w, D),),  # shared across filters
        (torch.einsum("nm,nkl->nmkl", w, B),),  # shared within a filter
        (noise.view(6, 4, 3, 3),),
    ]
    hints = [
        (rank_one, "are those the matrices of the filters? Take those of the input channels"),
        (lambda kernel: not reference(kernel), "True and False should be exchanged"),
    ]
    return function_hint(answer, reference, cases, hints=hints)


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


# 07_pretrained_to_bsconv


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
    def share(kernel: Tensor, r: int, power: int) -> float:
        energy = torch.linalg.svdvals(kernel.flatten(2)) ** power  # (N, up to K * K)
        return (energy[:, :r].sum() / energy.sum()).item()

    def reference(kernel: Tensor, r: int) -> float:
        return share(kernel, r, power=2)

    def mean_of_filters(kernel: Tensor, r: int) -> float:
        return sum(reference(kernel[n : n + 1], r) for n in range(len(kernel))) / len(kernel)

    hints = [
        (mean_of_filters, "the mean of the filters' shares counts small filters like large ones"),
        (lambda kernel, r: share(kernel, r, power=1), "energy is the sum of squares"),
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
    too_few = "with so few the kernel keeps less than all of itself"
    too_many = "with so many nothing is lost either, but there are fewer that do"
    hints = [(mid, too_few if mid < MYSTERY_CHANNELS else too_many) for mid in range(1, 33)]
    return value_hint(answer, MYSTERY_CHANNELS, hints=hints)


# 08_deploy


def macs_of_merging(answer: Any) -> str:
    factored = BSConvU(16, 16, 3, stride=2, padding=1, bias=False)
    merged, apart = (
        ModelProfiler(layer, input_size=(1, 16, 32, 32)).total_mac_count
        for layer in (factored.to_conv2d(), factored)
    )
    hints = [
        (16 * 9 / (16 + 9), "that is with stride 1"),
        (9 / 4, "that is the limit for many channels; here there are 16"),
        (apart / merged, "the other way round: merged / factored"),
    ]
    return value_hint(answer, merged / apart, tolerance=0.01, hints=hints)


def fold_with_bias(answer: Any) -> str:
    def scale(norm: Any) -> Tensor:
        return norm.weight / (norm.running_var + norm.eps).sqrt()

    def folded(conv: Any, norm: Any, bias: Tensor) -> tuple[Tensor, Tensor]:
        s = scale(norm)
        return s[:, None, None, None] * conv.weight, norm.bias + bias - s * norm.running_mean

    def reference(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
        return folded(conv, norm, scale(norm) * conv.bias)

    unscaled = "the convolution's bias goes through BatchNorm, too: scale it"
    no_bias = "the convolution has a bias of its own"
    weight = "the weight wants scaling, channel by channel"
    hints = [
        (lambda conv, norm: folded(conv, norm, conv.bias), unscaled),
        (lambda conv, norm: folded(conv, norm, torch.zeros(())), no_bias),
        (lambda conv, norm: (conv.weight, reference(conv, norm)[1]), weight),
    ]
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()
    for tensor in (norm.weight, norm.bias, *list(norm.buffers())[:2]):  # mean and variance
        nn.init.uniform_(tensor, 0.5, 2)
    return function_hint(answer, reference, [(conv, norm)], tolerance=1e-4, hints=hints)


def values_at_the_border(answer: Any) -> str:
    blueprint = torch.randn(1, 1, 5, 5)
    plane = F.conv2d(torch.ones(1, 1, 16, 16), blueprint, padding=2)
    values = 1 + int((plane.flatten().sort()[0].diff() > 1e-6).sum())
    hints = [
        (9, "that is K = 3; here two rows and two columns on each side see the padding"),
        (5, "that is along one direction; there are two"),
        (values - 1, "the interior has a value, too"),
    ]
    return value_hint(answer, values, hints=hints)


# 09_your_own_project


def width_of_equal_weights(answer: Any) -> str:
    dense = 32 * 32 * 3**2
    most = max(n for n in range(1, 200) if n * (n + 3**2) <= dense)
    hints = [
        (dense**0.5, "the blueprints have weights, too"),
        (most + 1, "that is above the budget by a little"),
        (most / 32, "that is how many times as wide; the answer is N"),
    ]
    return value_hint(answer, most, hints=hints)


def decibels(answer: Any) -> str:
    def psnr(found: Tensor, wanted: Tensor) -> Tensor:
        return -10 * (found - wanted).square().mean().log10()

    hints = [
        (
            lambda found, wanted: -psnr(found, wanted),
            "a better picture has more decibels: the sign",
        ),
        (lambda found, wanted: psnr(found, wanted) / 10, "ten times the logarithm"),
        (lambda found, wanted: psnr(found, wanted) / 2, "no root is taken of the mean square"),
    ]
    cases = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)) for _ in range(2)]
    return function_hint(answer, psnr, cases, tolerance=1e-3, hints=hints)


CHECKS = {
    "6.1": factor_of_a_stride,
    "6.2": fits_depthwise_first,
    "6.3": errors_on_noise,
    "7.1": share_of_singular_values,
    "7.2": several_blueprints,
    "7.3": channels_in_between,
    "8.1": macs_of_merging,
    "8.2": fold_with_bias,
    "8.3": values_at_the_border,
    "9.1": width_of_equal_weights,
    "9.2": decibels,
}
