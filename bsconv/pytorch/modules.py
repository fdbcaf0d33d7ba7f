"""BSConv-U and BSConv-S as layers, and the dense convolutions they stand for (paper, section 3)."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ._layer_plans import convolve, convolve_normed, fastest_plan, is_plain, takes_time
from ._tools.convs import (
    GEOMETRY,
    IntOrPair,
    PaddingMode,
    conv_arguments,
    memory_format_of,
    mid_channels,
    pads_with_zeros,
)
from ._tools.joining import exact_steps, joined
from .decomposition import blueprint_factors, subspace_factors
from .initialization import uninitialized
from .regularization import BSConvS_ModelRegLossMixin as BSConvS_ModelRegLossMixin
from .regularization import OrthonormalBasis

if TYPE_CHECKING:  # in typing from Python 3.11 on
    from typing_extensions import Self


class _BlueprintConv2d(nn.Sequential):
    """What BSConvU and BSConvS share: pointwise layers, then the depthwise blueprints ``dw``."""

    if TYPE_CHECKING:  # at run time, torch.jit.script would take it for an interface
        dw: nn.Conv2d
    __jit_unused_properties__ = (*GEOMETRY, "in_channels", "out_channels", "plan", "chosen_plan")
    _plans: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self._plan = self._measured_plan = "factored"

    @property
    def plan(self) -> str:
        """How the layer is computed; weights, outputs and gradients are the same with each.

        "factored", the default: its convolutions in turn. "merged": their weights are multiplied
        into a dense kernel in each forward pass, for one dense convolution. "joined" (BSConvS): the
        pointwise weights alone are multiplied. "narrow" (BSConvS): ``pw1``, then one dense
        convolution of its few channels. "auto": the fastest of them, forward and backward, measured
        the first time for the shapes, dtype, device and mode at hand and remembered. Where
        torch.compile traces the layer, it is the one it ran last outside, "factored" if it never
        did: call the model once before.

        With BatchNorm in between, "narrow" is possible and the others are not. A plan that is not
        possible, also since parts of the layer are no plain convolutions any more or have hooks,
        which only they would run, is computed factored. Raises ValueError for an unknown plan.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: str) -> None:
        known = (*self._plans, "auto")
        if plan not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(
                f"plan of a {type(self).__name__} needs to be one of {names}, got {plan!r}"
            )
        self._plan = plan

    @property
    def chosen_plan(self) -> str:
        """``plan``, or what "auto" found to be the fastest when it was last asked."""
        return self._measured_plan if self._plan == "auto" else self._plan

    def forward(self, input: Tensor) -> Tensor:
        if self._plan != "factored":
            return self._planned(input)
        for layer in self:
            input = layer(input)
        return input

    @torch.jit.unused
    def _planned(self, input: Tensor) -> Tensor:
        plans = self._possible_plans(input)
        if self._plan == "auto" and len(plans) > 1 and takes_time(input):
            self._measured_plan = fastest_plan(plans, self, input)
        plan = self.chosen_plan
        if plan == "factored" or plan not in plans:
            return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]
        return self._as_planned(plan, input)

    def _possible_plans(self, input: Tensor) -> Sequence[str]:
        plain = all(map(is_plain, self)) and not any(isinstance(m, nn.BatchNorm2d) for m in self)
        return self._plans if plain else ("factored",)

    def _as_planned(self, plan: str, input: Tensor) -> Tensor:
        *pointwise, blueprints = (cast(nn.Conv2d, layer).weight for layer in self)
        return convolve(plan, input, pointwise, blueprints, self.dw)

    @property
    def in_channels(self) -> int:
        return cast(nn.Conv2d, self[0]).in_channels

    @property
    def out_channels(self) -> int:
        return self.dw.out_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.dw.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        return self.dw.stride

    @property
    def padding(self) -> str | tuple[int, ...]:
        return self.dw.padding

    @property
    def dilation(self) -> tuple[int, ...]:
        return self.dw.dilation

    @property
    def padding_mode(self) -> str:
        return self.dw.padding_mode

    @classmethod
    def like(
        cls, conv: nn.Conv2d, *, make: Callable[..., Any] | None = None, **options: Any
    ) -> "Self":
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
        layer: Self = make(conv.in_channels, conv.out_channels, **conv_arguments(conv), **options)
        layer.to(memory_format=memory_format_of(conv.weight))
        layer.requires_grad_(conv.weight.requires_grad)
        if conv.bias is not None:
            cast(Tensor, layer.dw.bias).requires_grad_(conv.bias.requires_grad)
        return layer.train(conv.training)

    @torch.no_grad()
    def to_conv2d(self) -> nn.Conv2d:
        """The dense convolution that computes the same as this layer, with weights of its own.

        It has this layer's device, dtype, memory format and ``training``, and a bias where this
        layer has one or a BatchNorm shifts the channels. The products are formed in float64.

        Raises ValueError where no dense convolution computes the same: with a BatchNorm that
        normalises by its batch (training mode, or no running statistics), and with a BatchNorm
        before a zero-padded depthwise convolution, since there the padding follows the shift.
        """
        norms = [layer for layer in self if isinstance(layer, nn.BatchNorm2d)]
        if any(norm.training or norm.running_mean is None for norm in norms):
            raise ValueError(
                f"{type(self).__name__} normalises by its batch, which no single convolution does: "
                "call eval() first, and keep running statistics"
            )
        if norms and pads_with_zeros(self.dw):
            raise ValueError(
                f"{type(self).__name__} with BatchNorm before a zero-padded depthwise convolution "
                "equals no single convolution: its padding follows BatchNorm's shift, got "
                f"padding={self.padding!r}"
            )
        weight = self.dw.weight
        conv = cast(nn.Conv2d, reduce(cast(Any, joined), exact_steps(self)))
        conv.to(weight.device, weight.dtype, memory_format=memory_format_of(weight))
        return conv.requires_grad_().train(self.training)


