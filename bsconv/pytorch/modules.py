"""BSConv-U, BSConv-S and BSConv-CP as layers, and the dense convolutions they stand for."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ._layer_plans import PlannedLayer
from ._tools import convs
from ._tools.convs import BatchNorm, Conv, IntOrTuple, PaddingMode
from .decomposition import blueprint_factors, shared_factors, subspace_factors
from .initialization import uninitialized
from .regularization import BSConvS_ModelRegLossMixin as BSConvS_ModelRegLossMixin
from .regularization import OrthonormalBasis

Device = torch.device | str | int | None
Layer = TypeVar("Layer", bound="BlueprintLayer")


class BlueprintLayer(PlannedLayer):
    """What BSConvU, BSConvS and BSConvCP share: they take the place of a dense convolution."""

    _conv: ClassVar[type[Conv]] = nn.Conv2d
    _norm: ClassVar[type[BatchNorm]] = nn.BatchNorm2d

    def __init__(self, *sizes: Any) -> None:
        convs.check_sizes(type(self).__name__, self._conv, *sizes)
        super().__init__()

    @classmethod
    def like(cls: type[Layer], conv: Conv, *, empty: bool = False, **options: Any) -> Layer:
        """A freshly initialised layer with geometry, bias, device, dtype, memory format,
        ``training`` and requires_grad of ``conv``; a BSConvU1d for a Conv1d, and so on.

        ``options`` are the constructor's further arguments; ``empty`` leaves weights arbitrary.
        Raises TypeError for what is not such a convolution, ValueError for several groups.
        """
        name, kinds = cls.__name__, (cls, *cls.__subclasses__())
        kind = next((kind for kind in kinds if isinstance(conv, kind._conv)), None)
        if kind is None:
            wanted, got = cls._conv.__name__, type(conv).__name__
            raise TypeError(f"{name} takes the place of a {wanted}, got {got}")
        if conv.groups != 1:
            raise ValueError(f"{name} stands in for a conv with groups=1, got groups={conv.groups}")
        make: Any = partial(uninitialized, kind) if empty else kind
        options = convs.conv_arguments(conv) | options
        layer: Layer = make(conv.in_channels, conv.out_channels, **options)
        layer.to(memory_format=convs.memory_format_of(conv.weight))
        layer.requires_grad_(convs.present_weight(conv).requires_grad)
        if conv.bias is not None and layer.bias is not None:
            layer.bias.requires_grad_(conv.bias.requires_grad)
        return layer.train(conv.training)

    @classmethod
    def from_conv(cls: type[Layer], conv: Conv, **options: Any) -> Layer:
        """The layer whose dense kernel is closest to that of ``conv``, in the sum of squares.

        Exact, up to rounding, where such a layer has this kernel; the basis of a BSConvS comes out
        orthonormal. A BatchNorm in between takes no part. Arguments and errors are those of
        :meth:`like`; weights that are not finite are a ValueError, too.
        """
        layer = cls.like(conv, empty=True, **options)
        if conv.weight.is_meta:
            return layer
        weights = [child.weight for child in layer if isinstance(child, Conv)]
        factors = layer._factors(convs.present_weight(conv))
        with torch.no_grad():
            for weight, factor in zip(weights, factors, strict=True):
                weight.copy_(factor.view_as(weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.zeros(()) if conv.bias is None else conv.bias)
        return layer

    @classmethod
    def from_conv2d(cls: type[Layer], conv: nn.Conv2d, **options: Any) -> Layer:
        """:meth:`from_conv`, as it is called in two dimensions."""
        return cls.from_conv(conv, **options)

    def _makers(
        self, device: Device, dtype: torch.dtype | None, bn_kwargs: Mapping[str, Any] | None
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        return partial(self._conv, **place), partial(self._norm, **place | dict(bn_kwargs or {}))

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        """The weights of the convolutions, in their order, that come closest to ``kernel``."""
        raise NotImplementedError


class BSConvU(BlueprintLayer):
    """Unconstrained blueprint separable convolution: pointwise ``pw``, then depthwise ``dw``.

    Stands for a dense convolution whose kernels are ``weights[n, m] * blueprint[n]``: in_channels *
    out_channels + out_channels * Kh * Kw weights. Shapes and arguments are those of
    torch.nn.Conv2d. Raises ValueError for arguments out of range.

    Args:
        bias: whether ``dw`` adds one bias per output channel; ``pw`` never does.
        with_bn, bn_kwargs: whether a BatchNorm ``bn`` follows ``pw``, and its arguments.

    >>> BSConvU(16, 32, 3, padding=1)(torch.rand(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """

    _plans = ("factored", "merged")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation)
        conv, norm = self._makers(device, dtype, bn_kwargs)
        self.pw = conv(in_channels, out_channels, 1, bias=False)
        if with_bn:
            self.bn = norm(out_channels)
        geometry = (kernel_size, stride, padding, dilation, out_channels, bias, padding_mode)
        self.dw = conv(out_channels, out_channels, *geometry)

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        return blueprint_factors(kernel)


class BSConvS(BlueprintLayer, OrthonormalBasis):
    """Subspace blueprint separable convolution: pointwise ``pw1``, ``pw2``, then depthwise ``dw``.

    BSConv-U whose weight matrix is a product W_A W_B through ``mid_channels`` = min(in_channels,
    max(min_mid_channels, ceil(p * in_channels))) channels. ``pw1`` holds the basis W_B, whose rows
    training keeps close to orthonormal by adding :func:`bsconv.pytorch.reg_loss` to the loss;
    ``pw2`` holds W_A. The other arguments are those of :class:`BSConvU`, but ``with_bn`` adds a
    BatchNorm after each of the two (``bn1``, ``bn2``).

    Args:
        p: share of the input channels kept, 0 <= p <= 1.
        min_mid_channels: lower limit for ``mid_channels``, which is always at least 1.

    >>> BSConvS(16, 32, 3, p=0.5).pw1.out_channels
    8
    """

    _plans = ("factored", "joined", "narrow", "merged")
    _narrow_with_norms = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
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
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation)
        mid = convs.mid_channels(in_channels, p, min_mid_channels)
        conv, norm = self._makers(device, dtype, bn_kwargs)
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
        return convs.present_weight(self.pw1).flatten(1)

    def _factors(self, kernel: Tensor) -> tuple[Tensor, ...]:
        found = subspace_factors(kernel, self.pw1.out_channels)
        return found.basis, found.mixing, found.blueprints


class BSConvCP(BlueprintLayer):
    """A convolution whose filters share ``blueprints``: ``pw1``, depthwise ``dw``, then ``pw2``.

    Stands for kernels ``sum_r mixing[n, r] * weights[r, m] * blueprint[r]``, a CP decomposition:
    blueprints * (in_channels + Kh * Kw + out_channels) weights. It is meant for trained networks
    (:func:`bsconv.pytorch.project_pretrained`). Arguments are those of :class:`BSConvU`, but the
    bias is that of ``pw2``, and ``with_bn`` adds ``bn1`` after ``pw1`` and ``bn2`` after ``dw``.

    >>> BSConvCP(16, 32, 3, padding=1, blueprints=8)(torch.rand(2, 16, 8, 8)).shape
    torch.Size([2, 32, 8, 8])
    """

    _plans = ("factored", "narrow", "merged")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrTuple,
        stride: IntOrTuple = 1,
        padding: IntOrTuple | str = 0,
        dilation: IntOrTuple = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        *,
        blueprints: int,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation)
        convs.check_sizes(type(self).__name__, blueprints=blueprints)
        conv, norm = self._makers(device, dtype, bn_kwargs)
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


class BSConvU1d(BSConvU):
    """:class:`BSConvU` for signals (B, C, T): takes the place of a torch.nn.Conv1d.

    >>> layer = BSConvU1d.from_conv(nn.Conv1d(16, 32, 3))  # (B, 16, T) to (B, 32, T - 2)
    """

    _conv, _norm = nn.Conv1d, nn.BatchNorm1d


class BSConvS1d(BSConvS):
    """:class:`BSConvS` for signals (B, C, T): takes the place of a torch.nn.Conv1d.

    >>> layer = BSConvS1d.from_conv(nn.Conv1d(16, 32, 3), p=0.5)
    """

    _conv, _norm = nn.Conv1d, nn.BatchNorm1d


class BSConvU3d(BSConvU):
    """:class:`BSConvU` for volumes (B, C, D, H, W): takes the place of a torch.nn.Conv3d.

    >>> layer = BSConvU3d.from_conv(nn.Conv3d(16, 32, 3))
    """

    _conv, _norm = nn.Conv3d, nn.BatchNorm3d


class BSConvS3d(BSConvS):
    """:class:`BSConvS` for volumes (B, C, D, H, W): takes the place of a torch.nn.Conv3d.

    >>> layer = BSConvS3d.from_conv(nn.Conv3d(16, 32, 3), p=0.5)
    """

    _conv, _norm = nn.Conv3d, nn.BatchNorm3d


BLUEPRINT_LAYERS = (BSConvU, BSConvU1d, BSConvU3d, BSConvS, BSConvS1d, BSConvS3d, BSConvCP)


def bsconv_u(
    in_channels: int, out_channels: int, kernel_size: IntOrTuple = 3, **kwargs: Any
) -> BSConvU:
    """A :class:`BSConvU`, 3x3 by default: for builders that take the convolution as an argument."""
    return BSConvU(in_channels, out_channels, kernel_size, **kwargs)


def bsconv_s(
    in_channels: int, out_channels: int, kernel_size: IntOrTuple = 3, **kwargs: Any
) -> BSConvS:
    """A :class:`BSConvS`, 3x3 by default: for builders that take the convolution as an argument."""
    return BSConvS(in_channels, out_channels, kernel_size, **kwargs)
