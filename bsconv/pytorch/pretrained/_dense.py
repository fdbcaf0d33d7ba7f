"""What a dense network is, computes and finds important: all that others are fitted to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._tools.numerics import check_finite
from ._consumers import Consumer, find_consumers, norm_state
from ._costs import Geometry
from ._inputs import Inputs
from ._operations import Operation, visiting
from ._samples import Sampler
from ._sensitivity import Sensitivity, sensitivities

TRACED = 2  # images that tell where outputs arrive


@dataclass
class Dense:
    """A dense network, and its convolutions that are called once, in the order of calls."""

    model: nn.Module
    names: tuple[str, ...]  # of all convolutions that are watched
    inputs: Inputs
    sampler: Sampler
    consumers: dict[str, Consumer]
    sensitivities: dict[str, Sensitivity]
    kernels: dict[str, Tensor] = field(default_factory=dict)  # with a BatchNorm's scale
    wanted: dict[str, Tensor] = field(default_factory=dict)  # rows of what arrives
    has_constant: dict[str, bool] = field(default_factory=dict)
    answer: Any = None  # to all images

    def conv(self, name: str) -> nn.Conv2d:
        return cast(nn.Conv2d, self.model.get_submodule(name))

    def work(self, name: str) -> float:
        """How long a fit of that layer takes, about, in a unit of no matter."""
        return self.conv(name).weight[0].numel() ** 2.0

    def geometry(self, name: str) -> Geometry:
        return Geometry.of(self.conv(name), *self.consumers[name].geometry)


Each = Callable[["Dense", str, Tensor], object]


@torch.no_grad()
def study(
    model: nn.Module,
    inputs: Inputs,
    names: Iterable[str],
    sampler: Sampler,
    *,
    original: nn.Module | None = None,
    each: Each | None = None,
) -> Dense:
    """Runs the network once over all images, after a few for its structure and its derivatives.

    ``each`` is called for every convolution with what it sees, rows of patches.
    """
    names = tuple(names)
    consumers = find_consumers(model, inputs.first(TRACED), names, original)
    layers = {name: model.get_submodule(name) for name in names}
    numbers = {consumer.arrival for consumer in consumers.values()}
    found = sensitivities(model, inputs, layers, numbers, sampler.group_size)
    by_name = {n: found[c.arrival] for n, c in consumers.items() if c.arrival in found}
    dense = Dense(model, names, inputs, sampler, consumers, by_name)
    pass_ = _Pass(dense, each)
    copies = inputs.map(torch.clone)
    with visiting(layers, pass_.visit):
        dense.answer = copies.run(model)
    return dense


class _Pass:
    """Notes what is wanted of each layer."""

    def __init__(self, dense: Dense, each: Each | None) -> None:
        self.dense = dense
        self.each = each
        self.arrivals = {c.arrival: name for name, c in dense.consumers.items()}
        self.norms = {c.norm: name for name, c in dense.consumers.items()}
        self.patches: dict[str, Tensor] = {}

    def visit(self, operation: Operation) -> Any:
        dense, name = self.dense, operation.layer
        if name in dense.consumers:
            conv = dense.conv(name)
            dense.kernels[name] = conv.weight.double()
            dense.has_constant[name] = conv.bias is not None
            if self.each:
                self.patches[name] = dense.sampler.patches(conv, operation.args[0])
        elif operation.number in self.norms:
            name = self.norms[operation.number]
            dense.kernels[name] = dense.kernels[name] * _scale(norm_state(operation))
            dense.has_constant[name] = True
        output = operation.run()
        if operation.number in self.arrivals:
            name = self.arrivals[operation.number]
            dense.wanted[name] = dense.sampler.rows(output)
            check_finite(f"'{name}'", dense.wanted[name])
            if self.each:
                self.each(dense, name, self.patches.pop(name))
        return output


def _scale(norm: dict[str, Any]) -> Tensor:
    scale = (norm["running_var"].double() + norm["eps"]).rsqrt() * norm["weight"].double()
    return scale[:, None, None, None]
