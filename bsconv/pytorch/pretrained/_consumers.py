"""Where the output of a convolution is used, found by watching one forward pass.

In ``relu(norm(conv(x)) + shortcut)`` the output of ``conv`` arrives, behind ``norm`` and with
something added, in front of ``relu``. Who knows that can choose ``conv`` so that the *sum* comes
out right, whatever is wrong with the shortcut.
"""

import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ._inputs import Inputs
from ._operations import Operation, visiting

# functions of single numbers that leave large ones as they are, or cut them
ACTIVATIONS = frozenset(
    (
        "relu",
        "relu6",
        "hardtanh",
        "clamp",
        "clamp_min",
        "leaky_relu",
        "prelu",
        "elu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "softplus",
    )
)
NORM_STATE = ("running_mean", "running_var", "weight", "bias")
Activation = Callable[[Tensor], Tensor]


class Consumer(NamedTuple):
    """What happens to the output of a convolution that is called once, by numbers of operations."""

    call: int  # the convolution
    norm: int | None  # the BatchNorm that takes it and nothing else, whose state may be set
    arrival: int  # the last operation whose output is that of the convolution plus something
    activation: Activation | None  # what alone sees it then, for maps of any size
    geometry: tuple[tuple[int, ...], tuple[int, ...]]  # shapes of input and output of one image


Value = tuple[int, int]  # where a tensor lies, and how often that was written to


class _Step(NamedTuple):
    operation: Operation  # its tensors are copies, since later operations may write into them
    takes: tuple[Value, ...]  # of each tensor among its arguments
    output: Any  # a copy
    gives: tuple[Value, ...]
    same: bool  # it returns what it was given


def norm_state(operation: Operation) -> dict[str, Any]:
    """The arguments of F.batch_norm by name; empty for other operations."""
    if operation.function is not F.batch_norm:
        return {}
    bound = inspect.signature(F.batch_norm).bind(*operation.args, **operation.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


@torch.no_grad()
def find_consumers(
    model: nn.Module, inputs: Inputs, names: Iterable[str], originals: nn.Module | None = None
) -> dict[str, Consumer]:
    """For each convolution of that name that the model calls exactly once, in the order of calls.

    ``inputs`` are a few images; ``model`` is in eval mode. Raises ValueError where the pass uses
    parameters of ``originals``, of which ``model`` is meant to be a copy.
    """
    layers = {name: model.get_submodule(name) for name in names}
    steps, kept = _trace(model, inputs, layers, originals)
    counts = Counter(step.operation.layer for step in steps)
    users: dict[Value, list[_Step]] = defaultdict(list)
    for step in steps:
        for value in set(step.takes):
            users[value].append(step)
    owned = _state_of(model)
    found = {
        step.operation.layer: _consumer(step, steps, users, owned)
        for step in steps
        if step.operation.layer and counts[step.operation.layer] == 1
    }
    del kept  # until here, so that no two tensors lay in the same place
    return _one_each(found)


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


def _trace(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module], originals: nn.Module | None
) -> tuple[list[_Step], list[Any]]:
    """The operations that take and give tensors, and all those tensors."""
    state = _state_of(model)
    foreign = set() if originals is None else _state_of(originals)
    steps: list[_Step] = []
    kept: list[Any] = []

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and id(value) not in state else value

    def visit(operation: Operation) -> Any:
        given = tree_leaves((operation.args, operation.kwargs))
        if any(id(value) in foreign for value in given):
            raise ValueError(
                "model needs to be copied with copy.deepcopy, got one whose copy goes on using "
                "layers of the original (a function or hook that holds them?)"
            )
        takes = _values(given)
        args, kwargs = tree_map(copied, (operation.args, operation.kwargs))
        output = operation.run()
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            return output
        kept.extend((given, output))
        gives = _values(tree_leaves(output))
        same = isinstance(output, Tensor) and any(
            isinstance(value, Tensor) and _is_same(value, output, takes, gives) for value in given
        )
        copy = replace(operation, args=args, kwargs=kwargs)
        steps.append(_Step(copy, takes, tree_map(copied, output), gives, same))
        return output

    inputs = inputs.map(torch.clone)
    with visiting(layers, visit):
        output = inputs.run(model)
    last = Operation(-1, tuple, (output,), {})
    steps.append(_Step(last, _values(tree_leaves(output)), None, (), same=False))
    kept.append(output)
    return steps, kept


