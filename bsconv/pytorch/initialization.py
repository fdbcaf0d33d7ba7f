"""Where training starts: random weights for dense convolutions and for BSConv layers.

A convolution with fan-in f (weights per output) whose weights are uniform within +-sqrt(3 g / f)
gives each output the variance g E[x^2], whatever the kernel size. Kaiming's g = 2 makes up for the
half that a ReLU removes. A BSConv layer has no ReLU inside: its pointwise convolutions want g = 1,
its depthwise one g = 2, and then it starts like the dense convolution that it stands for.
PyTorch's own start, g = 1/3 everywhere, leaves 1/9 (U) or 1/27 (S) of the variance instead of 2.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .modules import BSConvS, BSConvU


def uniform_variance_(conv: nn.Conv2d, gain: float) -> nn.Conv2d:
    """Fills the weights so that outputs have ``gain`` times the mean square of the inputs.

    Uniform within +-sqrt(3 * gain / fan_in); the bias, if there is one, becomes zero. ``gain=2`` is
    Kaiming's rule for ReLU (He et al., 2015). Returns ``conv``.
    """
    fan_in = conv.weight[0].numel()
    bound = (3 * gain / fan_in) ** 0.5
    nn.init.uniform_(conv.weight, -bound, bound)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def match_variance_(layer: BSConvU | BSConvS) -> BSConvU | BSConvS:
    """Fills a BSConv layer so that its outputs start with the variance of a Kaiming dense conv's.

    That is twice the mean square of its inputs, kept through ``pw`` (or ``pw1`` and ``pw2``) and
    doubled in ``dw``. BatchNorm in between is left as it is. Returns ``layer``.
    """
    for child in layer.children():
        if isinstance(child, nn.Conv2d):
            uniform_variance_(child, gain=2 if child is layer.dw else 1)
    return layer


def uninitialized(
    make: Callable[..., nn.Conv2d],
    *args: Any,
    device: torch.device | str | int | None = None,
    **kwargs: Any,
) -> nn.Conv2d:
    """The convolution ``make(*args, **kwargs)`` with arbitrary weights: no time goes into random
    numbers that are overwritten."""
    conv = make(*args, device="meta", **kwargs)
    return conv.to_empty(device=torch.get_default_device() if device is None else device)


def dense_conv(
    *args: Any, conv_class: Callable[..., nn.Conv2d] = nn.Conv2d, **kwargs: Any
) -> nn.Conv2d:
    """A torch.nn.Conv2d that starts Kaiming-uniform for ReLU, its bias at zero."""
    return uniform_variance_(uninitialized(conv_class, *args, **kwargs), gain=2)
