"""Which weights of a model or state dict are kernels, and why some have no slices to compare."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

from torch import Tensor, nn

from .._tools.convs import CONVOLUTIONS, present_weight
from .._tools.model_tree import evaluating, unwrapped

RANKS = (3, 4, 5)  # of kernels of one, two and three dimensions


@dataclass(frozen=True)
class Kernels:
    """The kernels of one layer; ``read()`` gives their values, shape (N, M, *kernel size).

    A parametrised weight is computed each time. ``skipped`` says why there is nothing to compare,
    if so; in a state dict, it may be ``unsure`` whether the convolution is transposed.
    """

    name: str
    read: Callable[[], Tensor]
    shape: tuple[int, ...]
    groups: int
    skipped: str = ""
    unsure: bool = False

    @property
    def slices(self) -> int:
        return self.shape[1]

    @property
    def values(self) -> int:
        """Numbers in a slice."""
        return prod(self.shape[2:])


def kernels_of(source: nn.Module | Mapping[str, Any] | Tensor) -> list[Kernels]:
    """All kernels of ``source`` in the order of their names, those to skip among them."""
    kind = type(source).__name__
    if isinstance(source, Tensor):
        return [_of_weight(source)]
    if isinstance(source, nn.Module):
        wanted, found = "convolution layers", list(_of_modules(source))
    elif isinstance(source, Mapping):
        wanted = "weights (N, M, *kernel size) named '*.weight'"
        found = list(_of_state_dict(source))
    else:
        raise TypeError(f"source needs a model, a state dict or a weight tensor, got a {kind}")
    if not found:
        raise ValueError(f"source needs {wanted}, got a {kind} without any")
    return found


def across(kernels: Kernels) -> Kernels:
    """The same slices ordered by input channel: shape (in channels, filters that see it, ...)."""
    filters, slices, *size = kernels.shape
    shape = (slices * kernels.groups, filters // kernels.groups, *size)
    return replace(kernels, read=lambda: exchanged(kernels.read(), kernels.groups), shape=shape)


def exchanged(weight: Tensor, groups: int) -> Tensor:
    """(groups * a, b, ...) as (groups * b, a, ...): inputs and outputs change places."""
    by_group = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1)


def _of_weight(weight: Tensor) -> Kernels:
    shape = tuple(weight.shape)
    if weight.dim() not in RANKS:
        raise ValueError(f"weight needs shape (N, M, *kernel size), got shape {shape}")
    kernels = _kernels("", lambda: weight)
    if kernels.skipped:
        raise ValueError(f"weight needs slices to compare, got shape {shape}: {kernels.skipped}")
    return kernels


def _of_modules(model: nn.Module) -> Iterator[Kernels]:
    for name, module in unwrapped(model).named_modules():
        if isinstance(module, CONVOLUTIONS):
            yield _kernels(name, partial(_weight_of, module), module.groups)


def _of_state_dict(state: Mapping[str, Any]) -> Iterator[Kernels]:
    for name, value in state.items():
        layer, _, last = str(name).rpartition(".")
        if last == "weight" and isinstance(value, Tensor) and value.dim() in RANKS:
            kernels = _kernels(layer, value.detach)
            bias = state.get(f"{layer}.bias" if layer else "bias")
            outputs = len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 else 0
            filters, slices = kernels.shape[:2]
            groups, rest = divmod(outputs, max(1, slices))
            if outputs not in (0, filters) and not rest and filters % groups == 0:  # transposed
                yield _kernels(layer, partial(exchanged, value.detach(), groups), groups)
            else:
                yield replace(kernels, unsure=outputs == 0 or filters == slices)


def _kernels(name: str, read: Callable[[], Tensor], groups: int = 1) -> Kernels:
    weight = read()
    title = f"the weight of {name!r}" if name else "the weight"
    if nn.parameter.is_lazy(weight):
        raise ValueError(f"{title} needs a size: call the model once, its layers are lazy")
    if weight.is_meta:
        raise ValueError(f"{title} needs values, got a tensor on the meta device")
    return Kernels(name, read, tuple(weight.shape), groups, _reason_to_skip(weight))


def _reason_to_skip(weight: Tensor) -> str:
    if not weight.is_floating_point():
        return f"its numbers are {str(weight.dtype).removeprefix('torch.')}"
    if weight.numel() == 0:
        return "it is empty"
    if weight.shape[1] == 1:
        return "one slice per filter, as in depthwise convolutions"
    if weight.shape[2:].numel() == 1:
        return f"{'x'.join(map(str, weight.shape[2:]))}: a slice is a single number"
    return ""


def _weight_of(conv: Any) -> Tensor:
    with evaluating(conv):  # spectral_norm changes its buffers while training
        weight = present_weight(conv)
    transposed = conv.transposed and not nn.parameter.is_lazy(weight)
    return exchanged(weight, conv.groups) if transposed else weight
