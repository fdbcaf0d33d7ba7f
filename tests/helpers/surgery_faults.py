"""Faults put into the replacers on purpose, each of which the promises have to notice."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvS, regularization, replacers
from bsconv.pytorch import replacers as _replacement
from bsconv.pytorch._tools import model_tree as _surgery
from bsconv.pytorch.replacers import Replacer
from helpers.model_strategies import DTYPES

Patch = pytest.MonkeyPatch


def spoiled(spoil: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """Each new layer loses something."""

    def put_in(patch: Patch) -> None:
        make = Replacer._replacement

        def make_spoiled(self: Replacer, conv: nn.Conv2d) -> nn.Module:
            layer = make(self, conv)
            spoil(layer)
            return layer

        patch.setattr(Replacer, "_replacement", make_spoiled)

    return put_in


def changed(module: Any, name: str, value: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(module, name, value)


def without_rollback(model: nn.Module, where: Any, layers: Any, finish: Any) -> nn.Module:
    for place in where:
        _surgery.move_hooks(place.module, layers[id(place.module)])
        if place.parent is None:
            model = layers[id(place.module)]
        else:
            setattr(place.parent, place.key, layers[id(place.module)])
    finish(model)
    return model


def without_a_close_look(module: nn.Module, groups: int = 1) -> str:
    if isinstance(module, nn.Conv2d) and module.groups == groups:
        known = not nn.parameter.is_lazy(module.weight) and module.weight.dtype in DTYPES["any"]
        return "" if known else "of another kind"
    return "no Conv2d"


def first_places(model: nn.Module, leaves: Any) -> list[_surgery.Place]:
    places = {id(place.module): place for place in reversed([*_surgery.places(model, leaves)])}
    return list(reversed(places.values()))


def counted_again(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters() if not nn.parameter.is_lazy(p))


class Clinging(functools.partial):
    """Goes into copies as it is."""

    def __deepcopy__(self, memo: Any) -> "Clinging":
        return self


def cling(model: nn.Module) -> None:
    model.reg_loss = Clinging(regularization.reg_loss, model)


def drawing(self: Replacer, conv: nn.Conv2d) -> nn.Module:
    torch.rand(1)
    return self.layer_class.like(conv, **self.options)


def squared(bases: Tensor) -> Tensor:
    bases = bases.to(torch.promote_types(bases.dtype, torch.float32))
    return (bases @ bases.mT - torch.eye(bases.shape[1]).to(bases)).square().sum(dim=(1, 2))


# what is wrong -> the feature that brings it out, and how to put it in
FAULTS: dict[str, tuple[str, Callable[[Patch], None]]] = {
    "training mode lost": ("partly in eval mode", spoiled(lambda layer: layer.train())),
    "requires_grad lost": ("frozen", spoiled(lambda layer: layer.requires_grad_())),
    "dtype lost": ("half precision", spoiled(lambda layer: layer.float())),
    "memory format lost": (
        "channels_last",
        spoiled(lambda layer: layer.to(memory_format=torch.contiguous_format)),
    ),
    "stride lost": ("ModuleList", spoiled(lambda layer: setattr(layer.dw, "stride", (1, 1)))),
    "bias lost": ("Sequential", spoiled(lambda layer: setattr(layer.dw, "bias", None))),
    "hooks lost": ("hooked", changed(_surgery, "move_hooks", lambda old, new: None)),
    "hooks that can't move lost": (
        "hooks that can't move",
        changed(_replacement, "unmovable_hooks", lambda conv: ""),
    ),
    "shared modules untied": ("shared module", changed(_replacement, "places", first_places)),
    "shared weights untied": (
        "shared weight",
        changed(
            _replacement, "_build", lambda chosen, make: {id(c.conv): make(c.conv) for c in chosen}
        ),
    ),
    "weights of other layers untied": (
        "weight of another kind of layer too",
        changed(_replacement, "shares_with_others", lambda model, convs: {}),
    ),
    "plain lists overlooked": (
        "layers in a plain list too",
        changed(_replacement, "held_in_attributes", lambda model, convs: {}),
    ),
    **{
        f"{odd} replaced": (odd, changed(_replacement, "why_not_plain", without_a_close_look))
        for odd in ("subclass", "pruned", "patched forward")
    },
    "left half done": ("sealed parent", changed(_replacement, "exchange", without_rollback)),
    "another reg_loss hidden": (
        "own reg_loss",
        changed(replacers, "check_reg_loss", lambda m: None),
    ),
    "copies penalise the original": (
        "ModuleDict",
        changed(replacers, "attach_reg_loss", cling),
    ),
    "penalty squared": ("ModuleList", changed(regularization, "_penalties", squared)),
    "penalty of other weights": (
        "ModuleList",
        changed(BSConvS, "basis", lambda layer: layer.pw2.weight.flatten(1)),
    ),
    "plan counts wrong": ("shared weight", changed(_replacement, "parameter_count", counted_again)),
    "plan draws random numbers": ("Sequential", changed(Replacer, "_stand_in", drawing)),
    "BSConv within BSConv": ("BSConv already", changed(_replacement, "BLUEPRINT_LAYERS", ())),
}
