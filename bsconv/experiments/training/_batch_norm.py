"""Batch normalisation for compiled training steps on a CPU, in half the time of torch's own.

What torch.compile makes of the sums over a batch reads all of it once for every eight or sixteen
channels. Summed over each image first, which stays in the cache, it is read from memory once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SumsByImage(TorchFunctionMode):
    """Makes ``F.batch_norm`` of images in training take its sums over each image first."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm``."""
    count = input.numel() // input.shape[1]
    if not training or weight is None or bias is None or input.dim() != 4 or count == 1:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    output, mean, variance = _BatchNorm.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
    return output


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _mean(values)
        centred = values - _spread(mean)
        variance = _mean(centred.square())
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(input, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        output = centred * _spread(scale * weight) + _spread(bias)
        return output.to(input.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        input, weight, mean, scale = ctx.saved_tensors
        gradient, normed = gradients[0].to(mean), (input - _spread(mean)) * _spread(scale)
        of_bias, of_weight = _mean(gradient), _mean(gradient * normed)
        of_output = gradient - _spread(of_bias) - normed * _spread(of_weight)
        of_input = (of_output * _spread(scale * weight)).to(input.dtype)
        count = input.numel() // input.shape[1]
        return of_input, of_weight * count, of_bias * count, None


def _mean(values: Tensor) -> Tensor:
    """Of each channel."""
    return values.mean((2, 3)).mean(0)


def _spread(by_channel: Tensor) -> Tensor:
    return by_channel[:, None, None]
