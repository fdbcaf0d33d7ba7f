"""Exercises of notebooks 05 to 09: layers by hand, MobileNets, projection, deployment, projects."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvS
from bsconv.pytorch._tools.convs import mid_channels
from bsconv.pytorch.decomposition import blueprint_factors, compose

from .checking import exercise, function_hint, shown, value_hint


@exercise("5.1")
def limit_of_p(answer: Any) -> str:
    M, N = 96, 32
    hints = [
        (M / (M + N), "that would be the limit of a layer that widens as much"),
        (1 / 2, "that is the limit where M = N"),
        (N / M, "compare M' (M + N) with M N"),
        (M * N / (M + N), "that is the limit of M'; p is its share of M"),
    ]
    return value_hint(answer, N / (M + N), tolerance=0.001, hints=hints)


@exercise("5.2")
def smaller_and_more_work(answer: Any) -> str:
    K, stride = 3, 2
    if not (hint := value_hint(answer, (64, 16, 1))) or "3 values" in hint:
        return hint
    M, N, p = answer
    for name, number in (("M", M), ("N", N)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            return f"{name} needs to be a whole number of channels, got {shown(number)}"
    if not isinstance(p, (int, float, Fraction)) or not 0 < p <= 1:
        return f"p is a share of channels, got {shown(p)}"
    pointwise = mid_channels(M, p) * (M + N)  # weights; each meets every position of the input
    dense, blueprints = M * N * K**2, N * K**2
    if pointwise + blueprints >= dense:
        return f"as BSConv-S it has {pointwise + blueprints:,} weights, dense {dense:,}: not fewer"
    work = (pointwise * stride**2 + blueprints) / dense
    if work > 1:
        return ""
    return f"it is smaller, but takes {work:.0%} of the dense layer's MACs: not more"


@exercise("5.3")
def blueprint_layer(answer: Any) -> str:
    def layer(on_pw: str = "") -> Callable[..., Tensor]:
        """A blueprint layer, whose "stride" or "padding" may be ``on_pw``, the wrong part."""

        def forward(
            U: Tensor, w: Tensor, b: Tensor, B: Tensor, stride: int, padding: int
        ) -> Tensor:
            dw: Any = {"stride": stride, "padding": padding}
            pw: Any = {on_pw: dw.pop(on_pw)} if on_pw else {}
            mixed = F.conv2d(U, w[:, :, None, None], b, **pw)
            return F.conv2d(mixed, B[:, None], groups=len(B), **dw)

        return forward

    reference = layer()
    hints = [
        (layer("stride"), "with a stride, pw drops pixels that the blueprint should see"),
        (layer("padding"), "padding on pw makes its bias b a frame, where dw needs zeros"),
        (lambda U, w, b, *rest: reference(U, w, 0 * b, *rest), "b, the bias of pw, is missing"),
    ]
    tensors = torch.randn(2, 5, 12, 12), torch.randn(7, 5), torch.randn(7), torch.randn(7, 3, 3)
    cases = [(*tensors, stride, padding) for stride, padding in ((1, 0), (2, 0), (1, 1), (2, 1))]
    return function_hint(answer, reference, cases, tolerance=1e-4, hints=hints)


@exercise("6.1")
def factor_of_a_stride(answer: Any) -> str:
    M, N = 128, 256
    depthwise_first, pointwise_first = M * 9 + M * N, 4 * M * N + N * 9
    hints = [
        (4, "close, but that is the 1 x 1 part alone: count both convolutions"),
        (depthwise_first / pointwise_first, "the other way round: pointwise first goes on top"),
        ((M * N + N * 9) / depthwise_first, "pointwise first, the 1 x 1 part sees all pixels"),
        (2, "a stride of 2 acts on height and on width"),
    ]
    return value_hint(answer, pointwise_first / depthwise_first, tolerance=0.01, hints=hints)


@exercise("6.2")
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


@exercise("6.3")
def errors_on_noise(answer: Any) -> str:
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    kernels = [torch.randn(16, 128, 3, 3, generator=each) for each in generators]

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


@exercise("7.1")
def share_of_singular_values(answer: Any) -> str:
    kept = 9 / 14
    hints = [
        (3 / 6, "the share is one of energy: of squares"),
        (1 - kept, "that is the share lost"),
        (kept**0.5, "no root is taken of the share"),
    ]
    return value_hint(answer, kept, tolerance=0.005, hints=hints)


@exercise("7.2")
def several_blueprints(answer: Any) -> str:
    def share(kernel: Tensor, r: int, power: int = 2) -> float:
        energy = torch.linalg.svdvals(kernel.flatten(2)) ** power  # (N, up to K * K)
        return (energy[:, :r].sum() / energy.sum()).item()

    def mean_of_filters(kernel: Tensor, r: int) -> float:
        return sum(share(kernel[n : n + 1], r) for n in range(len(kernel))) / len(kernel)

    hints = [
        (mean_of_filters, "the mean of the filters' shares counts small filters like large ones"),
        (lambda kernel, r: share(kernel, r, power=1), "energy is the sum of squares"),
        (lambda kernel, r: 1 - share(kernel, r), "that is the share lost"),
    ]
    lengths = torch.linspace(0.1, 3, 8)[:, None, None, None]
    kernel = lengths * torch.randn(8, 16, 3, 3)
    kernel += torch.randn(8, 16, 1, 1) * torch.randn(8, 1, 3, 3)
    cases = [(kernel, r) for r in (1, 2, 9)]
    return function_hint(answer, lambda kernel, r: share(kernel, r), cases, hints=hints)


MYSTERY_CHANNELS = 11  # of 32


def mystery_convolution() -> nn.Conv2d:
    """A dense convolution, 32 to 32 channels, that was a BSConv-S once; what was its M'?"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layer = BSConvS(32, 32, 3, padding=1, bias=False, p=MYSTERY_CHANNELS / 32)
    return layer.to_conv2d()


