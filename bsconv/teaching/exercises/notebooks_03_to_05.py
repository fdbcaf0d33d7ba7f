"""Exercises of notebooks 03 to 05: training, kernel correlations, layers built by hand."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvS, reg_loss
from bsconv.pytorch._tools.convs import mid_channels
from bsconv.pytorch.spectra import random_first_share

from ...experiments.results import published_results
from .checking import exercise, function_hint, shown, value_hint


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
        model: row
        for (data, model), row in published_results().items()
        if data == "cifar100" and model.startswith("cifar_resnet")
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
