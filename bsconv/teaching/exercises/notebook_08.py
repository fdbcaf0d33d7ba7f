"""Exercises of 08_deploy: what merging costs, and what BatchNorm leaves behind."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import BSConvU, ModelProfiler

from .hints import function_hint, value_hint


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
    def scale(norm: nn.BatchNorm2d) -> Tensor:
        assert norm.running_var is not None
        return norm.weight / (norm.running_var + norm.eps).sqrt()

    def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, bias: Tensor) -> tuple[Tensor, Tensor]:
        assert norm.running_mean is not None
        s = scale(norm)
        return s[:, None, None, None] * conv.weight, norm.bias + bias - s * norm.running_mean

    def reference(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        assert conv.bias is not None
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
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None:
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


CHECKS = {"8.1": macs_of_merging, "8.2": fold_with_bias, "8.3": values_at_the_border}
