"""Where the output of a convolution is used, found by watching one forward pass.

In ``relu(norm(conv(x)) + shortcut)`` the output of ``conv`` arrives, behind ``norm`` and with
something added, in front of ``relu``. ``conv`` can then be chosen so that the *sum* comes out
right, even if the shortcut is wrong.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .._tools.model_tree import tensors_in
from ._inputs import Inputs
from ._operations import Operation, visiting

# functions of single numbers that leave large ones as they are, or cut them
ACTIVATIONS = frozenset((
    "celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "gelu", "hardswish", "hardtanh",
    "leaky_relu", "maximum", "minimum", "mish", "prelu", "relu", "relu6", "silu", "softplus",
    "threshold",
))  # fmt: skip
NORM_STATE = ("running_mean", "running_var", "weight", "bias")
CALLER = -1  # the number of what takes the answer
Activation = Callable[[Tensor], Tensor]


class Consumer(NamedTuple):
    """What happens to the output of a convolution that is called once, by numbers of operations."""

    call: int  # the convolution
    norm: int | None  # the BatchNorm that takes it and nothing else, whose state may be set
    arrival: int  # the last operation whose output is that of the convolution plus something
    activation: Activation | None  # what alone sees it then, for maps of any size
    geometry: tuple[tuple[int, ...], tuple[int, ...]]  # shapes of input and output of one image


@dataclass
class _Call:
    """A call of a watched convolution."""

    number: int
    image: Tensor
    output: Hashable | None  # the value, if it is in autograd's graph
    shape: torch.Size
    version: int | None  # of the image, which others may write into
    written: float = math.inf  # the operation that did


class _Link(NamedTuple):
    """What takes the output of a convolution, or a sum with it: a BatchNorm, a sum, a function."""

    norm: dict[str, Any]
    activation: Activation | None
    output: Hashable


def find_consumers(model: nn.Module, inputs: Inputs, names: Iterable[str]) -> dict[str, Consumer]:
    """For each convolution of that name that the model calls exactly once, in the order of calls.

    ``inputs`` are a few images; ``model`` is in eval mode. A layer that takes a single image
    without a batch counts as not called.
    """
    layers = {name: model.get_submodule(name) for name in names}
    trace = _Trace({id(tensor) for tensor in (*model.parameters(), *model.buffers())})
    with torch.enable_grad():
        inputs = inputs.with_derivatives()
        with visiting(layers, trace.visit):
            output = inputs.run(model)
    trace.use(CALLER, tensors_in(output))
    once = {name: calls[0] for name, calls in trace.calls.items() if len(calls) == 1}
    return _one_each({name: trace.consumer(call) for name, call in once.items()})


def _one_each(consumers: Mapping[str, Consumer]) -> dict[str, Consumer]:
    """Of convolutions that arrive in the same sum, the last is left to make up for the others."""
    last = {consumer.arrival: name for name, consumer in consumers.items()}
    return {
        name: consumer
        if last[consumer.arrival] == name
        else consumer._replace(
            arrival=consumer.call if consumer.norm is None else consumer.norm, activation=None
        )
        for name, consumer in consumers.items()
    }


def _value(tensor: Tensor) -> Hashable:
    """What tells values apart: the node of autograd's graph, new whenever a tensor is written."""
    return tensor.grad_fn or id(tensor)


