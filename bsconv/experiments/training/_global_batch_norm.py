"""BatchNorm by the statistics of all processes' images, on the CPU as well.

torch.nn.SyncBatchNorm does the same on GPUs only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def with_global_batch_norm(model: nn.Module) -> nn.Module:
    """``model`` with BatchNorm layers that share their statistics, and the same tensors.

    ValueError for a kind of BatchNorm that does more than normalise.
    """
    norms = {name: each for name, each in model.named_modules() if isinstance(each, _BatchNorm)}
    for name, norm in norms.items():
        if type(norm) not in PLAIN:
            raise ValueError(
                "several processes need plain BatchNorm layers, whose statistics they can share, "
                f"got {type(norm).__name__} at {name or 'the root'}"
            )
    if any(tensor.is_cuda for tensor in model.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    for norm in norms.values():
        norm.__class__ = GlobalBatchNorm  # which has no state of its own
    return model


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm that learns from the batches of all processes, one image or more each."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        mean, variance, count = _statistics(input.detach())
        if self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        return _Normalize.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any that the layer before took, which was for one kind of input."""

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel over all processes, and how many values that are.

    From the means and variances of the processes, since sums of squares would lose small variances.
    """
    values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    # the function of BatchNorm itself, on the CPU ten times as fast as torch.var_mean
    mean, variance = torch.ops.aten.batch_norm_update_stats(values, None, None, 0.0)
    own = torch.stack([torch.full_like(mean, values.numel() / len(mean)), mean, variance])
    everyone = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, own)
    counts, means, variances = torch.stack(everyone, dim=1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, variance, int(total[0])


class _Normalize(torch.autograd.Function):
    """``(input - mean) / sqrt(variance + eps) * weight + bias``, whose gradient knows that mean and
    variance are those of all inputs, the other processes' too."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                mean: Tensor, variance: Tensor, count: int, eps: float) -> Tensor:  # fmt: skip
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        last = input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        # as if mean and variance were given; the other two are sum(gradient * normalised), and
        # sum(gradient)
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=layout),
            input, scale, mean, variance, None, None, False, ctx.eps, [True, True, True],
        )  # fmt: skip
        averages = torch.stack([of_weight, of_bias])
        distributed.all_reduce(averages)
        slope, level = averages / ctx.count
        slope = scale * slope / variance.add(ctx.eps)
        level = scale * level / (variance + ctx.eps).sqrt() - slope * mean
        shape = [1, -1, *[1] * (input.dim() - 2)]
        through = torch.addcmul(level.view(shape), slope.view(shape), input)
        given = (None, None) if weight is None else (of_weight, of_bias)
        return (direct - through).to(input.dtype), *given, None, None, None, None
