"""Where training starts: random weights for dense convolutions and for BSConv layers.

With fan-in f and weights of variance g / f, outputs have g times the mean square of the inputs.
Kaiming's g = 2 makes up for the half that a ReLU removes; a BSConv layer has no ReLU inside, so the
last of its convolutions takes 2, the others 1. PyTorch's g = 1/3 leaves 1/9 (U) or 1/27 (S).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ._tools.convs import BatchNorm, Conv, check_shape, check_sizes

AnyConv = TypeVar("AnyConv", bound=Conv)
Layer = TypeVar("Layer", bound=nn.Module)


def uniform_variance_(conv: AnyConv, gain: float) -> AnyConv:
    """Fills the weights uniformly within +-sqrt(3 * gain / fan_in), the bias with zeros.

    ``gain=2`` is Kaiming's rule for ReLU (He et al., 2015). ValueError for a gain up to zero.
    """
    check_shape("conv.weight", "(N, M, *kernel size)", conv.weight, 3, 4, 5)
    if not gain > 0:
        raise ValueError(f"gain needs to be positive, got gain={gain!r}")
    bound = (3 * gain / conv.weight[0].numel()) ** 0.5
    nn.init.uniform_(conv.weight, -bound, bound)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def match_variance_(layer: Layer) -> Layer:
    """Gives outputs of a BSConv layer a Kaiming dense conv's variance; ValueError for others."""
    convs = [child for child in layer.children() if isinstance(child, Conv)]
    if len(convs) not in (2, 3) or getattr(layer, "dw", None) not in convs:
        raise ValueError(f"match_variance_ needs a BSConv layer, got {type(layer).__name__}")
    for conv in convs:
        uniform_variance_(conv, gain=2 if conv is convs[-1] else 1)
    return layer


def uninitialized(make: Callable[..., Layer], *args: Any, **kwargs: Any) -> Layer:
    """The layer ``make(*args, **kwargs)`` with arbitrary weights, but in BatchNorms."""
    device = kwargs.pop("device", None)
    if isinstance(make, type) and issubclass(make, Conv):
        check_sizes(make.__name__, make, *args, **kwargs)
    layer = make(*args, device="meta", **kwargs)
    layer.to_empty(device=torch.get_default_device() if device is None else device)
    for module in layer.modules():
        if isinstance(module, BatchNorm):
            module.reset_parameters()
    return layer


def dense_conv(
    *args: Any, conv_class: Callable[..., nn.Conv2d] = nn.Conv2d, **kwargs: Any
) -> nn.Conv2d:
    """A torch.nn.Conv2d that starts Kaiming-uniform for ReLU, its bias at zero."""
    return uniform_variance_(uninitialized(conv_class, *args, **kwargs), gain=2)
