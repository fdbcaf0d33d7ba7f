"""What a model holds outside its module tree, and copies that hold nothing of the original."""

import contextlib
import copy
import dis
import functools
import gc
import sys
import threading
import types
import weakref
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ...basics.errors import described
from .convs import computing_hooks, why_computed
from .model_tree import MODULE_STATE, MOVABLE_HOOKS, tensors_in

SLOT = types.MemberDescriptorType
Names = dict[str, Any] | None  # the globals that functions may use; None for their own file's
Kinds = dict[type, Names]  # classes, and the names for their methods
OF_OTHERS = {*sys.stdlib_module_names, "torch", "bsconv"}
# graphs go by the names of layers; optimisers, to be made after a surgery, compute nothing
OPAQUE = (types.ModuleType, types.CodeType, Tensor, torch.fx.Graph, torch.optim.Optimizer)


def held_outside(
    model: nn.Module, known: Collection[int] = ()
) -> Iterator[tuple[str, nn.Module | None, Any]]:
    """All objects that modules of ``model`` lead to other than by the tree: the name of the
    attribute, hook or class that leads there, the module that has it, the object."""
    modules, shared = dict(model.named_modules()), set[int]()
    tables = ((one, one._modules, one._parameters) for one in modules.values())
    closed = {id(one) for own in tables for one in own}.union(known)
    used = dict.fromkeys(map(type, modules.values()))
    kinds: Kinds = dict.fromkeys(filter(_is_own, chain(*(kind.__mro__ for kind in used))))
    held = {kind: chain(*(vars(base).items() for base in kind.__mro__)) for kind in used}
    slots = {kind: [key for key, one in held[kind] if isinstance(one, SLOT)] for kind in used}
    for prefix, module in modules.items():
        seen = shared if module._modules else set()  # a layer may lead to itself: others may, too
        own = vars(module) | {key: getattr(module, key, None) for key in slots[type(module)]}
        for key, value in own.items():
            if (key not in MODULE_STATE or (value and key in MOVABLE_HOOKS)) and _may_lead(value):
                found = _reached([value], closed, seen, kinds)
                yield from ((f"{prefix}.{key}".lstrip("."), module, one) for one in found)
    done = 0
    while new := list(kinds)[done:]:
        done += len(new)
        for kind in new:
            found = _reached(vars(kind).values(), closed, shared, kinds, kinds[kind])
            yield from ((kind.__name__, None, one) for one in found)


def _is_own(kind: Any) -> bool:
    """Whether a class, or a file, is neither PyTorch's nor the standard library's nor ours."""
    name = kind.__name__ if isinstance(kind, types.ModuleType) else kind.__module__
    return str(name).partition(".")[0] not in OF_OTHERS


def _reached(
    starts: Iterable[Any], closed: set[int], seen: set[int], kinds: Kinds, names: Names = None
) -> Iterator[Any]:
    """All that ``starts`` lead to; classes are left in ``kinds``, to be searched."""
    waiting: list[tuple[Any, Names]] = [(start, names) for start in starts]
    while waiting:
        value, names = waiting.pop()
        if id(value) in seen or not _may_lead(value):
            continue
        seen.add(id(value))
        yield value
        kind = type(value)
        if id(value) in closed or issubclass(kind, OPAQUE):
            continue
        if issubclass(kind, type):
            inside = names is None or value.__module__ == names.get("__name__")
            for base in filter(_is_own, value.__mro__):
                kinds.setdefault(base, names if inside else {})
        elif issubclass(kind, weakref.ref):
            waiting.append((value(), names))
        elif issubclass(kind, weakref.ProxyTypes):
            with contextlib.suppress(ReferenceError):  # what it stood for is gone
                waiting.append((value.__repr__.__self__, names))
        elif kind is not types.FunctionType:
            waiting += ((one, names) for one in gc.get_referents(value))
        else:
            parts = value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value)
            waiting += ((one, names) for one in parts)
            # from a global name on only in the same file: the library of others is not searched
            file = value.__globals__
            if (names is None or names is file) and not str(value.__module__).startswith("torch."):
                used = [file[name] for name in _global_names(value.__code__) if name in file]
                files = [one for one in used if type(one) is types.ModuleType and _is_own(one)]
                for module in files:  # what is looked up in them
                    used += map(vars(module).get, value.__code__.co_names)
                waiting += ((one, file) for one in used)


def _may_lead(value: object) -> bool:
    """Whether it may refer to others; the collector does not track dicts that do not."""
    if type(value) is tuple:
        return any(map(_may_lead, value))
    return gc.is_tracked(value) or type(value) is dict


@functools.lru_cache(maxsize=10_000)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Those that a function uses; among ``co_names`` are attributes, too."""
    loads = (one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL")
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return *loads, *chain.from_iterable(map(_global_names, inner))


def independent_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A copy, in the same mode, that uses nothing of ``model``; ``memo`` as for copy.deepcopy."""
    # functions are not copied: a lambda or hook in a copy goes on with the layers that it holds
    if memo is None:  # what an earlier pass has left in the model is copied without its history
        plain = (one for one in model.modules() if not any(computing_hooks(one)))
        kept = (tensor for one in plain for tensor in tensors_in(vars(one)) if not tensor.is_leaf)
        memo = {id(tensor): tensor.detach().clone() for tensor in kept}
    try:
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        hooked = ((name, one) for name, one in model.named_modules() if any(computing_hooks(one)))
        computed = (f"'{name}' is {why_computed(one)}" for name, one in hooked)
        raise ValueError(f"model cannot be copied: {next(computed, described(error))}") from error
    olds, news = list(model.modules()), [(*one, one[1]) for one in twin.named_modules()]
    for old, (_, new, _) in zip(olds, news, strict=False):
        if new.training != old.training:  # some forget it in copies
            new.train(old.training)
    originals = set(map(id, olds))
    for name, owner, value in chain(news, held_outside(twin, originals)):
        kind, copied = type(value), memo.get(id(value), value) is not value
        # a hook may fill something empty; the empty defaults of a class are nobody's
        empty = owner is not None and issubclass(kind, (dict, list, set)) and not value
        called = id(value) in originals
        if called and owner is not value:  # the SiLU of a class computes the same for both
            called = any(True for _ in chain(value.parameters(), value.buffers()))
        if called or (copied and (empty or issubclass(kind, Tensor))):
            what = "calls layers" if called else f"uses a {kind.__name__}"
            said = f"its copy {what} of the original, which {name} leads to"
            raise ValueError(f"model cannot be copied: {said}")
    return twin


@contextlib.contextmanager
def apart_from(model: nn.Module) -> Iterator[None]:
    """Raises ValueError where what runs inside, a copy of ``model``, calls a layer of ``model``."""
    said, here = list[str](), threading.get_ident()  # other threads may use the model
    names = {layer: name for name, layer in model.named_modules()}

    def refuse(layer: nn.Module, _: object) -> None:
        if layer in names and threading.get_ident() == here:
            said.append(f"model cannot be copied: its copy calls '{names[layer]}' of the original")
            raise ValueError(said[0])

    try:
        with register_module_forward_pre_hook(refuse):  # one for all modules: quicker than each
            yield
    finally:
        if said:  # whatever the copy made of the error
            raise ValueError(said[0])
