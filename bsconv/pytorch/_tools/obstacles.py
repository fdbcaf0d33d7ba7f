"""Why a layer cannot be exchanged: odd convolutions, shared weights, other holders, hooks."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ...basics.errors import meant
from .convs import CONVS, Conv, why_computed
from .model_tree import MOVABLE_HOOKS, STATE_HOOKS, Place
from .outside import held_outside

WRAPPED = ("module", "_orig_mod")  # by DataParallel, torch.compile


def why_not_plain(module: nn.Module, groups: int = 1, dimensions: Sequence[int] = (1, 2, 3)) -> str:
    """Why ``module`` is not a plain convolution of these dimensions and groups; empty if it is."""
    name = type(module).__name__
    if computed := why_computed(module):
        return computed
    kinds = [CONVS[number - 1] for number in dimensions]
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None or not isinstance(module, Conv):
        return f"{name} is not a {' or '.join(kind.__name__ for kind in kinds)}"
    if type(module) is not kind:
        return f"{name} is a subclass of {kind.__name__} and may compute something else"
    if "forward" in vars(module):
        return "its forward was exchanged on the instance"
    if own := {*module._parameters, *module._buffers, *module._modules} - {"weight", "bias"}:
        return f"has state apart from weight and bias: {', '.join(sorted(own))}"
    weight = module.weight
    computable = weight.is_floating_point() and torch.finfo(weight.dtype).bits >= 16
    if type(weight) is not nn.Parameter or not computable:
        return f"its weight is a {type(weight).__name__} of {weight.dtype}"
    if module.groups != groups:
        return f"grouped (groups={module.groups})"
    return ""


def why_tied(model: nn.Module, convs: Sequence[Conv]) -> dict[nn.Module, str]:
    """Why some of ``convs`` can't be exchanged without what else in ``model`` uses them."""
    free: set[Any] = set(convs)
    wanted = {id(part): conv for conv in convs for part in (conv, *conv.parameters())}
    reasons: dict[nn.Module, str] = {}
    for name, owner, value in held_outside(model):
        conv: Any = wanted.get(id(value))
        if conv in free and conv is not owner:
            free.remove(conv)
            reasons[conv] = f"is also in {name}, outside the module tree"
    users: dict[nn.Parameter, list[tuple[nn.Module, str]]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            users[parameter].append((module, name))

    def another_use(conv: Conv) -> str:
        """The name of a parameter of ``conv`` in a module that stays, or in another role."""
        for key, parameter in conv.named_parameters():
            for user, name in users[parameter]:
                if user not in free or name.rpartition(".")[2] != key:
                    return name
        return ""

    # one that stays keeps those that share a parameter with it in turn
    while found := {conv: name for conv in free if (name := another_use(conv))}:
        reasons |= {conv: f"shares a parameter with {name}" for conv, name in found.items()}
        free -= found.keys()
    return reasons


def unmovable_hooks(module: nn.Module) -> str:
    """Which hooks mean its very parameters or state dict; empty if there are none."""
    if any(getattr(module, hooks) for hooks in STATE_HOOKS):
        return "hooks on its state dict"
    for name, parameter in module.named_parameters(recurse=False):
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"hooks on its parameter {name}"
    return ""


def has_hooks(module: nn.Module, *, movable: bool) -> bool:
    """Whether ``module`` itself has hooks: any if ``movable``, else those that can't move."""
    tables = [table for table in MOVABLE_HOOKS if movable and table.endswith("_hooks")]
    return any(getattr(module, table) for table in tables) or bool(unmovable_hooks(module))


def excluded_modules(
    model: nn.Module, everywhere: Sequence[Place], patterns: Iterable[str]
) -> dict[nn.Module, str]:
    """The modules that ``patterns`` name, and all inside them, each with its pattern."""
    names = {place.name: place.module for place in everywhere}
    plain = {name: ".".join(p for p in name.split(".") if p not in WRAPPED) for name in names}
    # a layer inside a BSConv layer, which is not entered, may be named too
    known = [name for name, _ in model.named_modules()]
    covered: dict[str, str] = {}
    for pattern in patterns:
        named = _named_by(pattern, names)
        if not named:
            wanted = _named_by(pattern, plain.values())
            named = {name for name in names if plain[name] in wanted}
        if not named and not _named_by(pattern, known):
            hint = meant(pattern, names)
            raise ValueError(f"exclude names no layer of this model: '{pattern}'{hint}")
        covered |= dict.fromkeys(named, pattern)
    # parents come first, so that a pattern for a layer itself counts
    inside = ((name, one) for name in names if name in covered for one in names[name].modules())
    return {module: covered[name] for name, module in inside}


def _named_by(pattern: str, names: Collection[str]) -> set[str]:
    """The name itself, where it is one, even one with brackets; else those that match."""
    return {pattern} & set(names) or {name for name in names if fnmatchcase(name, pattern)}
