"""BSConv-CP until the core has it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._tools.convs import conv_arguments, memory_format_of
from ..modules import _BlueprintConv2d


class CPFactors(NamedTuple):
    mixing: Tensor
    weights: Tensor
    blueprints: Tensor


class BSConvCP(_BlueprintConv2d):
    _plans = ("factored",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        blueprints: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **geometry: Any,
    ) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.pw1 = nn.Conv2d(in_channels, blueprints, 1, bias=False, **place)
        self.dw = nn.Conv2d(
            blueprints,
            blueprints,
            kernel_size,
            groups=blueprints,
            bias=False,
            **geometry,
            **place,
        )
        self.pw2 = nn.Conv2d(blueprints, out_channels, 1, bias=bias, **place)

    @property
    def out_channels(self) -> int:
        return self.pw2.out_channels

    @classmethod
    def like(cls, conv: nn.Conv2d, *, make: Any = None, **options: Any) -> "BSConvCP":
        new = cls(conv.in_channels, conv.out_channels, **conv_arguments(conv), **options)
        return new.to(memory_format=memory_format_of(conv.weight)).train(conv.training)

    @classmethod
    @torch.no_grad()
    def from_conv2d(cls, conv: nn.Conv2d, *, blueprints: int | None) -> "BSConvCP":
        from ._moments import Moments
        from ._shared_blueprints import fit_shared_from

        assert blueprints is not None
        layer = cls.like(conv, blueprints=blueprints)
        kernel = conv.weight.detach().double()
        size = kernel[0].numel()
        eye, zero = torch.eye(size).to(kernel), torch.zeros(size).to(kernel)
        known = Moments(eye, kernel.flatten(1).T, zero, torch.zeros(len(kernel)).to(kernel))
        found = fit_shared_from(known, kernel, blueprints, None, 4)
        layer.pw1.weight.copy_(found.weights[:, :, None, None])
        layer.dw.weight.copy_(found.blueprints[:, None])
        layer.pw2.weight.copy_(found.mixing[:, :, None, None])
        if conv.bias is not None:
            layer.pw2.bias.copy_(conv.bias)  # type: ignore[union-attr]
        return layer
