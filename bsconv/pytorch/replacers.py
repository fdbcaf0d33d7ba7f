"""Replace the convolutions of any model by BSConv layers (paper, section 3: a drop-in).

``model = bsconv.pytorch.BSConvU_Replacer().apply(model)``
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import nn

from ._geometry import IntOrPair, check_subspace
from ._replacement import Replacer
from .modules import BSConvS, BSConvU
from .regularization import attach_reg_loss, check_reg_loss


class BSConvU_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvU`.

    Args:
        kernel_sizes: which ones, as ints or pairs; None for all sizes.
        with_bn, bn_kwargs: whether a BatchNorm follows ``pw``, and its arguments.
        verbosity: what ``apply`` prints: 0 nothing, 1 one line, 2 a line for each layer.
        init: "default" for fresh weights as PyTorch draws them, "matched" for fresh weights with
            the output variance of a Kaiming-initialised dense convolution, "project" for those
            closest to the dense weights (:meth:`BSConvU.from_conv2d`), so that a pretrained model
            keeps what it can.
        exclude: names of layers to keep, with all inside them; ``*``, ``?`` and ``[12]`` are
            wildcards.

    Kept are also: subclasses of Conv2d, grouped and parametrised convolutions, convolutions with a
    parameter that another kind of layer uses too, those that a plain attribute of the model holds
    as well (a list that is no ModuleList, say), and those that would get more parameters;
    :meth:`plan` says why. Raises ValueError for arguments out of range.
    """

    layer_class = BSConvU

    def __init__(
        self,
        kernel_sizes: Sequence[IntOrPair] | None = ((3, 3), (5, 5)),
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        verbosity: int = 0,
        *,
        init: str = "default",
        exclude: Sequence[str] = (),
    ) -> None:
        options = {"with_bn": with_bn, "bn_kwargs": bn_kwargs}
        super().__init__(kernel_sizes, options, verbosity, init, exclude)


class BSConvS_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvS`, and gives the model the method ``reg_loss``.

    ``loss += model.reg_loss(alpha=0.1)`` then adds the penalty that keeps each basis close to
    orthonormal; it survives copying and saving, and :func:`bsconv.pytorch.reg_loss` is the same as
    a function, for a torch.fx.GraphModule too, whose copies have no such methods. ``p`` and
    ``min_mid_channels`` are those of :class:`BSConvS`, all else is as for
    :class:`BSConvU_Replacer`. ``apply`` also raises ValueError for a model that has a ``reg_loss``
    of another kind.
    """

    layer_class = BSConvS

    def __init__(
        self,
        kernel_sizes: Sequence[IntOrPair] | None = ((3, 3), (5, 5)),
        p: float | Fraction = 0.25,
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        verbosity: int = 0,
        *,
        min_mid_channels: int = 4,
        init: str = "default",
        exclude: Sequence[str] = (),
    ) -> None:
        check_subspace(p, min_mid_channels)
        options = {
            "p": p,
            "min_mid_channels": min_mid_channels,
            "with_bn": with_bn,
            "bn_kwargs": bn_kwargs,
        }
        super().__init__(kernel_sizes, options, verbosity, init, exclude)

    def _check(self, model: nn.Module) -> None:
        super()._check(model)
        check_reg_loss(model)

    def _finish(self, model: nn.Module) -> None:
        attach_reg_loss(model)
