"""BSConv-U, BSConv-S and BSConv-CP as layers, and the dense convolutions they stand for."""

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ._layer_plans import PlannedLayer
from ._tools.convs import IntOrPair, PaddingMode, check_channels, mid_channels
from .decomposition import blueprint_factors, shared_factors, subspace_factors
from .initialization import uninitialized
from .regularization import BSConvS_ModelRegLossMixin as BSConvS_ModelRegLossMixin
from .regularization import OrthonormalBasis

if TYPE_CHECKING:  # in typing from Python 3.11 on
    from typing_extensions import Self

Device = torch.device | str | int | None


class BlueprintLayer(PlannedLayer):
    """What BSConvU, BSConvS and BSConvCP share."""

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, **options: Any) -> "Self":
        """The layer whose dense kernel is closest to that of ``conv``, in the sum of squares.

        BSConvU: the best of all, filter by filter (Eckart-Young). BSConvS: found by alternating
        least squares; the basis comes out orthonormal, so the penalty starts at zero. BSConvCP: the
        best of several starts. Exact, up to rounding, where such a layer has this kernel.

        ``options`` are the constructor's further arguments: ``with_bn``, ``bn_kwargs``, ``p``,
        ``min_mid_channels``, ``blueprints``. Device, dtype, memory format, ``training`` and
        requires_grad are those of ``conv``, whose weights stay untouched; a BatchNorm in between
        starts as the identity and takes no part in the approximation.

        Raises TypeError unless ``conv`` is a Conv2d, ValueError for groups other than 1 and for
        options out of range.
        """
        layer = cls.like(conv, make=partial(uninitialized, cls), **options)
        if not conv.weight.is_meta:
            convs = [child for child in layer if isinstance(child, nn.Conv2d)]
            with torch.no_grad():
                for child, factor in zip(convs, layer._factors(conv.weight), strict=True):
                    child.weight.copy_(factor.reshape(child.weight.shape))
                if conv.bias is not None:
                    layer.last_bias().copy_(conv.bias)
        return layer

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        """The weights of the convolutions, in their order, that come closest to ``kernel``."""
        raise NotImplementedError


