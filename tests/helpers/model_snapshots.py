"""What a model consists of, and whether two looks at it are the same to the last bit."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every name that leads to a module, of which each is entered once, parents first."""
    entered = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        yield name, module
        if id(module) not in entered:
            entered.add(id(module))
            prefix = f"{name}." if name else ""
            inside = [(prefix + key, m) for key, m in module._modules.items() if m is not None]
            waiting += reversed(inside)


def tensors(model: nn.Module) -> dict[int, Tensor]:
    """All parameters and buffers that have numbers."""
    found = [t for t in (*model.parameters(), *model.buffers()) if not nn.parameter.is_lazy(t)]
    return {id(tensor): tensor for tensor in found}


def bits(tensor: Tensor) -> Tensor | None:
    if tensor.is_meta:
        return None
    contiguous = tensor.detach().contiguous()
    return contiguous.reshape(-1).view(torch.uint8).clone()


def snapshot(model: nn.Module) -> list[Any]:
    """All that may not change where nothing is to change, the very objects included."""
    modules = [
        (name, module, type(module), module.training, attributes(module))
        for name, module in walk(model)
    ]
    return [modules, [(tensor, *about(tensor)) for tensor in tensors(model).values()]]


def about(t: Tensor) -> list[Any]:
    return [t.dtype, t.device, t.stride(), t.requires_grad, t.grad, bits(t)]


def attributes(module: nn.Module) -> dict[str, Any]:
    """What the module has as its own; tables, such as those of hooks, by their contents."""
    return {
        key: list(value.items()) if isinstance(value, dict) else value
        for key, value in vars(module).items()
    }


def same(first: Any, second: Any) -> bool:
    """Whether two snapshots agree, objects by identity."""
    if isinstance(first, (list, tuple)) and type(first) is type(second):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.dtype == torch.uint8:
        return torch.equal(first, second)
    if isinstance(first, functools.partial) and isinstance(second, functools.partial):
        return first.func is second.func and same(first.args, second.args)
    return first is second or (not isinstance(first, (Tensor, nn.Module)) and first == second)


def assert_unchanged(model: nn.Module, before: list[Any]) -> None:
    for old, new in zip(before, snapshot(model), strict=True):
        for former, present in zip(old, new, strict=True):
            assert same(former, present), f"changed: {former} became {present}"
