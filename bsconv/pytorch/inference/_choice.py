"""Which form each BSConv layer of a model takes: whatever is the fastest, as measured."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._tools.model_tree import Place, exchange, places, watching
from .._tools.timing import seconds_in_turns
from ..modules import BLUEPRINT_LAYERS
from ._model import Network
from ._plans import layer_plans
from ._report import OptimizedLayer

LAYER_BUDGET = 0.1  # seconds of measuring for each kind of layer
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"
FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


class Choice(NamedTuple):
    """A model without BSConv layers, as far as it can be, and what became of each."""

    model: nn.Module
    layers: tuple[OptimizedLayer, ...]


def choose_forms(
    model: nn.Module, example: Tensor, dtype: torch.dtype, norms: dict[int, int]
) -> tuple[list[Choice], bool]:
    """The model with each BSConv layer in its fastest form, and whether channels_last is faster.

    Layers are measured by themselves, uncompiled, and a compiler shifts what is faster. So where
    not all are fastest factored, that is a second choice. ``norms`` counts the BatchNorms that went
    into a layer, by its id. ``model`` is changed.
    """
    found = blueprint_places(model)
    known = {id(place.module): layer_plans(place.module) for place in found}
    movable = [place for place in found if known[id(place.module)]]
    factored = {key: ways["factored"] for key, ways in known.items() if ways}
    model = exchange(model, movable, factored)
    channels_last = _is_faster_channels_last(model, example, dtype)
    sizes = _input_sizes(model, factored, example)
    seconds: dict[int, dict[str, float]] = {}
    measured: dict[Any, dict[str, float]] = {}
    for place in movable:
        key = id(place.module)
        if key in sizes and key not in seconds:
            situation = repr(place.module), sizes[key]
            if situation not in measured:
                images = torch.randn(sizes[key], device=example.device, dtype=dtype)
                measured[situation] = _time_forms(known[key], images, channels_last)
            seconds[key] = measured[situation]
    fastest = {key: min(times, key=times.__getitem__) for key, times in seconds.items()}

    def rows(chosen: dict[int, str]) -> tuple[OptimizedLayer, ...]:
        layers = [_row(place, known, chosen, seconds, norms) for place in found]
        others = [place for place in places(model, ()) if id(place.module) in norms]
        return (*layers, *(_convolution_row(place) for place in others))

    choices = []
    if set(fastest.values()) - {"factored"}:
        choices.append(Choice(copy.deepcopy(model), rows({})))
    best = {key: known[key][fastest.get(key, "factored")] for key in factored}
    return [Choice(exchange(model, movable, best), rows(fastest)), *choices], channels_last


def _row(
    place: Place,
    known: Mapping[int, Mapping[str, nn.Module]],
    chosen: Mapping[int, str],
    seconds: Mapping[int, Mapping[str, float]],
    norms: Mapping[int, int],
) -> OptimizedLayer:
    key, layer = id(place.module), cast(Any, place.module)
    inside = sum(isinstance(part, nn.BatchNorm2d) for part in layer.children()) if known[key] else 0
    form = (
        chosen.get(key, "factored")
        if known[key]
        else "as it is: a subclass, hooks or other layers in it"
    )
    folded = inside + norms.get(key, 0)
    return OptimizedLayer(place.name, type(layer).__name__, form, folded, seconds.get(key, {}))


def _convolution_row(place: Place) -> OptimizedLayer:
    return OptimizedLayer(place.name, type(place.module).__name__, "one convolution", 1)


def _time_forms(
    ways: dict[str, nn.Module], images: Tensor, channels_last: bool
) -> dict[str, float]:
    images = images.contiguous(memory_format=FORMATS[channels_last])
    contenders = {
        name: partial(cast_to(copy.deepcopy(way), images.dtype, channels_last), images)
        for name, way in ways.items()
    }
    return seconds_in_turns(contenders, images.device, LAYER_BUDGET)


def _is_faster_channels_last(model: nn.Module, example: Tensor, dtype: torch.dtype) -> bool:
    if example.dim() != 4:
        return False

    def network(channels_last: bool) -> Network:
        return Network(cast_to(copy.deepcopy(model), dtype, channels_last), dtype, channels_last)

    contenders = {
        CONTIGUOUS: partial(network(False), example),
        CHANNELS_LAST: partial(network(True), example),
    }
    seconds = seconds_in_turns(contenders, example.device, LAYER_BUDGET)
    return seconds[CHANNELS_LAST] < seconds[CONTIGUOUS]


def _input_sizes(
    model: nn.Module, layers: dict[int, nn.Module], example: Tensor
) -> dict[int, torch.Size]:
    """The size of what each of ``layers`` is first called with; none for those that are not."""
    sizes: dict[int, torch.Size] = {}

    def note(key: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.setdefault(key, inputs[0].shape)

    pairs = [(layer, partial(note, key)) for key, layer in layers.items()]
    with watching(pairs, before=True):
        model(example)
    return sizes


def cast_to(model: nn.Module, dtype: torch.dtype, channels_last: bool) -> nn.Module:
    """In place; BatchNorms keep their precision."""
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
    return model.to(memory_format=FORMATS[channels_last])


def blueprint_places(model: nn.Module) -> list[Place]:
    found = places(model, BLUEPRINT_LAYERS)
    return [place for place in found if isinstance(place.module, BLUEPRINT_LAYERS)]
