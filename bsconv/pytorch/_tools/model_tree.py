"""A model as a tree of modules: places, modes, hooks, and the exchange of layers."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOVABLE_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

MODULE_STATE = frozenset(vars(nn.Module()))  # what every module has, its tables of layers included


class Place(NamedTuple):
    """Where a module hangs: its full name, and the parent's attribute (None for the root)."""

    name: str
    parent: nn.Module | None
    key: str
    module: nn.Module


def places(model: nn.Module, leaves: tuple[type[nn.Module], ...]) -> Iterator[Place]:
    """Every place of every module, parents first, in the order of ``named_modules``.

    A module in several places is entered once, those of the types ``leaves`` are not entered.
    """
    entered: set[int] = set()

    def walk(place: Place) -> Iterator[Place]:
        yield place
        module = place.module
        if id(module) in entered or isinstance(module, (*leaves, torch.jit.ScriptModule)):
            return
        entered.add(id(module))
        for key, child in module._modules.items():
            if child is not None:
                name = f"{place.name}.{key}" if place.name else key
                yield from walk(Place(name, module, key, child))

    return walk(Place("", None, "", model))


def check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model needs to be a torch.nn.Module, got {model!r:.40}")


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists, dicts and dataclasses, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)
    elif is_dataclass(value):
        yield from tensors_in([getattr(value, one.name, None) for one in fields(value)])


def parameter_count(*modules: nn.Module) -> int:
    """Parameters of all ``modules`` together; shared ones count once, lazy ones not yet."""
    parameters = {id(p): p for module in modules for p in module.parameters()}
    return sum(0 if nn.parameter.is_lazy(p) else p.numel() for p in parameters.values())


def wrapped_by(model: nn.Module) -> nn.Module | None:
    """What DataParallel, DistributedDataParallel or torch.compile wraps; None for other models."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return model.module
    compiled: nn.Module | None = getattr(model, "_orig_mod", None)
    return compiled


def unwrapped(model: nn.Module) -> nn.Module:
    """``model`` without such wrappers."""
    while (inner := wrapped_by(model)) is not None:
        model = inner
    return model


def check_unwrapped(model: nn.Module) -> None:
    """Raises ValueError for a model whose parameters DistributedDataParallel looks after."""
    if any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()):
        raise ValueError(
            "change the layers before DistributedDataParallel wraps the model, "
            "since it goes on reducing the old parameters"
        )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """``model`` in eval mode and without gradients; each module's mode is put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:  # not eval(): models may do more there, such as merge weights
            module.training = False
        with torch.no_grad():
            yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def watching(
    pairs: Iterable[tuple[nn.Module, Callable[..., Any]]], *, before: bool = False, **options: Any
) -> Iterator[None]:
    """Calls a hook after (or ``before``) each forward pass of its module, inside the block only."""
    with contextlib.ExitStack() as stack:
        for module, hook in pairs:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(hook, **options).remove)
        yield


def exchange(
    model: nn.Module,
    where: Iterable[Place],
    layers: Mapping[int, nn.Module],
    finish: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """The model with ``layers`` in the places ``where``, by the ids of the modules found there.

    They get the hooks of the old, and ``finish`` is called on the outcome. If a parent won't have
    one, or ``finish`` fails, or Ctrl-C comes, all is left as it was.
    """
    done: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for place in where:
            layer = layers[id(place.module)]
            for hooks in MOVABLE_HOOKS:  # the very tables, so that handles still remove from them
                setattr(layer, hooks, getattr(place.module, hooks))
            if place.parent is None:
                model = layer
            else:
                done.append((place.parent, place.key, place.module))
                setattr(place.parent, place.key, layer)
        if finish is not None:
            finish(model)
    except BaseException:
        for parent, key, old in done:
            if parent._modules[key] is not old:
                setattr(parent, key, old)
        raise
    return model
