"""Exercises of 05_build_from_scratch: the limit of p, the penalty's gradient, a layer by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bsconv.pytorch.regularization import orthonormality_penalty

from .hints import function_hint, value_hint

__all__ = ["CHECKS"]


def limit_of_p(answer: Any) -> str:
    M, N = 96, 32
    hints = [
        (M / (M + N), "that would be the limit of a layer that widens as much"),
        (1 / 2, "that is the limit where M = N"),
        (N / M, "compare M' (M + N) with M N"),
        (M * N / (M + N), "that is the limit of M'; p is its share of M"),
    ]
    return value_hint(answer, N / (M + N), tolerance=0.001, hints=hints)


def penalty_gradient(answer: Any) -> str:
    def reference(W_B: Tensor) -> Tensor:
        W_B = W_B.clone().requires_grad_()
        return torch.autograd.grad(orthonormality_penalty(W_B), W_B)[0]

    def gram_error(W_B: Tensor) -> Tensor:
        return W_B @ W_B.T - torch.eye(len(W_B)).to(W_B)

    hints = [
        (lambda W_B: 4 * gram_error(W_B) @ W_B, "that is the gradient of the squared penalty"),
        (lambda W_B: reference(W_B) / 2, "W_B stands in the product twice"),
        (lambda W_B: 2 * gram_error(W_B) @ W_B, "the norm has a root: divide by it"),
    ]
    random = torch.randn(4, 16).double()
    if hint := function_hint(answer, reference, [(random,), (random.T,)], hints=hints):
        return hint
    optimum = torch.eye(4, 16).double()
    if hint := function_hint(answer, reference, [(optimum,)]):
        return f"right but at the optimum, where G is zero and so is its norm: {hint}"
    return ""


def blueprint_layer(answer: Any) -> str:
    def two(U: Tensor, w: Tensor, b: Tensor, B: Tensor, pw: dict, dw: dict) -> Tensor:
        mixed = F.conv2d(U, w[:, :, None, None], b, **pw)
        return F.conv2d(mixed, B[:, None], groups=len(B), **dw)

    def reference(U: Tensor, w: Tensor, b: Tensor, B: Tensor, stride: int, padding: int) -> Tensor:
        return two(U, w, b, B, {}, {"stride": stride, "padding": padding})

    def stride_on_pw(
        U: Tensor, w: Tensor, b: Tensor, B: Tensor, stride: int, padding: int
    ) -> Tensor:
        return two(U, w, b, B, {"stride": stride}, {"padding": padding})

    def padding_on_pw(
        U: Tensor, w: Tensor, b: Tensor, B: Tensor, stride: int, padding: int
    ) -> Tensor:
        return two(U, w, b, B, {"padding": padding}, {"stride": stride})

    hints = [
        (stride_on_pw, "with a stride, pw drops pixels that the blueprint should see"),
        (padding_on_pw, "padding on pw makes its bias b a frame, where dw wants zeros"),
        (
            lambda U, w, b, B, stride, padding: reference(U, w, 0 * b, B, stride, padding),
            "b, the bias of pw, is missing",
        ),
    ]
    tensors = torch.randn(2, 5, 12, 12), torch.randn(7, 5), torch.randn(7), torch.randn(7, 3, 3)
    cases = [(*tensors, stride, padding) for stride, padding in ((1, 0), (2, 0), (1, 1), (2, 1))]
    return function_hint(answer, reference, cases, tolerance=1e-4, hints=hints)


CHECKS = {"5.1": limit_of_p, "5.2": penalty_gradient, "5.3": blueprint_layer}
