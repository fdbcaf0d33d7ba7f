"""Exercises of 03_train_on_cifar: the penalty, the loss with it, and equal budgets."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvS, reg_loss
from bsconv.pytorch.regularization import orthonormality_penalty

from ...experiments.results import published_results
from .hints import function_hint, value_hint


def penalty_of_long_rows(answer: Any) -> str:
    basis = 2 * torch.eye(2, 8)
    distance = orthonormality_penalty(basis).item()
    hints = [
        (distance, "that is the distance; the loss takes alpha times it"),
        (0.1 * distance**2, "the norm is not squared"),
        (0.1 * 2**0.5, "the diagonal of the product holds squared lengths"),
        (0.1 * 6, "the norm is the root of the sum of squares"),
        (0.1 * 3, "both rows count"),
        (0.0, "the rows stand at right angles, and yet their length is not 1"),
    ]
    return value_hint(answer, 0.1 * distance, tolerance=0.005, hints=hints)


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
    found, expected = (
        torch.autograd.grad(function(*cases[0]), layer.pw1.weight)[0]
        for function in (answer, reference)
    )
    if not torch.allclose(found, expected, atol=1e-6):
        return "the value is right, but its gradient lacks the penalty: is that still a tensor?"
    return ""


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


CHECKS = {"3.1": penalty_of_long_rows, "3.2": training_loss, "3.3": smallest_as_good}
