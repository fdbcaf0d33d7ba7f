"""A model as a tree of modules: places, modes, hooks, and the exchange of layers."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MODULE_STATE = frozenset(vars(nn.Module()))  # what every module has, its tables of layers included
STATE_HOOKS = tuple(name for name in MODULE_STATE if "state_dict" in name)
MOVABLE_HOOKS = tuple(name for name in MODULE_STATE - {*STATE_HOOKS} if "hook" in name)


class Place(NamedTuple):
    """Where a module hangs: its full name, and the parent's attribute (None for the root)."""

    name: str
    parent: nn.Module | None
    key: str
    module: nn.Module


def places(model: nn.Module, leaves: tuple[type[nn.Module], ...]) -> Iterator[Place]:
    """All places of all modules, parents first; modules are entered once, ``leaves`` are not."""
    entered: set[int] = set()

    def walk(place: Place) -> Iterator[Place]:
        yield place
        module = place.module
        if id(module) in entered or isinstance(module, (*leaves, torch.jit.ScriptModule)):
            return
        entered.add(id(module))
        for key, child in module._modules.items():
            if child is not None:
                yield from walk(Place(f"{place.name}.{key}".lstrip("."), module, key, child))

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
    parameters = {p for module in modules for p in module.parameters()}
    return sum(0 if nn.parameter.is_lazy(p) else p.numel() for p in parameters)


def unwrapped(model: nn.Module) -> nn.Module:
    """``model`` without DataParallel, DistributedDataParallel and torch.compile around it."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return unwrapped(model.module)
    compiled: nn.Module | None = getattr(model, "_orig_mod", None)
    return model if compiled is None else unwrapped(compiled)


def check_changeable(model: nn.Module) -> None:
    check_module(model)
    if any(isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()):
        why = "since it goes on reducing the old parameters"
        raise ValueError(f"change the layers before DistributedDataParallel wraps the model, {why}")


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
    layers: Mapping[int, nn.Module],  # by the ids of the modules in those places
    finish: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """The model with ``layers``, which get the hooks of the old, in the places ``where``.

    If a parent won't have one, or ``finish(model)`` fails, or Ctrl-C comes, all is left as it was.
    """
    done: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for _, parent, key, old in where:
            layer = layers[id(old)]
            for hooks in MOVABLE_HOOKS:  # the very tables, so that handles still remove from them
                setattr(layer, hooks, getattr(old, hooks))
            attached = (item for item in vars(old).items() if not item[0].startswith("_"))
            vars(layer).update((name, one) for name, one in attached if not hasattr(layer, name))
            if parent is None:
                model = layer
            else:
                done.append((parent, key, old))
                setattr(parent, key, layer)
        if finish is not None:
            finish(model)
    except BaseException:
        for parent, key, old in done:
            if parent._modules[key] is not old:
                setattr(parent, key, old)
        raise
    return model
