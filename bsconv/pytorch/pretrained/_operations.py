"""The operations of a forward pass, however they are written, and where outputs arrive.

In ``relu(norm(conv(x)) + shortcut)`` the output of ``conv`` arrives, behind ``norm`` and with
something added, in front of ``relu``. ``conv`` can then be chosen so that the *sum* comes out
right, even if the shortcut is wrong.
"""

import inspect
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .._tools.model_tree import tensors_in
from ._inputs import Inputs

# functions of single numbers that leave large ones as they are, or cut them
ACTIVATIONS = frozenset((
    "celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "gelu", "hardswish", "hardtanh",
    "leaky_relu", "maximum", "minimum", "mish", "prelu", "relu", "relu6", "silu", "softplus",
    "threshold",
))  # fmt: skip
NORM_STATE = ("running_mean", "running_var", "weight", "bias")
CALLER = -1  # the number of what takes the answer


class Operation(NamedTuple):
    """One call of a function of PyTorch, or of a layer that is watched as a whole."""

    number: int  # counted from 0 in one forward pass
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: str | None = None  # its name; None for functions

    def run(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def norm_state(self) -> dict[str, Any]:
        """The arguments of F.batch_norm; empty for other operations."""
        if self.function is not F.batch_norm:
            return {}
        bound = inspect.signature(F.batch_norm).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return bound.arguments


Activation = Callable[[Tensor], Tensor]
Visit = Callable[[Operation], Any]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


class _Counting(TorchFunctionMode):
    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit, self.numbers = visit, itertools.count()
        self.inside = False  # a watched layer, whose own operations do not count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self.inside:
            return func(*args, **(kwargs or {}))
        return self.visit(Operation(next(self.numbers), func, args, kwargs or {}))

    def call(self, name: str, forward: Callable[[Tensor], Tensor], input: Tensor) -> Any:
        self.inside = True
        try:
            return self.visit(Operation(next(self.numbers), forward, (input,), {}, name))
        finally:
            self.inside = False


@contextmanager
def visiting(layers: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Forward passes in here go on with what ``visit`` returns for each operation.

    A call of one of ``layers`` is one operation, so numbers stay when another takes its place.
    """
    # what torch.compile has compiled runs as it is written
    with torch.compiler.set_stance("force_eager"), _Counting(visit) as mode:
        try:
            for name, layer in layers.items():
                layer.forward = partial(mode.call, name, layer.forward)
            yield
        finally:
            for layer in layers.values():
                vars(layer).pop("forward", None)


class Consumer(NamedTuple):
    """What happens to the output of a convolution that is called once, by numbers of operations."""

    own: int  # the convolution, or its BatchNorm
    norm: int | None  # the BatchNorm that takes it and nothing else, whose state may be set
    arrival: int  # the last operation whose output is that of the convolution plus something
    activation: Activation | None  # what alone sees it then, for maps of any size
    shapes: Shapes  # of the input and output of one image


class _Link(NamedTuple):
    """What takes the output of a convolution, or a sum with it."""

    number: int
    norm: dict[str, Any]
    activation: Activation | None
    value: Hashable  # of its output


def find_consumers(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module]
) -> dict[str, Consumer]:
    """For each of ``layers`` that is called once, with a batch; in the order of calls.

    Of convolutions that arrive in the same sum, the last is left to make up for the others.
    """
    trace = _Trace({id(tensor) for tensor in (*model.parameters(), *model.buffers())})
    with torch.enable_grad():
        inputs = inputs.with_derivatives()
        with visiting(layers, trace.visit):
            output = inputs.run(model)
    trace.use(CALLER, map(_value, tensors_in(output)))
    calls = {name: calls[0] for name, calls in trace.calls.items() if len(calls) == 1}
    found = {name: trace.consumer(*call) for name, call in calls.items()}
    last = {consumer.arrival: name for name, consumer in found.items()}
    for name, one in found.items():
        if last[one.arrival] != name:
            found[name] = one._replace(arrival=one.own, activation=None)
    return found


def _value(tensor: Tensor) -> Hashable:
    """What tells values apart: the node of autograd's graph, new whenever a tensor is written."""
    return tensor.grad_fn or id(tensor)


class _Trace:
    """Who takes which value, and what becomes of the outputs of convolutions."""

    def __init__(self, owned: set[int]) -> None:
        self.owned = owned
        self.calls: dict[str, list[tuple[int, Hashable, Shapes]]] = defaultdict(list)
        self.users: dict[Hashable, set[int]] = defaultdict(set)
        self.links: dict[Hashable, _Link] = {}  # by the value that is taken
        self.followed: set[Hashable] = set()

    def use(self, number: int, values: Iterable[Hashable]) -> None:
        for value in values:
            self.users[value].add(number)

    def visit(self, operation: Operation) -> Any:
        values = {_value(t): t for t in tensors_in((operation.args, operation.kwargs))}
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
        self.use(operation.number, values)
        for value, (again, given) in trials.items():
            norm = operation.norm_state()
            if norm or _adds(again, given, output):
                self.links[value] = _Link(operation.number, norm, None, _value(output))
                self.followed.add(_value(output))
            elif _is_activation(operation):
                self.links[value] = _Link(operation.number, {}, again, None)
        if operation.layer is not None:
            image, layer = operation.args[0], getattr(operation.function, "__self__", None)
            if layer is None or image.dim() == layer.weight.dim():  # else there is no batch
                shapes = tuple(image.shape[1:]), tuple(output.shape[1:])
                self.calls[operation.layer].append((operation.number, output.grad_fn, shapes))
                self.followed.add(output.grad_fn)
        return output

    def consumer(self, call: int, value: Hashable, shapes: Shapes) -> Consumer:
        own, norm, arrival, activation = call, None, call, None
        while activation is None and (link := self.links.get(value)):
            if len(self.users[value]) > 1:
                break
            if link.norm:
                if arrival != call or not self._can_be_set(link.norm):
                    break
                own = norm = link.number
            activation = link.activation
            arrival, value = link.number if activation is None else arrival, link.value
        return Consumer(own, norm, arrival, activation, shapes)

    def _can_be_set(self, norm: dict[str, Any]) -> bool:
        """Whether scale and shift are the convolution's own."""
        state = [id(norm[name]) for name in NORM_STATE]
        used_once = all(one in self.owned and len(self.users[one]) == 1 for one in state)
        return used_once and not norm["training"]


def _of_one(operation: Operation, value: Hashable) -> Activation:
    """The operation as a function of one argument; it writes only into copies."""
    run, hole = operation.function, object()

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return hole if _value(leaf) == value else leaf.detach().clone()

    arguments = tree_map(copied, (operation.args, operation.kwargs))

    @torch.no_grad()
    def function(tensor: Tensor) -> Any:
        args, kwargs = tree_map(lambda leaf: tensor.clone() if leaf is hole else leaf, arguments)
        return run(*args, **kwargs)

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