class BSConvU(BlueprintLayer):
    """Unconstrained blueprint separable convolution: pointwise ``pw``, then depthwise ``dw``.

    Stands for a dense convolution whose kernels are ``weights[n, m] * blueprint[n]``: in_channels *
    out_channels + out_channels * Kh * Kw weights. Input (B, in_channels, H, W), output (B,
    out_channels, H', W') with H' and W' as for torch.nn.Conv2d, whose arguments it takes. Without
    BatchNorm it computes exactly what one dense convolution computes (:meth:`to_conv2d`).

    Args:
        bias: whether ``dw`` adds one bias per output channel; ``pw`` never does.
        with_bn: whether a BatchNorm ``bn`` follows ``pw``.
        bn_kwargs: arguments for torch.nn.BatchNorm2d, such as ``{"eps": 1e-3}``.

    Raises ValueError for fewer than one channel.

    >>> BSConvU(16, 32, 3, padding=1)(torch.rand(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
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
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(type(self).__name__, in_channels=in_channels, out_channels=out_channels)
        super().__init__()
        conv, norm = _makers(device, dtype, bn_kwargs)
        geometry = (kernel_size, stride, padding, dilation, out_channels, bias, padding_mode)
        self.pw = conv(in_channels, out_channels, 1, bias=False)
        if with_bn:
            self.bn = norm(out_channels)
        self.dw = conv(out_channels, out_channels, *geometry)

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        return blueprint_factors(kernel)


class BSConvS(BlueprintLayer, OrthonormalBasis):
    """Subspace blueprint separable convolution: pointwise ``pw1``, ``pw2``, then depthwise ``dw``.

    BSConv-U whose weight matrix is a product W_A W_B through ``mid_channels`` = min(in_channels,
    max(min_mid_channels, ceil(p * in_channels))) channels. ``pw1`` holds the basis W_B, whose rows
    training keeps close to orthonormal by adding :func:`bsconv.pytorch.reg_loss` to the loss;
    ``pw2`` holds W_A. Shapes and the other arguments are those of :class:`BSConvU`, but ``with_bn``
    puts a BatchNorm after each of the two (``bn1``, ``bn2``).

    Args:
        p: share of the input channels kept, 0 <= p <= 1.
        min_mid_channels: lower limit for ``mid_channels``, which is always at least 1.

    Raises ValueError for ``p`` or ``min_mid_channels`` outside these ranges, and for fewer than one
    channel.

    >>> BSConvS(16, 32, 3, p=0.5).pw1.out_channels
    8
    """

    _plans = ("factored", "joined", "narrow", "merged")
    _narrow_with_norms = True

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
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(type(self).__name__, in_channels=in_channels, out_channels=out_channels)
        mid = mid_channels(in_channels, p, min_mid_channels)
        super().__init__()
        conv, norm = _makers(device, dtype, bn_kwargs)
        geometry = (kernel_size, stride, padding, dilation, out_channels, bias, padding_mode)
        self.pw1 = conv(in_channels, mid, 1, bias=False)
        if with_bn:
            self.bn1 = norm(mid)
        self.pw2 = conv(mid, out_channels, 1, bias=False)
        if with_bn:
            self.bn2 = norm(out_channels)
        self.dw = conv(out_channels, out_channels, *geometry)

    def basis(self) -> Tensor:
        """W_B, shape (mid_channels, in_channels): the weights of ``pw1``."""
        return self.pw1.weight.flatten(1)

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        found = subspace_factors(kernel, self.pw1.out_channels)
        return found.basis, found.mixing, found.blueprints


class BSConvCP(BlueprintLayer):
    """A convolution whose filters share ``blueprints``: ``pw1``, depthwise ``dw``, then ``pw2``.

    Stands for a dense convolution with kernels
    ``sum_r mixing[n, r] * weights[r, m] * blueprint[r]``, the CP decomposition of the kernel:
    blueprints * (in_channels + Kh * Kw + out_channels) weights. BSConv-U is its special case of one
    blueprint per filter. It is for trained networks (:func:`bsconv.pytorch.project_pretrained`);
    for training from scratch, U and S are better at equal size. Shapes and arguments are those of
    :class:`BSConvU`, but the bias is that of ``pw2``, and ``with_bn`` puts a BatchNorm after
    ``pw1`` and ``dw`` (``bn1``, ``bn2``).

    Args:
        blueprints: how many, at least 1.

    Raises ValueError for fewer than one channel or blueprint.

    >>> BSConvCP(16, 32, 3, padding=1, blueprints=8)(torch.rand(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """

    _plans = ("factored", "narrow", "merged")

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
        blueprints: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        check_channels(type(self).__name__, **channels, blueprints=blueprints)
        super().__init__()
        conv, norm = _makers(device, dtype, bn_kwargs)
        geometry = (kernel_size, stride, padding, dilation, blueprints, False, padding_mode)
        self.pw1 = conv(in_channels, blueprints, 1, bias=False)
        if with_bn:
            self.bn1 = norm(blueprints)
        self.dw = conv(blueprints, blueprints, *geometry)
        if with_bn:
            self.bn2 = norm(blueprints)
        self.pw2 = conv(blueprints, out_channels, 1, bias=bias)

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        found = shared_factors(kernel, self.dw.out_channels)
        return found.weights, found.blueprints, found.mixing


BLUEPRINT_LAYERS = (BSConvU, BSConvS, BSConvCP)


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


def _makers(
    device: Device, dtype: torch.dtype | None, bn_kwargs: Mapping[str, Any] | None
) -> tuple[partial[nn.Conv2d], partial[nn.BatchNorm2d]]:
    """What makes the convolutions and the BatchNorms of a layer."""
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    norm = partial(nn.BatchNorm2d, **{**place, **(bn_kwargs or {})})
    return partial(nn.Conv2d, **place), norm