def _state_of(model: nn.Module) -> set[int]:
    return {id(tensor) for tensor in (*model.parameters(), *model.buffers())}


def _values(leaves: Iterable[Any]) -> tuple[Value, ...]:
    return tuple(_value(leaf) for leaf in leaves if isinstance(leaf, Tensor))


def _value(tensor: Tensor) -> Value:
    try:
        return tensor.untyped_storage().data_ptr(), tensor._version
    except (NotImplementedError, RuntimeError):  # tensors without storage, or inference mode
        return id(tensor), 0


def _is_same(given: Tensor, output: Tensor, takes: Any, gives: Any) -> bool:
    """Such as Dropout in eval mode; writing in place is none."""
    place = (output.data_ptr(), output.shape, output.stride())
    return place == (given.data_ptr(), given.shape, given.stride()) and gives[0] in takes


def _consumer(
    step: _Step, steps: list[_Step], users: Mapping[Value, list[_Step]], owned: set[int]
) -> Consumer:
    image, output = step.operation.args[0], step.output
    last, norm = step, None
    if (user := _only_user(last, users)) and _can_take_over(user, users, owned):
        last = norm = user
    while (user := _only_user(last, users)) and _adds(user, last):
        if _is_written(step, user, steps):
            user = None
            break
        last = user
    activation = None
    if user and _name(user) in ACTIVATIONS:
        activation = partial(_again, user, last.gives[0])
    return Consumer(
        step.operation.number,
        norm.operation.number if norm else None,
        last.operation.number,
        activation,
        (tuple(image.shape[1:]), tuple(output.shape[1:])),
    )


def _is_written(call: _Step, last: _Step, steps: list[_Step]) -> bool:
    """Whether what the convolution sees is overwritten up to the ``last`` step."""
    place, version = call.takes[0]
    between = steps[steps.index(call) + 1 : steps.index(last) + 1]
    return any(there == place and n > version for step in between for there, n in step.gives)


def _name(step: _Step) -> str:
    name: str = getattr(step.operation.function, "__name__", "")
    return name.rstrip("_")


def _only_user(step: _Step, users: Mapping[Value, list[_Step]]) -> _Step | None:
    """What alone takes the output of ``step``, if one operation does."""
    if len(step.gives) != 1:
        return None
    number = step.operation.number
    found = [
        user
        for user in users[step.gives[0]]
        if not user.same and (user.operation.number > number or user.output is None)
    ]
    return found[0] if len(found) == 1 and found[0].output is not None else None


def _can_take_over(step: _Step, users: Mapping[Value, list[_Step]], owned: set[int]) -> bool:
    """Whether scale and shift are the convolution's own, and can be set."""
    state = norm_state(step.operation)
    tensors = [state.get(name) for name in NORM_STATE]
    return not state.get("training", True) and all(
        isinstance(tensor, Tensor) and id(tensor) in owned and len(users[_value(tensor)]) == 1
        for tensor in tensors
    )


def _adds(step: _Step, before: _Step) -> bool:
    """Whether the output is that of ``before`` plus what does not depend on it."""
    output, given = step.output, before.output
    if step.operation.layer or not isinstance(output, Tensor) or output.shape != given.shape:
        return False
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(given.shape, generator=generator).to(given) * given.std().clamp_min(1e-3)
    change = _again(step, before.gives[0], given + noise) - output
    largest = float(noise.abs().max())
    return math.isfinite(largest) and torch.allclose(change, noise, rtol=1e-3, atol=1e-4 * largest)


def _again(step: _Step, value: Value, tensor: Tensor) -> Tensor:
    """What the operation returns for ``tensor`` in place of ``value``."""
    takes = iter(step.takes)

    def exchanged(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return tensor.clone() if next(takes) == value else leaf

    operation = step.operation
    args, kwargs = tree_map(exchanged, (operation.args, operation.kwargs))
    found: Tensor = replace(operation, args=args, kwargs=kwargs).run()
    return found
