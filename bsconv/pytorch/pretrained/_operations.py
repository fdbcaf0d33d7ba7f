"""The operations of a forward pass, however they are written, and where outputs arrive.

In ``relu(norm(conv(x)) + shortcut)`` the output of ``conv`` arrives, behind ``norm`` and with
something added, in front of ``relu``. ``conv`` can then be chosen so that the *sum* comes out
right, even if the shortcut is wrong.
"""

import inspect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

from .._forms.chains import Activation, Chain, value_of
from .._tools.model_tree import tensors_in
from ._inputs import Inputs

NORM_STATE = ("running_mean", "running_var", "weight", "bias")
# the layer that was called last, which of its calls that was, the operations since
Number = tuple[str, int, int]
CALLER: Number = ("", 0, -1)  # of what takes the answer


class Operation(NamedTuple):
    """One call of a function of PyTorch, or of a layer that is watched as a whole."""

    number: Number  # of its place in one forward pass
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: str | None = None  # its name; None for functions

    def run(self) -> Any:
        output = self.function(*self.args, **self.kwargs)
        return self.args[0] if output is None and self.args else output  # as of x[x < 0] = 0

    def norm_state(self) -> dict[str, Any]:
        """The arguments of F.batch_norm; empty for other operations."""
        if self.function is not F.batch_norm:
            return {}
        bound = inspect.signature(F.batch_norm).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return bound.arguments


Visit = Callable[[Operation], Any]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


class _Counting(TorchFunctionMode):
    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit, self.last, self.steps = visit, ("", 0), itertools.count()
        self.calls: Counter[str] = Counter()
        self.inside = False  # a watched layer, whose own operations do not count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self.inside:
            return func(*args, **(kwargs or {}))
        return self.visit(Operation(self.next(), func, args, kwargs or {}))

    def next(self) -> Number:
        return *self.last, next(self.steps)

    def call(self, name: str, forward: Callable[[Tensor], Tensor], input: Tensor) -> Any:
        self.calls[name] += 1
        self.inside, self.last, self.steps = True, (name, self.calls[name]), itertools.count()
        try:
            return self.visit(Operation(self.next(), forward, (input,), {}, name))
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

    call: Number  # the convolution
    norm: Number | None  # the BatchNorm that takes it and nothing else, whose state may be set
    sum: Callable[..., Any] | None  # what computes the arrival, if neither of the two
    arrival: Number  # the last operation whose output is that of the convolution plus something
    activation: Activation | None  # what alone sees it then, for maps of any size
    shapes: Shapes  # of the input and output of one image


def find_consumers(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module]
) -> dict[str, Consumer]:
    """For each of ``layers`` that is called once, with a batch; in the order of calls.

    Of convolutions that arrive in the same sum, the last is left to make up for the others.
    """
    trace = _Trace({*model.parameters(), *model.buffers()})
    with torch.enable_grad():
        inputs = inputs.with_derivatives()
        with visiting(layers, trace.visit):
            output = inputs.run(model)
    for tensor in tensors_in(output):
        trace.users[value_of(tensor)].add(CALLER)
    calls = trace.calls.items()
    found = {name: trace.consumer(*each[0]) for name, each in calls if len(each) == 1}
    last = {consumer.arrival: name for name, consumer in found.items()}
    for name, one in found.items():
        if last[one.arrival] != name:
            found[name] = one._replace(sum=None, arrival=one.norm or one.call, activation=None)
    return found


class _Trace:
    """Who takes which value, and what becomes of the outputs of convolutions."""

    def __init__(self, owned: set[Tensor]) -> None:
        self.owned = owned
        self.functions: dict[Number, Callable[..., Any]] = {}
        self.calls: dict[str, list[tuple[Number, Hashable, Shapes]]] = defaultdict(list)
        self.users: dict[Hashable, set[Number]] = defaultdict(set)
        # by the value that is taken: the operation, what it computes, its state if it is a norm
        self.links: dict[Hashable, tuple[Number, Hashable, dict[str, Any]]] = {}
        self.chains: dict[Hashable, dict[Hashable, Chain]] = defaultdict(dict)  # by value, start

    def follow(self, number: Number, output: Tensor) -> None:
        self.chains[value_of(output)][value_of(output)] = Chain(number, output)

    def visit(self, operation: Operation) -> Any:
        values = dict.fromkeys(map(value_of, tensors_in((operation.args, operation.kwargs))))
        number, norm = operation.number, operation.norm_state()
        self.functions[number] = operation.function
        chains = {chain for value in values for chain in self.chains.get(value, {}).values()}
        # before the operation runs, which may write into what it takes
        again = {c: _again(operation, c.functions) for c in chains if operation.layer is None}
        output = operation.run()
        found = list(tensors_in(output))
        # not a user: what returns what it was given, as Dropout in eval mode, or makes others
        makes = getattr(operation.function, "__name__", "").startswith("new_")
        if not found or makes or (len(found) == 1 and value_of(found[0]) in values):
            return output
        for value in values:
            self.users[value].add(number)
        for chain, function in again.items():
            with suppress(Exception):  # of any kind: it is made for these tensors alone
                if chain.start in values and (norm or chain.is_sum(function)):
                    self.links[chain.start] = number, value_of(output), norm
                    self.follow(number, output)
                if not norm and chain.add(number, function, output):
                    self.chains[value_of(output)][chain.start] = chain
        if operation.layer is not None:
            image, layer = operation.args[0], getattr(operation.function, "__self__", None)
            if layer is None or image.dim() == layer.weight.dim():  # else there is no batch
                shapes = tuple(image.shape[1:]), tuple(output.shape[1:])
                self.calls[operation.layer].append((number, output.grad_fn, shapes))
                self.follow(number, output)
        return output

    def consumer(self, call: Number, value: Hashable, shapes: Shapes) -> Consumer:
        norm, arrival = None, call
        while len(self.users[value]) == 1 and value in self.links:
            number, following, state = self.links[value]
            if state:
                if arrival != call or not self._can_be_set(state):
                    break
                norm = number
            arrival, value = number, following
        chain = self.chains[value].get(value)  # none where there are no derivatives
        activation = chain.activation(self.users) if chain else None
        added = None if arrival in (call, norm) else self.functions[arrival]
        return Consumer(call, norm, added, arrival, activation, shapes)

    def _can_be_set(self, norm: dict[str, Any]) -> bool:
        """Whether scale and shift are the convolution's own."""
        state = {norm[name] for name in NORM_STATE}
        used_once = all(len(self.users[one]) == 1 for one in state)
        return used_once and state <= self.owned and not norm["training"]


def _again(operation: Operation, functions: Mapping[Hashable, Activation]) -> Activation:
    """The operation as a function of what ``functions`` take; it writes only into copies."""

    def source(leaf: Any) -> Callable[[Tensor], Any]:
        known = functions.get(value_of(leaf)) if isinstance(leaf, Tensor) else None
        copy = leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
        return known or (lambda _: copy)

    sources = tree_map(source, (operation.args, operation.kwargs))

    @torch.no_grad()
    def function(tensor: Tensor) -> Any:
        found = tree_map(lambda one: one(tensor), sources)
        args, kwargs = tree_map_only(Tensor, torch.clone, found)
        return operation._replace(args=args, kwargs=kwargs).run()

    return function
