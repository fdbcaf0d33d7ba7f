"""BatchNorm by the statistics of all processes' images, which torch has for GPUs alone."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...pytorch._tools.convs import BATCH_NORMS
from ...pytorch._tools.joining import track


def with_global_batch_norm(model: nn.Module) -> nn.Module:
    """``model`` with BatchNorm layers that share their statistics, and the same tensors."""
    norms = {name: each for name, each in model.named_modules() if isinstance(each, _BatchNorm)}
    for name, norm in norms.items():
        if type(norm) not in BATCH_NORMS:
            rule = "several processes need plain BatchNorm layers, whose statistics they can share"
            raise ValueError(f"{rule}, got {type(norm).__name__} at {name or 'the root'}")
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
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = [dim for dim in range(values.dim()) if dim != 1]
        own = values.sum(others, keepdim=True)
        counted = torch.full_like(own, values.numel() / values.shape[1])
        total, count = _Sum.apply(torch.stack([own, counted]))
        mean = total / count
        centred = values - mean  # sums of squares of values themselves would lose small variances
        variance = _Sum.apply(centred.square().sum(others, keepdim=True)) / count
        if self.running_mean is not None:
            track(self, mean.flatten(), variance.flatten(), count.flatten())
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale).to(input.dtype)
        weight, bias = self.weight.view_as(scale), self.bias.view_as(scale)
        return torch.addcmul(bias, centred, scale * weight).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any that the layer before took, which was for one kind of input."""


class _Sum(torch.autograd.Function):
    """Over all processes; its gradient too, since the losses of all depend on the sum."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