class _Trace:
    """Who takes which value, and what becomes of the outputs of convolutions."""

    def __init__(self, owned: set[int]) -> None:
        self.owned = owned
        self.calls: dict[str, list[_Call]] = defaultdict(list)
        self.users: dict[Hashable, set[int]] = defaultdict(set)
        self.links: dict[tuple[int, Hashable], _Link] = {}
        self.followed: set[Hashable] = set()

    def use(self, number: int, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self.users[_value(tensor)].add(number)

    def visit(self, operation: Operation) -> Any:
        given = list(tensors_in((operation.args, operation.kwargs)))
        values = {_value(tensor): tensor for tensor in given}
        # before the operation runs, which may write into what it takes
        trials = {
            value: (_of_one(operation, value), values[value].detach().clone())
            for value in values.keys() & self.followed
            if operation.layer is None
        }
        output = operation.run()
        found = list(tensors_in(output))
        # not a user: what returns what it was given, as Dropout in eval mode, or makes others
        makes = getattr(operation.function, "__name__", "").startswith("new_")
        if not found or makes or (len(found) == 1 and _value(found[0]) in values):
            return output
        for value in values:
            self.users[value].add(operation.number)
        for value, trial in trials.items():
            self._link(operation, value, output, *trial)
        if operation.layer is not None:
            self._call(operation, operation.layer, output)
        for call in (call for calls in self.calls.values() for call in calls):
            if call.version is not None and call.image._version != call.version:
                call.written = min(call.written, operation.number)
        return output

    def _call(self, operation: Operation, name: str, output: Tensor) -> None:
        image = operation.args[0]
        layer = getattr(operation.function, "__self__", None)
        if layer is not None and image.dim() < layer.weight.dim():  # no batch
            return
        version = None if image.is_inference() else image._version
        call = _Call(operation.number, image, output.grad_fn, output.shape, version)
        self.calls[name].append(call)
        if call.output is not None:
            self.followed.add(call.output)

    def _link(
        self, operation: Operation, value: Hashable, output: Any, again: Activation, given: Tensor
    ) -> None:
        norm = operation.norm_state()
        if norm or _adds(again, given, output):
            self.links[operation.number, value] = _Link(norm, None, _value(output))
            self.followed.add(_value(output))
        elif _is_activation(operation):
            self.links[operation.number, value] = _Link({}, again, None)

    def consumer(self, call: _Call) -> Consumer:
        """What is known once the whole pass is over."""
        norm, activation, arrival, value = None, None, call.number, call.output
        while value is not None and len(users := self.users[value]) == 1:
            (user,) = users
            link = self.links.get((user, value))
            if link is None or user >= call.written:
                break
            if link.activation is not None:
                activation = link.activation
                break
            if link.norm:
                if arrival != call.number or not self._can_be_set(link.norm):
                    break
                norm = user
            arrival, value = user, link.output
        shapes = tuple(call.image.shape[1:]), tuple(call.shape[1:])
        return Consumer(call.number, norm, arrival, activation, shapes)

    def _can_be_set(self, norm: Mapping[str, Any]) -> bool:
        """Whether scale and shift are the convolution's own."""
        state = [id(norm[name]) for name in NORM_STATE]
        return not norm["training"] and all(
            one in self.owned and len(self.users[one]) == 1 for one in state
        )


def _of_one(operation: Operation, value: Hashable) -> Activation:
    """The operation as a function of one of its arguments; it writes only into copies."""
    hole = object()

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return hole if _value(leaf) == value else leaf.detach().clone()

    arguments = tree_map(copied, (operation.args, operation.kwargs))

    @torch.no_grad()
    def function(tensor: Tensor) -> Tensor:
        args, kwargs = tree_map(lambda leaf: tensor.clone() if leaf is hole else leaf, arguments)
        found: Tensor = operation.function(*args, **kwargs)
        return found

    return function


def _is_activation(operation: Operation) -> bool:
    """Of all, prelu alone may take other tensors than single numbers, one number a channel."""
    name = getattr(operation.function, "__name__", "").strip("_")
    maps = [one for one in tensors_in((operation.args, operation.kwargs)) if one.dim()]
    return name in ACTIVATIONS and (name == "prelu" or len(maps) == 1)


def _adds(again: Activation, given: Tensor, output: Any) -> bool:
    """Whether the output is what was given plus what does not depend on it."""
    if not isinstance(output, Tensor) or (output.shape, output.dtype) != (given.shape, given.dtype):
        return False
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(given.shape, generator=generator).to(given) * given.std().clamp_min(1e-3)
    change = again(given + noise) - output.detach()
    largest = float(noise.abs().max())
    return math.isfinite(largest) and torch.allclose(change, noise, rtol=1e-3, atol=1e-4 * largest)