class BSConvU(_BlueprintConv2d):
    """Unconstrained blueprint separable convolution: pointwise ``pw``, then depthwise ``dw``.

    Stands for a dense convolution whose kernels are ``weights[n, m] * blueprint[n]``: in_channels *
    out_channels + out_channels * Kh * Kw weights. Input (B, in_channels, H, W), output (B,
    out_channels, H', W') with H' and W' as for torch.nn.Conv2d, whose arguments it takes. Without
    BatchNorm it computes exactly what one dense convolution computes (:meth:`to_conv2d`).

    Args:
        bias: whether ``dw`` adds one bias per output channel; ``pw`` never does.
        with_bn: whether a BatchNorm ``bn`` follows ``pw``.
        bn_kwargs: arguments for torch.nn.BatchNorm2d, such as ``{"eps": 1e-3}``.
    """

    _plans = ("factored", "merged")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False, **factory)
        if with_bn:
            self.bn = nn.BatchNorm2d(out_channels, **{**factory, **(bn_kwargs or {})})
        self.dw = nn.Conv2d(
            *(out_channels, out_channels, kernel_size, stride, padding, dilation),
            groups=out_channels,
            bias=bias,
            padding_mode=padding_mode,
            **factory,
        )

    @classmethod
    def from_conv2d(
        cls,
        conv: nn.Conv2d,
        *,
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
    ) -> "Self":
        """The layer whose dense kernel is closest to ``conv``'s, filter by filter (Eckart-Young).

        Exact, up to rounding, where ``conv`` has a blueprint kernel. Device, dtype, memory format,
        ``training`` and requires_grad are those of ``conv``, whose weights stay untouched; a
        BatchNorm in between starts as the identity and takes no part in the approximation.

        Raises TypeError unless ``conv`` is a Conv2d, ValueError for groups other than 1.
        """
        make = partial(uninitialized, cls)
        layer = cls.like(conv, make=make, with_bn=with_bn, bn_kwargs=bn_kwargs)
        if not conv.weight.is_meta:
            factors = blueprint_factors(conv.weight)
            _load(layer.pw, factors.weights)
            _load(layer.dw, factors.blueprints, conv.bias)
        return layer


