"""Exercises of 01_load_models: weights, MACs, and what a replacement leaves."""

from typing import Any

import torch
from torch import nn

from bsconv.pytorch import BSConvU, BSConvU_Replacer, ModelProfiler
from bsconv.pytorch._tools.model_tree import parameter_count

from .hints import function_hint, value_hint


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


CHECKS = {"1.1": macs_of_a_strided_layer, "1.2": share_left, "1.3": only_the_last_stage}
