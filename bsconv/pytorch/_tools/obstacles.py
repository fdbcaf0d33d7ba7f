"""Why a layer cannot be exchanged: odd convolutions, shared weights, other holders, hooks."""

import functools
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from .model_tree import MODULE_STATE, MOVABLE_HOOKS, STATE_HOOKS, Place


def why_not_plain(module: nn.Module, groups: int = 1) -> str:
    """Why ``module`` is not a plain 2-D convolution in so many groups; empty if it is one."""
    name = type(module).__name__
    if parametrize.is_parametrized(module):
        names = (name for name, _ in module.get_submodule("parametrizations").named_children())
        return f"parametrised ({', '.join(names)})"
    if not isinstance(module, nn.Conv2d):
        return f"{name} is not a Conv2d"
    if type(module) is not nn.Conv2d:
        return f"{name} is a subclass of Conv2d and may compute something else"
    if "forward" in vars(module):
        return "its forward was exchanged on the instance"
    own = {*module._parameters, *module._buffers, *module._modules} - {"weight", "bias"}
    if own:
        return f"has state apart from weight and bias: {', '.join(sorted(own))}"
    weight = module.weight
    computable = weight.is_floating_point() and torch.finfo(weight.dtype).bits >= 16
    if type(weight) is not nn.Parameter or not computable:
        return f"its weight is a {type(weight).__name__} of {weight.dtype}"
    if module.groups != groups:
        return f"grouped (groups={module.groups})"
    return ""


def shares_with_others(model: nn.Module, convs: Iterable[nn.Conv2d]) -> dict[int, str]:
    """By id, those of ``convs`` that share a parameter with a module that is not among them.

    One that is left out takes with it those that share a parameter with it in turn. The value is
    the name of the parameter as the other module has it.
    """
    users: dict[int, list[tuple[nn.Module, str, str]]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                users[id(parameter)].append((module, key, f"{prefix}.{key}" if prefix else key))
    remaining = {id(conv): conv for conv in convs}

    def outside_user(conv: nn.Conv2d) -> str | None:
        for key, parameter in conv.named_parameters():
            for user, user_key, full_name in users[id(parameter)]:
                if id(user) not in remaining or user_key != key:
                    return full_name
        return None

    outside: dict[int, str] = {}
    while found := {key: name for key, conv in remaining.items() if (name := outside_user(conv))}:
        outside.update(found)
        for key in found:
            del remaining[key]
    return outside


def held_in_attributes(model: nn.Module, convs: Iterable[nn.Conv2d]) -> dict[int, str]:
    """By id, those of ``convs`` that a plain attribute of a module leads to as well, and its name.

    Code that goes by such an attribute, a list of layers for example, would go on with the old one.
    """
    wanted = {id(conv) for conv in convs}
    modules = dict(model.named_modules())
    registered = {id(module) for module in modules.values()}
    held: dict[int, str] = {}
    for prefix, module in modules.items():
        for key in [key for key in vars(module) if key not in MODULE_STATE]:
            waiting = [vars(module)[key]]
            seen: set[int] = set()
            while waiting:
                value = waiting.pop()
                if id(value) in wanted and value is not module:
                    held.setdefault(id(value), f"{prefix}.{key}" if prefix else key)
                elif id(value) not in seen:
                    seen.add(id(value))
                    waiting.extend(_inside(value, registered))
    return held


def _inside(value: object, registered: set[int]) -> Iterable[object]:
    """What a plain attribute leads to, one step further."""
    if type(value) in (list, tuple, set, frozenset):
        return cast(Iterable[object], value)
    if type(value) in (dict, OrderedDict):
        return cast(dict[object, object], value).values()
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, nn.Module) and id(value) not in registered:
        return value.children()
    return ()


def unmovable_hooks(conv: nn.Conv2d) -> str:
    """Which hooks of ``conv`` mean its very parameters or state dict; empty if there are none."""
    if any(getattr(conv, hooks) for hooks in STATE_HOOKS):
        return "hooks on its state dict"
    for name, parameter in conv.named_parameters():
        if _is_hooked(parameter):
            return f"hooks on its parameter {name}"
    return ""


def has_hooks(module: nn.Module, *, movable: bool) -> bool:
    """Whether ``module`` itself has hooks that can't move to another module, or, if ``movable``,
    any; those on its own parameters are among the former."""
    tables = (*MOVABLE_HOOKS, *STATE_HOOKS) if movable else STATE_HOOKS
    return any(getattr(module, table) for table in tables if table.endswith("_hooks")) or any(
        map(_is_hooked, module.parameters(recurse=False))
    )


def _is_hooked(parameter: nn.Parameter) -> bool:
    return bool(
        parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
    )


def excluded_places(
    model: nn.Module, everywhere: Sequence[Place], patterns: Iterable[str]
) -> dict[str, str]:
    """The names of all places that ``patterns`` cover, with the pattern that does.

    A pattern covers the layers that it names and all inside them, by whichever of its names a
    shared layer is called. Raises ValueError for one that names no layer of the model.
    """
    names = [place.name for place in everywhere]
    covered: dict[int, str] = {}
    for pattern in patterns:
        named = _named_by(pattern, names)
        # a layer inside a BSConv layer, which is not entered, may be named too
        if not named and not _named_by(pattern, [name for name, _ in model.named_modules()]):
            near = get_close_matches(pattern, names)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"exclude names no layer of this model: '{pattern}'{hint}")
        covered.update((id(place.module), pattern) for place in everywhere if place.name in named)
    found: dict[str, str] = {}
    for place in everywhere:  # parents come first
        inherited = found.get(place.name.rpartition(".")[0], "") if place.name else ""
        if pattern := covered.get(id(place.module), inherited):
            found[place.name] = pattern
    return found


def _named_by(pattern: str, names: Sequence[str]) -> set[str]:
    """The name itself, where it is one, even one with brackets; else those that match."""
    return {pattern} & set(names) or {name for name in names if fnmatchcase(name, pattern)}
