"""The plans by which a BSConv layer can be computed once it is trained: fewer convolutions."""

import copy
from typing import cast

from torch import nn

from .._tools.convs import memory_format_of
from .._tools.joining import exact_steps, joined
from ._folding import is_fixed, is_unmodified

FACTORED = "factored"


def layer_plans(layer: nn.Module) -> dict[str, nn.Module]:
    """Modules that compute what a BSConv ``layer`` computes in eval mode, by the name of the plan.

    "factored": one convolution after the other, BatchNorms folded into them. "joined": the first
    two multiplied. "narrow": the first, then one dense convolution of its few channels. "merged":
    one dense convolution. A layer of two convolutions has "factored" and "merged" only. Empty where
    parts of the layer are other than plain convolutions and BatchNorms with running statistics, or
    have hooks, and for subclasses.
    """
    norms = [part for part in layer.children() if isinstance(part, nn.BatchNorm2d)]
    if not is_unmodified(layer) or not all(map(is_fixed, norms)):
        return {}
    steps = exact_steps(layer.children())
    plans: dict[str, list[nn.Module]] = {FACTORED: list(steps)}
    if len(steps) == 2:
        plans["merged"] = [joined(*steps)]
    else:
        first, second, third = steps
        plans["joined"] = [joined(first, second), third]
        plans["narrow"] = [first, joined(second, third)]
        pairs = plans["joined"], plans["narrow"]
        plain = next(pair for pair in pairs if all(isinstance(part, nn.Conv2d) for part in pair))
        plans["merged"] = [joined(*cast(list[nn.Conv2d], plain))]
    return {name: _as_in(layer, parts) for name, parts in plans.items()}


def _as_in(layer: nn.Module, parts: list[nn.Module]) -> nn.Module:
    """The parts with weights of their own, in the dtype and the memory format of ``layer``."""
    last = list(layer.children())[-1]
    assert isinstance(last, nn.Conv2d)
    plan = copy.deepcopy(parts[0] if len(parts) == 1 else nn.Sequential(*parts))
    plan.to(last.weight.dtype)
    plan.to(memory_format=memory_format_of(last.weight))
    return plan.requires_grad_(False).eval()
