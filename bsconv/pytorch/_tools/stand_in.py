"""A sequence of layers that behaves like the convolution whose place it takes."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from .convs import GEOMETRY, conv_arguments, memory_format_of, pads_with_zeros
from .joining import exact_steps, joined

Layer = TypeVar("Layer", bound="StandIn")


class StandIn(nn.Sequential):
    """Pointwise layers around a depthwise convolution ``dw``, in place of a dense convolution."""

    if TYPE_CHECKING:  # at run time, torch.jit.script would take it for an interface
        dw: nn.Conv2d

    __jit_unused_properties__: tuple[str, ...] = (*GEOMETRY, "in_channels", "out_channels")

    in_channels = property(lambda self: self[0].in_channels)
    out_channels = property(lambda self: self[-1].out_channels)
    kernel_size = property(lambda self: self.dw.kernel_size)
    stride = property(lambda self: self.dw.stride)
    padding = property(lambda self: self.dw.padding)
    dilation = property(lambda self: self.dw.dilation)
    padding_mode = property(lambda self: self.dw.padding_mode)

    @classmethod
    def like(
        cls: type[Layer],
        conv: nn.Conv2d,
        *,
        make: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Layer:
        """A freshly initialised layer in place of ``conv``: geometry, bias, device, dtype, memory
        format, ``training`` and requires_grad are those of ``conv``.

        ``options`` are the constructor's further arguments, such as ``with_bn`` and ``p``;
        ``make`` takes the constructor's place where other first weights are wanted. Raises
        TypeError unless ``conv`` is a Conv2d, ValueError for groups other than 1.
        """
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(
                f"{cls.__name__} takes the place of a Conv2d, got {type(conv).__name__}"
            )
        if conv.groups != 1:
            raise ValueError(
                f"{cls.__name__} stands in for a conv with groups=1, got groups={conv.groups}"
            )
        make = make or cast(Any, cls)
        layer: Layer = make(conv.in_channels, conv.out_channels, **conv_arguments(conv), **options)
        layer.to(memory_format=memory_format_of(conv.weight))
        layer.requires_grad_(conv.weight.requires_grad)
        if conv.bias is not None:
            layer.last_bias().requires_grad_(conv.bias.requires_grad)
        return layer.train(conv.training)

    def last_bias(self) -> Tensor:
        return cast(Tensor, self[-1].bias)

    @torch.no_grad()
    def to_conv2d(self) -> nn.Conv2d:
        """The dense convolution that computes the same as this layer, with weights of its own.

        It has this layer's device, dtype, memory format and ``training``, and a bias where this
        layer has one or a BatchNorm shifts the channels. The products are formed in float64.

        Raises ValueError where no dense convolution computes the same: with a BatchNorm that
        normalises by its batch (training mode, or no running statistics), and with a BatchNorm
        before a zero-padded depthwise convolution, since there the padding follows the shift.
        """
        norms = [layer for layer in self if isinstance(layer, BatchNorm)]
        if any(norm.training or norm.running_mean is None for norm in norms):
            raise ValueError(
                f"{type(self).__name__} normalises by its batch, which no single convolution does: "
                "call eval() first, and keep running statistics"
            )
        if isinstance(self[1], BatchNorm) and pads_with_zeros(self.dw):
            raise ValueError(
                f"{type(self).__name__} with BatchNorm before a zero-padded depthwise convolution "
                "equals no single convolution: its padding follows BatchNorm's shift, got "
                f"padding={self.padding!r}"
            )
        weight = self.dw.weight
        conv: nn.Conv2d = functools.reduce(cast(Any, joined), exact_steps(self))
        conv.to(weight).to(memory_format=memory_format_of(weight))
        return conv.requires_grad_().train(self.training)
