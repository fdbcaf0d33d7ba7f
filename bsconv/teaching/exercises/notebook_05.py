"""Exercises of 05_build_from_scratch: the limit of p, weights against work, a layer by hand."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bsconv.pytorch._tools.convs import mid_channels

from .hints import function_hint, shown, value_hint


def limit_of_p(answer: Any) -> str:
    M, N = 96, 32
    hints = [
        (M / (M + N), "that would be the limit of a layer that widens as much"),
        (1 / 2, "that is the limit where M = N"),
        (N / M, "compare M' (M + N) with M N"),
        (M * N / (M + N), "that is the limit of M'; p is its share of M"),
    ]
    return value_hint(answer, N / (M + N), tolerance=0.001, hints=hints)


def smaller_and_more_work(answer: Any) -> str:
    K, stride = 3, 2
    hint = value_hint(answer, (64, 16, 1))
    if not hint:
        return ""
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        return f"{shown(answer)} is not M, N and p"
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
    if work <= 1:
        return f"it is smaller, but takes {work:.0%} of the dense layer's MACs: not more"
    return ""


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
        (layer("padding"), "padding on pw makes its bias b a frame, where dw wants zeros"),
        (lambda U, w, b, *rest: reference(U, w, 0 * b, *rest), "b, the bias of pw, is missing"),
    ]
    tensors = torch.randn(2, 5, 12, 12), torch.randn(7, 5), torch.randn(7), torch.randn(7, 3, 3)
    cases = [(*tensors, stride, padding) for stride, padding in ((1, 0), (2, 0), (1, 1), (2, 1))]
    return function_hint(answer, reference, cases, tolerance=1e-4, hints=hints)


CHECKS = {"5.1": limit_of_p, "5.2": smaller_and_more_work, "5.3": blueprint_layer}