class BSConvS(_BlueprintConv2d, OrthonormalBasis):
    """Subspace blueprint separable convolution: pointwise ``pw1``, ``pw2``, then depthwise ``dw``.

    BSConv-U whose weight matrix is a product W_A W_B through ``mid_channels`` = min(in_channels,
    max(min_mid_channels, ceil(p * in_channels))) channels. ``pw1`` holds the basis W_B, whose rows
    training keeps close to orthonormal by adding :func:`bsconv.pytorch.reg_loss` to the loss;
    ``pw2`` holds W_A. Shapes and the other arguments are those of :class:`BSConvU`, but ``with_bn``
    puts a BatchNorm behind each of the two (``bn1``, ``bn2``).

    Args:
        p: share of the input channels kept, 0 <= p <= 1.
        min_mid_channels: lower limit for ``mid_channels``; one channel there is in any case.

    Raises ValueError for ``p`` or ``min_mid_channels`` outside these ranges.
    """

    _plans = ("factored", "joined", "narrow", "merged")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        dilation: IntOrPair = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        p: float | Fraction = 0.25,
        min_mid_channels: int = 4,
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        mid = mid_channels(in_channels, p, min_mid_channels)
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        bn_kwargs = {**factory, **(bn_kwargs or {})}
        self.pw1 = nn.Conv2d(in_channels, mid, 1, bias=False, **factory)
        if with_bn:
            self.bn1 = nn.BatchNorm2d(mid, **bn_kwargs)
        self.pw2 = nn.Conv2d(mid, out_channels, 1, bias=False, **factory)
        if with_bn:
            self.bn2 = nn.BatchNorm2d(out_channels, **bn_kwargs)
        self.dw = nn.Conv2d(
            *(out_channels, out_channels, kernel_size, stride, padding, dilation),
            groups=out_channels,
            bias=bias,
            padding_mode=padding_mode,
            **factory,
        )

    def _possible_plans(self, input: Tensor) -> Sequence[str]:
        if not hasattr(self, "bn2") or not all(map(is_plain, self)):
            return super()._possible_plans(input)
        several = input.numel() > self.in_channels  # BatchNorm cannot learn from a single pixel
        return ("factored", "narrow") if several else ("factored",)

    def _as_planned(self, plan: str, input: Tensor) -> Tensor:
        if not hasattr(self, "bn2"):
            return super()._as_planned(plan, input)
        return convolve_normed(input, (self.pw1, self.pw2), (self.bn1, self.bn2), self.dw)

    def basis(self) -> Tensor:
        """W_B, shape (mid_channels, in_channels): the weights of ``pw1``."""
        return self.pw1.weight.flatten(1)

    @classmethod
    def from_conv2d(
        cls,
        conv: nn.Conv2d,
        *,
        p: float | Fraction = 0.25,
        min_mid_channels: int = 4,
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
    ) -> "Self":
        """A layer whose dense kernel is close to ``conv``'s, found by alternating least squares.

        The basis comes out orthonormal, so the penalty starts at zero. Exact, up to rounding, where
        ``conv`` is a BSConv-S of this width or narrower. For the rest see
        :meth:`BSConvU.from_conv2d`.

        Raises TypeError unless ``conv`` is a Conv2d, ValueError for groups other than 1 and for
        ``p`` or ``min_mid_channels`` out of range.
        """
        options: dict[str, Any] = {"p": p, "min_mid_channels": min_mid_channels}
        options |= {"with_bn": with_bn, "bn_kwargs": bn_kwargs}
        layer = cls.like(conv, make=partial(uninitialized, cls), **options)
        if not conv.weight.is_meta:
            factors = subspace_factors(conv.weight, layer.pw1.out_channels)
            _load(layer.pw1, factors.basis)
            _load(layer.pw2, factors.mixing)
            _load(layer.dw, factors.blueprints, conv.bias)
        return layer


BLUEPRINT_LAYERS = (BSConvU, BSConvS)


def bsconv_u(
    in_channels: int, out_channels: int, kernel_size: IntOrPair = 3, **kwargs: Any
) -> BSConvU:
    """A :class:`BSConvU`, 3x3 by default: for builders that take the convolution as an argument."""
    return BSConvU(in_channels, out_channels, kernel_size, **kwargs)


def bsconv_s(
    in_channels: int, out_channels: int, kernel_size: IntOrPair = 3, **kwargs: Any
) -> BSConvS:
    """A :class:`BSConvS`, 3x3 by default: for builders that take the convolution as an argument."""
    return BSConvS(in_channels, out_channels, kernel_size, **kwargs)


@torch.no_grad()
def _load(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> None:
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    if conv.bias is not None and bias is not None:
        conv.bias.copy_(bias)