@exercise("7.3")
def channels_in_between(answer: Any) -> str:
    too_few = "with so few channels a part of the kernel is lost"
    too_many = "with so many channels nothing is lost, but fewer are enough"
    hints = [(mid, too_few if mid < MYSTERY_CHANNELS else too_many) for mid in range(1, 33)]
    return value_hint(answer, MYSTERY_CHANNELS, hints=hints)


@exercise("8.1")
def macs_of_merging(answer: Any) -> str:
    merged, factored = 16 * 9, 4 * 16 + 9  # for each filter and position of the output
    hints = [
        (16 * 9 / (16 + 9), "that is with stride 1"),
        (9 / 4, "that is the limit for many channels; here there are 16"),
        (factored / merged, "the other way round: merged / factored"),
    ]
    return value_hint(answer, merged / factored, tolerance=0.01, hints=hints)


@exercise("8.2")
def fold_with_bias(answer: Any) -> str:
    def scale(norm: Any) -> Tensor:
        return norm.weight / (norm.running_var + norm.eps).sqrt()

    def folded(conv: Any, norm: Any, bias: Tensor) -> tuple[Tensor, Tensor]:
        s = scale(norm)
        return s[:, None, None, None] * conv.weight, norm.bias + bias - s * norm.running_mean

    def reference(conv: Any, norm: Any) -> tuple[Tensor, Tensor]:
        return folded(conv, norm, scale(norm) * conv.bias)

    hints = [
        (lambda conv, norm: folded(conv, norm, conv.bias), "BatchNorm acts on the bias: scale it"),
        (lambda conv, norm: folded(conv, norm, torch.zeros(())), "the convolution has a bias, too"),
        (lambda conv, norm: (conv.weight, reference(conv, norm)[1]), "scale the weight as well"),
    ]
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()
    for tensor in (norm.weight, norm.bias, *list(norm.buffers())[:2]):  # mean and variance
        nn.init.uniform_(tensor, 0.5, 2)
    return function_hint(answer, reference, [(conv, norm)], tolerance=1e-4, hints=hints)


@exercise("8.3")
def values_at_the_border(answer: Any) -> str:
    hints = [
        (9, "that is K = 3; here two rows and two columns on each side see the padding"),
        (5, "that is along one direction; there are two"),
        (24, "the interior has a value, too"),
    ]
    return value_hint(answer, 5 * 5, hints=hints)


@exercise("9.1")
def width_of_equal_weights(answer: Any) -> str:
    dense = 32 * 32 * 3**2
    most = max(n for n in range(1, 200) if n * (n + 3**2) <= dense)
    hints = [
        (dense**0.5, "the blueprints have weights, too"),
        (most + 1, "that is slightly above the budget"),
        (most / 32, "that is how many times as wide; the answer is N"),
    ]
    return value_hint(answer, most, hints=hints)


@exercise("9.2")
def decibels(answer: Any) -> str:
    def psnr(found: Tensor, wanted: Tensor) -> Tensor:
        return -10 * (found - wanted).square().mean().log10()

    hints = [
        (lambda found, wanted: -psnr(found, wanted), "a better picture has more decibels"),
        (lambda found, wanted: psnr(found, wanted) / 10, "ten times the logarithm"),
        (lambda found, wanted: psnr(found, wanted) / 2, "no root is taken of the mean square"),
    ]
    cases = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)) for _ in range(2)]
    return function_hint(answer, psnr, cases, tolerance=1e-3, hints=hints)
