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

__all__ = ["GlobalBatchNorm", "with_global_batch_norm"]


def with_global_batch_norm(model: nn.Module) -> nn.Module:
    """``model`` with other BatchNorm layers, which have the parameters and buffers of the old ones.

    ValueError for a kind of BatchNorm that does more than normalise.
    """
    for name, norm in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(norm, _BatchNorm):
            continue
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            raise ValueError(
                "several processes need plain BatchNorm layers, whose statistics they can share, "
                f"got {type(norm).__name__} at {name or 'the root'}"
            )
        on_gpu = norm.weight is not None and norm.weight.is_cuda
        convert = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else GlobalBatchNorm.of
        if not name:
            return convert(norm)
        model.set_submodule(name, convert(norm))
    return model


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all processes; each process needs at least one image."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> GlobalBatchNorm:
        """With the settings, parameters and buffers of ``norm``."""
        own = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats,
            device=torch.device("meta"),
        )  # fmt: skip
        for name, parameter in norm.named_parameters(recurse=False):
            own.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            own.register_buffer(name, buffer)
        return own.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs shape (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        self._check_input_dim(input)
        mean, variance, count = _statistics(input.detach())
        if count < 2:
            raise ValueError(f"BatchNorm needs two values per channel to learn from, got {count}")
        if self.training:
            self._track(mean, variance * (count / (count - 1)))
        return _Normalize.apply(input, self.weight, self.bias, mean, variance, count, self.eps)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each channel over all processes, and how many values that are.

    From the means and variances of the processes, since sums of squares would lose small variances.
    """
    channels = inputs.shape[1]
    values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    # the function of BatchNorm itself, on the CPU ten times as fast as torch.var_mean
    mean, variance = torch.ops.aten.batch_norm_update_stats(values, None, None, 0.0)
    count = mean.new_tensor([values.numel() / channels])
    own = torch.cat([count, mean, variance])
    everyone = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, own)
    table = torch.stack(everyone)
    counts, means, variances = table[:, :1], table[:, 1 : 1 + channels], table[:, 1 + channels :]
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, variance, int(total)


class _Normalize(torch.autograd.Function):
    """``(input - mean) / sqrt(variance + eps) * weight + bias``; the gradient knows that mean and
    variance are those of all inputs, the other processes' too."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        # as if mean and variance were given; the other two are sum(gradient * normalised), and
        # sum(gradient)
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=_format_of(input)),
            input, scale, mean, variance, None, None, False, ctx.eps, [True, True, True],
        )  # fmt: skip
        averages = torch.stack([of_weight, of_bias])
        distributed.all_reduce(averages)
        slope, level = averages / ctx.count
        deviation = (variance + ctx.eps).sqrt()
        slope = scale * slope / variance.add(ctx.eps)
        level = scale * level / deviation - slope * mean
        shape = [1, -1, *[1] * (input.dim() - 2)]
        through = torch.addcmul(level.view(shape), slope.view(shape), input)
        given = None if weight is None else of_weight, None if weight is None else of_bias
        return (direct - through).to(input.dtype), *given, None, None, None, None


def _format_of(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
