"""The layer of a classifier that gives its answer, found by running it; one of another size."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...pytorch._tools.convs import conv_arguments
from ...pytorch._tools.model_tree import evaluating, exchange, places, watching
from ..config import TrainConfig
from ..rules import FOLDER_SIZE
from ._inputs import LARGER, answers

Head = nn.Linear | nn.Conv2d  # a Conv2d of one pixel


def heads(model: nn.Module, config: TrainConfig) -> list[Head]:
    """The layers that decide how many numbers the answer has: one, or several that are added up."""
    ran: list[Head] = []
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and (*module.kernel_size, module.groups) == (1, 1, 1))
    ]
    with watching([(layer, lambda module, *_: ran.append(module)) for layer in layers]):
        width = _width(model, config)
    candidates = [layer for layer in dict.fromkeys(reversed(ran)) if len(layer.weight) == width]
    for count in range(1, len(candidates) + 1):
        found = candidates[:count]
        wider = {layer: _like(layer, width + 1) for layer in found}
        changed = _exchanged(model, wider)
        try:
            if _width(changed, config) == width + 1:
                return found
        except ValueError:  # another layer wants as many
            continue
        finally:
            _exchanged(changed, {new: old for old, new in wider.items()})
    rule = "new_head needs a Linear or 1x1 convolution that decides how many numbers the answer has"
    raise ValueError(f"{rule}, now {width}; {config.model} has none")


def with_new_head(model: nn.Module, num_classes: int, config: TrainConfig) -> nn.Module:
    """``model`` with fresh weights, for ``num_classes``, in the layer that gives its answer."""
    return _exchanged(model, {layer: _like(layer, num_classes) for layer in heads(model, config)})


def head_names(model: nn.Module, config: TrainConfig) -> tuple[str, ...]:
    """What the names of the weights of the head begin with."""
    found = heads(model, config)
    return tuple(f"{place.name}." for place in places(model, ()) if place.module in found)


def _width(model: nn.Module, config: TrainConfig) -> int:
    """How many numbers the model answers with for an image of the size of ``config``."""
    side = config.image_size or FOLDER_SIZE
    with evaluating(model):
        return answers(model, torch.zeros(2, 3, side, side), config.model, LARGER).shape[-1]


def _exchanged(model: nn.Module, layers: Mapping[Any, nn.Module]) -> nn.Module:
    by_id = {id(old): new for old, new in layers.items()}
    return exchange(model, [p for p in places(model, ()) if id(p.module) in by_id], by_id)


def _like(layer: Head, num_classes: int) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        conv = nn.Conv2d(layer.in_channels, num_classes, **conv_arguments(layer))
        return conv.train(layer.training)
    how: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    linear = nn.Linear(layer.in_features, num_classes, layer.bias is not None, **how)
    return linear.train(layer.training)
