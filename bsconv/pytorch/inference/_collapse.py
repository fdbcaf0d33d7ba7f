"""A model with dense convolutions in place of BSConv layers."""

import copy
import warnings
from typing import Any

from torch import nn

from .._tools.model_tree import exchange
from ._choice import blueprint_places
from ._folding import is_unmodified


def collapse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BSConv layer is the one dense convolution that equals it.

    For engines that run dense convolutions best. Layers that equal none stay as they are, and one
    warning names them with the reason: those with a BatchNorm in training mode, or with a BatchNorm
    before a zero-padded depthwise convolution (:meth:`BSConvU.to_conv2d`), those with hooks or
    other modules in them, and subclasses, which may compute something else. Warns as well if there
    is no BSConv layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model needs to be a torch.nn.Module, got a {type(model).__name__}")
    twin = copy.deepcopy(model)
    found = blueprint_places(twin)
    dense: dict[int, nn.Module] = {}
    refused: dict[str, str] = {}
    for place in found:
        layer: Any = place.module
        if id(layer) in dense:
            continue
        try:
            if not is_unmodified(layer):
                raise ValueError(
                    "it is a subclass, or holds hooks or other modules than plain convolutions"
                )
            dense[id(layer)] = layer.to_conv2d()
        except ValueError as error:
            refused[place.name or "(root)"] = str(error)
    if refused or not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        line = f"layers that stay as they are: {reasons}" if found else "there is no BSConv layer"
        warnings.warn(line, stacklevel=2)
    return exchange(twin, [place for place in found if id(place.module) in dense], dense)
