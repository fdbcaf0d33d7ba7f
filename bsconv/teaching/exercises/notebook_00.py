"""Exercises of 00_index: what a blueprint is."""

from typing import Any

import torch
from torch import Tensor

from bsconv.pytorch import BSConvU
from bsconv.pytorch._tools.model_tree import parameter_count

from .hints import function_hint, value_hint


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


CHECKS = {"0.1": numbers_of_a_filter, "0.2": slice_of_a_filter}
